// Names nobody else will think of: what NATS clients call a NUID.
#pragma once

#include <string>

namespace pipegen {

/// 22 random characters out of 0-9, A-Z and a-z (131 bits). Thread safe.
std::string nuid();

}  // namespace pipegen
