#include "cli/cli.hpp"

int main(int argc, char** argv) { return pipegen::gen::run_cli(argc, argv); }
