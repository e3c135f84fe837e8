# Tests of what the runtime does when nats-server is killed, full, one of three, or not what it should be.
include(GoogleTest)
if("worker" IN_LIST PIPEGEN_COMPONENTS AND "entities" IN_LIST PIPEGEN_COMPONENTS)
  add_library(pipegen_fault_support STATIC support/faults.cpp support/nats_cluster.cpp)
  target_include_directories(pipegen_fault_support PUBLIC ${CMAKE_CURRENT_SOURCE_DIR} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_features(pipegen_fault_support PUBLIC cxx_std_20)
  target_link_libraries(pipegen_fault_support PUBLIC pipegen::nats pipegen_test_support PkgConfig::PIPEGEN_NATS
                                              PRIVATE pipegen_flags)
  foreach(name broker_faults_test cluster_test refusals_test)
    add_executable(${name} ${name}.cpp)
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
    target_link_libraries(${name} PRIVATE pipegen::worker pipegen::http pipegen::entities pipegen::sqlite
                                          pipegen_fault_support pipegen_flags PkgConfig::PIPEGEN_HTTPLIB GTest::gtest
                                          Threads::Threads)
    # With PIPEGEN_SOAK=1 nats-server is away for minutes.
    gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 1200)
  endforeach()
endif()
