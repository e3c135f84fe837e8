#include "pipegen/error.hpp"
#include "pipegen/message_status.hpp"
#include "sql/database.hpp"
namespace pipegen::sql {
std::unique_ptr<Database> open_postgresql(const Settings&, const Schema&) { throw ConfigError("not yet"); }
FindMessage find_message_in_postgresql(const Settings&) { throw ConfigError("not yet"); }
}  // namespace pipegen::sql
