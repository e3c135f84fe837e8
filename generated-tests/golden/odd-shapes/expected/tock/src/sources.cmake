# Yours: pipegen wrote this once and will not touch it again.
# List the sources of your handler here, and find and link the libraries that they need.
target_sources(tock PRIVATE src/handler.cpp)
