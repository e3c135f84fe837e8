// What programs print for people.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace pipegen {

/// For a terminal: nothing in it moves the cursor.
std::string plain(std::string text);

/// Rows under their titles, each column as wide as its widest cell. Cells are made plain; numbers go to the right.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  /// As many cells as there are columns.
  void add(std::vector<std::string> cells);
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace pipegen
