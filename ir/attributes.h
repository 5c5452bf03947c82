// Attributes: the static data of a node, by name.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/tensor.h"

namespace halfstep {

class Graph;
using Ints = std::vector<int64_t>;
using Region = std::shared_ptr<const Graph>;
using Attribute = std::variant<int64_t, double, std::string, DType, Ints, Tensor, Region>;

// A small map kept sorted by name, so that equal attributes print and hash equally; copies share it until one is set.
// The accessors throw InternalError when the name or the kind is wrong: the builder has checked both against the op
// row.
class Attributes {
 public:
  using Entry = std::pair<std::string, Attribute>;

  Attributes() = default;
  Attributes(std::initializer_list<Entry> entries);

  void set(std::string_view name, Attribute value);
  const Attribute* find(std::string_view name) const;
  int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  const std::string& text(std::string_view name) const;
  DType dtype(std::string_view name) const;
  const Ints& ints(std::string_view name) const;
  const Tensor& tensor(std::string_view name) const;
  const Graph& region(std::string_view name) const;

  auto begin() const { return entries().begin(); }
  auto end() const { return entries().end(); }
  bool empty() const { return entries().empty(); }
  size_t hash() const { return map_ ? map_->hash : 0; }
  // Regions compare by identity.
  friend bool operator==(const Attributes& a, const Attributes& b) {
    return a.map_ == b.map_ || (a.hash() == b.hash() && a.entries() == b.entries());
  }

 private:
  template <typename T>
  const T& get(std::string_view name) const;

  struct Map {
    std::vector<Entry> entries;
    size_t hash = 0;  // the sum over the entries
  };
  const std::vector<Entry>& entries() const;

  std::shared_ptr<Map> map_;  // null: empty
};

}  // namespace halfstep
