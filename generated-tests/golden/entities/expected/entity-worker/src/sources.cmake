# Yours: pipegen wrote this once and will not touch it again.
# List the sources of your transforms here, and find and link the libraries that they need.
target_sources(entity-worker PRIVATE src/transforms.cpp)
