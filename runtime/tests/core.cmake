# Tests of runtime/core, and of the public headers: each must compile alone.
include(GoogleTest)
if("core" IN_LIST PIPEGEN_COMPONENTS)
  add_executable(core_test core_test.cpp)
  target_include_directories(core_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(core_test PRIVATE pipegen::core pipegen_flags GTest::gtest_main)
  gtest_discover_tests(core_test DISCOVERY_TIMEOUT 60)

  set(header_sources)
  foreach(header
      admin context entities error ingest json key_value log message_status metrics nats object_store outbox process
      settings sql stage trace types worker
      actions/exec actions/http_call actions/ocr actions/render_pdf actions/speak actions/values actions/wav)
    set(source ${CMAKE_CURRENT_BINARY_DIR}/headers/${header}.cpp)
    file(CONFIGURE OUTPUT ${source} CONTENT "#include \"pipegen/${header}.hpp\"\n#include \"pipegen/${header}.hpp\"\n")
    list(APPEND header_sources ${source})
  endforeach()
  add_library(public_headers OBJECT ${header_sources})
  target_include_directories(public_headers PRIVATE ${PROJECT_SOURCE_DIR}/include)
  target_link_libraries(public_headers PRIVATE pipegen_flags)

  find_package(benchmark QUIET)
  if(benchmark_FOUND)
    add_executable(json_benchmark EXCLUDE_FROM_ALL json_benchmark.cpp)
    target_link_libraries(json_benchmark PRIVATE pipegen::core pipegen_flags benchmark::benchmark_main)
  endif()
endif()
