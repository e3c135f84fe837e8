#pragma once

#include <string>
#include <string_view>

namespace pipegen::gen {

/// In hexadecimal digits.
std::string sha256(std::string_view content);

}  // namespace pipegen::gen
