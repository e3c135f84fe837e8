// JSON as RFC 8259 says, no more and no less: for those who pass messages on and know nothing of what is in them.
#pragma once

#include <string_view>

namespace pipegen::ingest {

/// Throws json::Invalid, with the octet at which it stops being JSON, unless `text` is one JSON text in UTF-8 that is
/// nested no deeper than `max_depth`. Takes what json::Reader does not: names that are there twice, numbers of any
/// size, escapes of lone surrogates. No recursion: depth costs no stack.
void check_any_json(std::string_view text, std::size_t max_depth);

}  // namespace pipegen::ingest
