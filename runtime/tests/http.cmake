# Tests of runtime/http: the server alone, and the ingestion API against a real nats-server.
include(GoogleTest)
if("http" IN_LIST PIPEGEN_COMPONENTS)
  add_executable(http_test http_test.cpp support/nats_server.cpp)
  target_include_directories(http_test PRIVATE ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(http_test PRIVATE pipegen::http pipegen_flags PkgConfig::PIPEGEN_HTTPLIB PkgConfig::PIPEGEN_NATS
                                          GTest::gtest Threads::Threads)
  add_executable(entity_ingest_test entity_ingest_test.cpp support/nats_server.cpp)
  target_include_directories(entity_ingest_test PRIVATE ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(entity_ingest_test PRIVATE pipegen::http pipegen_flags PkgConfig::PIPEGEN_HTTPLIB
                                                   PkgConfig::PIPEGEN_NATS GTest::gtest Threads::Threads)
  gtest_discover_tests(entity_ingest_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600)
  add_executable(ingest_benchmark EXCLUDE_FROM_ALL ingest_benchmark.cpp support/nats_server.cpp)
  target_include_directories(ingest_benchmark PRIVATE ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(ingest_benchmark PRIVATE pipegen::http pipegen_flags)
  gtest_discover_tests(http_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600)
endif()
