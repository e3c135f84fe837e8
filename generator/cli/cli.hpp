// The command line: options to calls.
#pragma once

namespace pipegen::gen {

/// Gives the exit code: 0 done, 1 the schema or the state of the output is at fault, 2 the command line is. Never
/// throws.
int run_cli(int argc, char** argv);

}  // namespace pipegen::gen
