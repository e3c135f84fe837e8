// Asks a database what is in it, as somebody else than the runtime would.
#pragma once

#include <string>
#include <vector>

namespace pipegen::testing {

/// By the databases' own libraries, not by runtime/sql. `url` is that of [database] url. Throws std::runtime_error.
class SqlClient {
 public:
  explicit SqlClient(std::string url) : url_(std::move(url)) {}
  /// Every row, every value as text; NULL is "NULL".
  std::vector<std::vector<std::string>> rows(const std::string& query) const;
  /// Of the first row.
  std::string value(const std::string& query) const;

 private:
  std::string url_;
};

}  // namespace pipegen::testing
