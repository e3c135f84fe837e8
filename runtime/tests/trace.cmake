# Tests of traces: what a collector gets of whole pipelines, against a real nats-server.
include(GoogleTest)
if("entities" IN_LIST PIPEGEN_COMPONENTS AND "sqlite" IN_LIST PIPEGEN_COMPONENTS)
  find_package(nlohmann_json REQUIRED)
  add_executable(trace_test trace_test.cpp support/trace_collector.cpp)
  target_include_directories(trace_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(trace_test PRIVATE
    pipegen::worker pipegen::http pipegen::entities pipegen::sqlite pipegen_test_support pipegen_flags
    PkgConfig::PIPEGEN_NATS PkgConfig::PIPEGEN_HTTPLIB nlohmann_json::nlohmann_json GTest::gtest_main Threads::Threads)
  gtest_discover_tests(trace_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 120)
endif()
