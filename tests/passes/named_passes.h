// The passes by name, as text cases call them.
#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "ir/graph.h"

namespace halfstep {

// The options of a case. Every one must be asked for, so that a misspelt option fails the case.
class CaseOptions {
 public:
  void set(const std::string& key, const std::string& value) { values_[key] = value; }

  std::string text(const std::string& key, const std::string& otherwise = "") {
    const auto found = values_.find(key);
    if (found == values_.end()) return otherwise;
    used_.insert(key);
    return found->second;
  }
  double number(const std::string& key, double otherwise) {
    const std::string value = text(key);
    return value.empty() ? otherwise : std::stod(value);
  }
  int64_t integer(const std::string& key, int64_t otherwise) {
    return static_cast<int64_t>(number(key, static_cast<double>(otherwise)));
  }
  std::vector<std::string> list(const std::string& key) {
    std::vector<std::string> items;
    std::istringstream stream(text(key));
    for (std::string item; std::getline(stream, item, ',');) items.push_back(item);
    return items;
  }
  std::vector<double> numbers(const std::string& key) {
    std::vector<double> result;
    for (const std::string& item : list(key)) result.push_back(std::stod(item));
    return result;
  }
  template <typename T>
  T choice(const std::string& key, std::initializer_list<std::pair<const char*, T>> choices) {
    const std::string value = text(key, choices.begin()->first);
    for (const auto& [name, choice] : choices)
      if (value == name) return choice;
    throw InternalError("option " + key + "=" + value);
  }
  void require_all_used() const {
    for (const auto& [key, value] : values_) require(used_.contains(key), ("unknown option " + key).c_str());
  }

 private:
  std::map<std::string, std::string> values_;
  std::set<std::string> used_;
};

// Gives the text of the graph that the pass makes, with what else it reports behind.
using RunPass = std::function<std::string(const Graph&, CaseOptions&)>;
const std::map<std::string, RunPass>& named_passes();

}  // namespace halfstep
