// Entities of the older layout, one file each, as a schema in our language.
//
//   entity:
//     name: Order
//     fields: [{name: order_key, type: String, nullable: false, max_length: 32}]
//     persistence: {table: orders, primary_key: [order_key]}
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "schema/diagnostic.hpp"

namespace pipegen::gen {

struct Imported {
  std::optional<std::string> schema;  // what was made of them; nothing when a diagnostic is an error
  std::vector<Diagnostic> diagnostics;
  std::map<std::string, std::string> texts;  // to print lines under carets
  std::size_t entities = 0;                  // with a table
};

/// `files`: names, as diagnostics show them, and contents. The same files give the same bytes, and they are a schema
/// that load_pipeline takes without an error. What has no place in our language is left out with a warning.
Imported import_entities(const std::map<std::string, std::string>& files, const std::string& pipeline);

}  // namespace pipegen::gen
