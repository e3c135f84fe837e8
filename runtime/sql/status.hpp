// Status rows as the ingestion API gives them out.
#pragma once

#include <optional>

#include "pipegen/message_status.hpp"
#include "sql/database.hpp"

namespace pipegen::sql {

std::optional<MessageRecord> record_of(std::optional<MessageStatus> status);

}  // namespace pipegen::sql
