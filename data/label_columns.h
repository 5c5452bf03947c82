// Label columns of a table, or fields of a shard's samples, as they come: numbers, or texts, which become classes.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/tensor.h"
#include "data/data_facts.h"

namespace halfstep {

class LabelColumns {
 public:
  // Texts are the classes of `facts`, or, where it has none, those that come.
  LabelColumns(size_t columns, const DataFacts& facts, bool texts);
  // The next field of a row. Why it is none; empty: it was taken. `text_found` where numbers were expected and texts
  // may come. Error where there are too many classes.
  std::string take(std::string_view field, bool& text_found);
  void end_row(bool good);
  // The array: integers [rows] where all are whole numbers or texts, else f32; of several columns [rows, columns], u8
  // where all are 0 and 1. And the classes' names in sorted order where they are texts that `facts` do not say.
  Tensor finish(int64_t rows, std::vector<std::string>& classes);

 private:
  std::string take_text(std::string_view field);

  size_t columns_;
  bool texts_, fixed_ = false, whole_ = true, bits_ = true;
  std::unordered_map<std::string, uint32_t> ids_;
  std::vector<double> row_, values_;
};

// For messages: quoted, without its end where it is long.
std::string shown_field(std::string_view field);

}  // namespace halfstep
