# Tests of runtime/actions, with real programs, real HTTP servers and a real nats-server.
include(GoogleTest)
if("exec" IN_LIST PIPEGEN_COMPONENTS AND "http_call" IN_LIST PIPEGEN_COMPONENTS)
  add_executable(actions_test actions_test.cpp)
  target_include_directories(actions_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(actions_test PRIVATE pipegen::exec pipegen::http_call pipegen_test_support pipegen_flags
                                             PkgConfig::PIPEGEN_HTTPLIB GTest::gtest_main Threads::Threads)
  gtest_discover_tests(actions_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300)
endif()
