# Tests of runtime/sql, with real SQLite files and a real PostgreSQL that the test starts.
include(GoogleTest)
if("sqlite" IN_LIST PIPEGEN_COMPONENTS AND "postgresql" IN_LIST PIPEGEN_COMPONENTS AND "nats" IN_LIST PIPEGEN_COMPONENTS)
  add_library(pipegen_postgres_server STATIC support/postgres_server.cpp)
  target_compile_features(pipegen_postgres_server PUBLIC cxx_std_20)
  target_link_libraries(pipegen_postgres_server PUBLIC pipegen_test_support PRIVATE pipegen_flags)

  add_executable(sql_test sql_test.cpp)
  target_include_directories(sql_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(sql_test PRIVATE
    pipegen::sqlite pipegen::postgresql pipegen_postgres_server pipegen_flags PkgConfig::PIPEGEN_SQLITE
    PkgConfig::PIPEGEN_LIBPQ GTest::gtest_main Threads::Threads)
  gtest_discover_tests(sql_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300)

  add_executable(sql_benchmark EXCLUDE_FROM_ALL sql_benchmark.cpp)
  target_include_directories(sql_benchmark PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(sql_benchmark PRIVATE
    pipegen::sqlite pipegen::postgresql pipegen_postgres_server pipegen_flags Threads::Threads)
endif()
