// Status rows as the ingestion API gives them out.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "pipegen/message_status.hpp"
#include "sql/database.hpp"

namespace pipegen::sql {

/// The text of an error as databases take it: UTF-8 without NUL.
std::string storable(std::string_view text);

std::optional<MessageRecord> record_of(std::optional<MessageStatus> status);

}  // namespace pipegen::sql
