// Text tables whose columns line up: numbers to the right, words to the left.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace halfstep {

class Table {
 public:
  explicit Table(std::vector<std::string> header) : header_(std::move(header)) {}
  void add(std::vector<std::string> row);  // a cell is one line, whatever a name holds
  bool empty() const { return rows_.empty(); }
  // `columns`: of a line, where words are shortened in the middle to fit; 0: none are.
  std::string text(const std::string& indent = "  ", size_t columns = 0) const;

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;
};

// UTF-8 text of at most `columns`, the middle left out: "/encoder/…/MatMul".
std::string shortened(const std::string& text, size_t columns);
// 12,345,678
std::string count_text(int64_t count);

}  // namespace halfstep
