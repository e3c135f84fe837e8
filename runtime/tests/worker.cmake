# Tests of runtime/worker, against real servers and with worker processes that die.
include(GoogleTest)
if("worker" IN_LIST PIPEGEN_COMPONENTS)
  add_executable(worker_test worker_test.cpp)
  target_include_directories(worker_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(worker_test PRIVATE pipegen::worker pipegen_test_support pipegen_flags PkgConfig::PIPEGEN_NATS
                                            GTest::gtest Threads::Threads)
  add_executable(worker_benchmark EXCLUDE_FROM_ALL worker_benchmark.cpp)
  target_include_directories(worker_benchmark PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(worker_benchmark PRIVATE pipegen::worker pipegen_test_support pipegen_flags
                                                 PkgConfig::PIPEGEN_NATS)
  gtest_discover_tests(worker_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 180 LABELS threads)
endif()
