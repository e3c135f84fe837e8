# Tests of runtime/nats, against real servers; and the tool that the interoperation test drives.
include(GoogleTest)
if("nats" IN_LIST PIPEGEN_COMPONENTS)
  add_library(pipegen_test_support STATIC support/nats_server.cpp support/process.cpp)
  target_include_directories(pipegen_test_support PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
  target_compile_features(pipegen_test_support PUBLIC cxx_std_20)
  target_link_libraries(pipegen_test_support PRIVATE pipegen_flags)

  add_executable(nats_test nats_test.cpp support/nats_jwt.cpp)
  target_include_directories(nats_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(nats_test PRIVATE pipegen::nats pipegen_test_support pipegen_flags PkgConfig::PIPEGEN_NATS
                                          PkgConfig::PIPEGEN_CRYPTO GTest::gtest_main)
  target_compile_definitions(nats_test PRIVATE INTEROP_TOOL="$<TARGET_FILE:interop_tool>")
  add_dependencies(nats_test interop_tool)
  gtest_discover_tests(nats_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600 LABELS threads)

  add_executable(interop_tool interop_tool.cpp)
  target_link_libraries(interop_tool PRIVATE pipegen::nats pipegen_flags)
endif()
