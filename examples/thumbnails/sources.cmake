# Copy this to services/thumbnail/src/sources.cmake, over the one that pipegen wrote.
find_package(PkgConfig REQUIRED)
pkg_check_modules(LEPTONICA REQUIRED IMPORTED_TARGET lept)
target_sources(thumbnail PRIVATE src/handler.cpp)
target_link_libraries(thumbnail PRIVATE PkgConfig::LEPTONICA)
