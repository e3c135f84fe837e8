# Tests of runtime/entities, against real servers and with worker processes that die.
include(GoogleTest)
if("entities" IN_LIST PIPEGEN_COMPONENTS AND "programs" IN_LIST PIPEGEN_COMPONENTS)
  add_library(pipegen_sql_client STATIC support/sql_client.cpp)
  target_include_directories(pipegen_sql_client PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
  target_compile_features(pipegen_sql_client PUBLIC cxx_std_20)
  target_link_libraries(pipegen_sql_client PRIVATE pipegen_flags PkgConfig::PIPEGEN_SQLITE PkgConfig::PIPEGEN_LIBPQ)

  add_executable(entity_worker_test entity_worker_test.cpp)
  target_include_directories(entity_worker_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(entity_worker_test PRIVATE
    pipegen::entities pipegen::sqlite pipegen::postgresql pipegen_dead_letter_box pipegen_postgres_server
    pipegen_sql_client pipegen_flags PkgConfig::PIPEGEN_NATS GTest::gtest Threads::Threads)
  add_executable(entity_chain_test entity_chain_test.cpp)
  target_include_directories(entity_chain_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(entity_chain_test PRIVATE
    pipegen::entities pipegen::http pipegen::postgresql pipegen_postgres_server pipegen_sql_client pipegen_flags
    PkgConfig::PIPEGEN_NATS PkgConfig::PIPEGEN_HTTPLIB GTest::gtest Threads::Threads)
  # Services of every kind, as processes; and what the golden workspaces have for Prometheus and Grafana.
  find_package(nlohmann_json REQUIRED)
  get_filename_component(source_dir ${CMAKE_CURRENT_SOURCE_DIR}/../.. ABSOLUTE)
  add_executable(metrics_test metrics_test.cpp)
  target_include_directories(metrics_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(metrics_test PRIVATE PIPEGEN_INGEST="$<TARGET_FILE:pipegen-ingest>"
                                                  PIPEGEN_SOURCE_DIR="${source_dir}")
  target_link_libraries(metrics_test PRIVATE
    pipegen::entities pipegen::http pipegen::sqlite pipegen_test_support pipegen_flags nlohmann_json::nlohmann_json
    PkgConfig::PIPEGEN_NATS PkgConfig::PIPEGEN_HTTPLIB GTest::gtest Threads::Threads)
  add_dependencies(metrics_test pipegen-ingest)
  gtest_discover_tests(metrics_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 180)

  add_executable(clock_test clock_test.cpp support/held_clock.cpp)
  target_include_directories(clock_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(clock_test PRIVATE pipegen::entities pipegen::http pipegen::postgresql pipegen_postgres_server
                                           pipegen_flags PkgConfig::PIPEGEN_NATS GTest::gtest_main)
  add_executable(soak_test soak_test.cpp)
  target_include_directories(soak_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(soak_test PRIVATE
    pipegen::entities pipegen::http pipegen::sqlite pipegen::postgresql pipegen_postgres_server pipegen_flags
    PkgConfig::PIPEGEN_NATS PkgConfig::PIPEGEN_HTTPLIB GTest::gtest_main Threads::Threads)
  add_executable(entity_worker_benchmark EXCLUDE_FROM_ALL entity_worker_benchmark.cpp)
  target_include_directories(entity_worker_benchmark PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(entity_worker_benchmark PRIVATE
    pipegen::entities pipegen::sqlite pipegen::postgresql pipegen_postgres_server pipegen_flags
    PkgConfig::PIPEGEN_NATS Threads::Threads)
  gtest_discover_tests(entity_worker_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 400 LABELS threads)
  gtest_discover_tests(clock_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 180 LABELS threads)
  gtest_discover_tests(soak_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 900)
  gtest_discover_tests(entity_chain_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300)
endif()
if("programs" IN_LIST PIPEGEN_COMPONENTS)
  add_executable(dlq_test dlq_test.cpp)
  target_include_directories(dlq_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(dlq_test PRIVATE PIPEGEN_DLQ="$<TARGET_FILE:pipegen-dlq>")
  target_link_libraries(dlq_test PRIVATE pipegen::nats pipegen_test_support pipegen_flags PkgConfig::PIPEGEN_NATS
                                         GTest::gtest_main)
  add_dependencies(dlq_test pipegen-dlq)
  # The program pipegen hands over to pipegen-status.
  if(PIPEGEN_GENERATOR)
    add_executable(status_test status_test.cpp)
    target_include_directories(status_test PRIVATE ${PROJECT_SOURCE_DIR})
    target_compile_definitions(status_test PRIVATE PIPEGEN="$<TARGET_FILE:pipegen>"
                                                   PIPEGEN_STATUS="$<TARGET_FILE:pipegen-status>")
    target_link_libraries(status_test PRIVATE pipegen::nats pipegen_test_support pipegen_flags PkgConfig::PIPEGEN_NATS
                                              GTest::gtest_main)
    add_dependencies(status_test pipegen pipegen-status)
    gtest_discover_tests(status_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 120)
  endif()
  gtest_discover_tests(dlq_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 120)
endif()
