// Programs that are built and installed beside this one, and do what needs a NATS client: this one needs none, and
// starts in milliseconds because of that.
#pragma once

#include <string>
#include <vector>

namespace pipegen::gen {

/// Becomes that program, with these arguments. Returns only when it cannot, with the exit code and the reason said.
int become_sibling(const std::string& program, std::vector<std::string> arguments);

}  // namespace pipegen::gen
