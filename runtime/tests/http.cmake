# Tests of runtime/http: the server alone, and the ingestion API against a real nats-server.
include(GoogleTest)
if("http" IN_LIST PIPEGEN_COMPONENTS)
  add_executable(http_test http_test.cpp support/nats_server.cpp)
  target_include_directories(http_test PRIVATE ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(http_test PRIVATE pipegen::http pipegen_flags PkgConfig::PIPEGEN_HTTPLIB PkgConfig::PIPEGEN_NATS
                                          GTest::gtest Threads::Threads)
  add_executable(entity_ingest_test entity_ingest_test.cpp support/held_clock.cpp support/nats_server.cpp)
  target_include_directories(entity_ingest_test PRIVATE ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(entity_ingest_test PRIVATE pipegen::http pipegen_flags PkgConfig::PIPEGEN_HTTPLIB
                                                   PkgConfig::PIPEGEN_NATS GTest::gtest Threads::Threads)
  gtest_discover_tests(entity_ingest_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600)
  add_executable(ingest_benchmark EXCLUDE_FROM_ALL ingest_benchmark.cpp support/nats_server.cpp)
  target_include_directories(ingest_benchmark PRIVATE ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(ingest_benchmark PRIVATE pipegen::http pipegen_flags)
  gtest_discover_tests(http_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600 LABELS threads)
endif()

if("programs" IN_LIST PIPEGEN_COMPONENTS)
  add_executable(pipegen_ingest_test pipegen_ingest_test.cpp)
  target_include_directories(pipegen_ingest_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(pipegen_ingest_test PRIVATE PIPEGEN_INGEST="$<TARGET_FILE:pipegen-ingest>")
  target_link_libraries(pipegen_ingest_test PRIVATE pipegen_generic_ingest pipegen_test_support pipegen_flags
                                                    PkgConfig::PIPEGEN_HTTPLIB GTest::gtest_main)
  add_dependencies(pipegen_ingest_test pipegen-ingest)
  gtest_discover_tests(pipegen_ingest_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 120)
endif()
