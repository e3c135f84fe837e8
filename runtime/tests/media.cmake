# Tests of runtime/media, with the real libraries and a real nats-server.
include(GoogleTest)
if("pdf" IN_LIST PIPEGEN_COMPONENTS AND "ocr" IN_LIST PIPEGEN_COMPONENTS AND "speech" IN_LIST PIPEGEN_COMPONENTS AND
   "audio" IN_LIST PIPEGEN_COMPONENTS AND "http" IN_LIST PIPEGEN_COMPONENTS AND "worker" IN_LIST PIPEGEN_COMPONENTS)
  add_executable(media_test media_test.cpp)
  target_include_directories(media_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(media_test PRIVATE
    PIPEGEN_SAMPLES="${PROJECT_SOURCE_DIR}/../examples/pdf-to-audio")
  target_link_libraries(media_test PRIVATE
    pipegen::pdf pipegen::ocr pipegen::speech pipegen::audio pipegen::http pipegen::worker pipegen_test_support
    pipegen_flags PkgConfig::PIPEGEN_NATS PkgConfig::PIPEGEN_TESSERACT PkgConfig::PIPEGEN_SNDFILE PkgConfig::PIPEGEN_ZLIB PkgConfig::PIPEGEN_HTTPLIB GTest::gtest_main Threads::Threads)
  gtest_discover_tests(media_test DISCOVERY_TIMEOUT 60 PROPERTIES
    TIMEOUT 600 ENVIRONMENT "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_SOURCE_DIR}/leaks.supp")
endif()
