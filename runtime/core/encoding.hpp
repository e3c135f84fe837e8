// Base64 (RFC 4648) and hexadecimal text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "pipegen/types.hpp"

namespace pipegen {

/// With padding.
std::string base64(BytesView bytes);
/// The alphabet for URLs and file names. NATS pads it in digests and object names.
std::string base64url(BytesView bytes, bool padded = true);

/// Nothing unless the text is exactly what base64() would write for some octets.
std::optional<Bytes> decode_base64(std::string_view text);

/// Lower case.
std::string hex(BytesView bytes);

}  // namespace pipegen
