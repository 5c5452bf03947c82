#include "api/load_options.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <set>

#include "api/status.h"

namespace halfstep {
namespace {

struct OptionRow {
  const char* key;
  const char* expected;
  bool (*set)(LoadOptions&, const std::string&);  // false: the value is none
};

template <typename T>
std::optional<T> number(const std::string& text, T least, T most) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [stopped, failed] = std::from_chars(text.data(), end, value);
  if (failed != std::errc{} || stopped != end || value < least || value > most) return std::nullopt;
  return value;
}

template <int ExecutorOptions::* member, int least>
bool set_count(LoadOptions& options, const std::string& text) {
  const std::optional<int> value = number(text, least, 4096);
  if (value) options.executor.*member = *value;
  return value.has_value();
}

constexpr OptionRow kRows[] = {
    {"device", "cpu, cuda or auto",
     [](LoadOptions& options, const std::string& text) {
       options.device = text;
       return text == "cpu" || text == "cuda" || text == "auto";
     }},
    {"threads", "0 to 4096", set_count<&ExecutorOptions::threads, 0>},
    {"autotune", "1 to 4096", set_count<&ExecutorOptions::autotune, 1>},
    {"device_index", "0 to 4096", set_count<&ExecutorOptions::device_index, 0>},
    {"seed", "a whole number of at least 0",
     [](LoadOptions& options, const std::string& text) {
       options.seed = number<uint64_t>(text, 0, std::numeric_limits<int64_t>::max());
       return options.seed.has_value();
     }},
    {"trust", "a file",
     [](LoadOptions& options, const std::string& text) {
       options.trust = text;
       return !text.empty();
     }},
    {"tf32", "true or false",
     [](LoadOptions& options, const std::string& text) {
       options.executor.allow_tf32 = text == "true";
       return text == "true" || text == "false";
     }},
};

}  // namespace

LoadOptions load_options(const std::vector<std::pair<std::string, std::string>>& options) {
  LoadOptions result;
  std::vector<std::string> problems, keys;
  std::set<std::string> seen;
  for (const OptionRow& row : kRows) keys.emplace_back(row.key);
  for (const auto& [key, value] : options) {
    const auto row = std::ranges::find(kRows, key, [](const OptionRow& r) { return std::string(r.key); });
    if (row == std::end(kRows)) {
      const std::string near = nearest(key, keys);
      problems.push_back("no option '" + key + "' of a compiled step" +
                         (near.empty()
                              ? std::string("; there are device, device_index, threads, autotune, seed, trust and tf32")
                              : "; did you mean '" + near + "'?"));
    } else if (!seen.insert(key).second) {
      problems.push_back(key + ": it is given twice");
    } else if (!row->set(result, value)) {
      problems.push_back(key + ": " + row->expected + " expected, found '" + value + "'");
    }
  }
  if (!problems.empty()) throw ArgumentError(problems);
  return result;
}

}  // namespace halfstep
