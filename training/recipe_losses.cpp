#include "training/recipe_losses.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/printable.h"

namespace halfstep {
namespace {

template <typename T>
T number(const std::string& text, const char* what) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(static_cast<double>(value)))
    throw Error(fmt::format("{} expected, found '{}'", what, text));
  return value;
}

void set_text(std::string& to, const std::string& text) {
  if (text.empty()) throw Error("a name expected, found ''");
  to = text;
}

// What each of several losses has beside the keys of one.
struct TermKey {
  const char* name;
  void (*set)(LossTerm&, const std::string&);
  std::string (*get)(const LossTerm&);  // "": as it is anyway
};
constexpr TermKey kTermKeys[] = {
    {"name", [](LossTerm& l, const std::string& v) { set_text(l.name, v); }, [](const LossTerm& l) { return l.name; }},
    {"kind",
     [](LossTerm& l, const std::string& v) {
       const LossFunction* row = find_loss(v);
       if (!row) {
         const std::string near = nearest(v, split(loss_names("|"), '|'));
         throw Error(fmt::format("one of {} expected, found '{}'{}", loss_names(", "), v,
                                 near.empty() ? "" : "; did you mean '" + near + "'?"));
       }
       l.loss.kind = row->name;
     },
     [](const LossTerm& l) { return l.loss.kind; }},
    {"output", [](LossTerm& l, const std::string& v) { set_text(l.loss.output, v); },
     [](const LossTerm& l) { return l.loss.output; }},
    {"labels", [](LossTerm& l, const std::string& v) { set_text(l.loss.labels, v); },
     [](const LossTerm& l) { return l.loss.labels; }},
    {"weight",
     [](LossTerm& l, const std::string& v) {
       l.weight = number<double>(v, "a number");
       // The step multiplies by it in f32.
       const double size = std::abs(l.weight);
       if (size != 0 && (size > std::numeric_limits<float>::max() || size < std::numeric_limits<float>::min()))
         throw Error(fmt::format("0, or a number that an f32 holds expected, found {}", v));
     },
     [](const LossTerm& l) { return fmt::format("{}", l.weight); }}};

double value_within(const LossKey& key, const std::string& text) {
  const double value = number<double>(text, "a number");
  if (value < key.least || value > key.most)
    throw Error(std::isinf(key.most)
                    ? fmt::format("at least {:g} expected, found {}", key.least, text)
                    : fmt::format("a number from {:g} to {:g} expected, found {}", key.least, key.most, text));
  return value;
}

void set(LossTerm& term, const std::string& name, const std::string& value) {
  const auto of_terms = std::ranges::find(kTermKeys, name, &TermKey::name);
  const LossKey* of_losses = find_loss_key(name);
  if (of_terms == std::end(kTermKeys) && !of_losses) {
    std::vector<std::string> names;
    for (const TermKey& k : kTermKeys) names.emplace_back(k.name);
    for (const LossKey& k : loss_keys()) names.emplace_back(k.name);
    const std::string near = nearest(name, names);
    throw Error(fmt::format("no key '{}'{}", name, near.empty() ? "" : "; did you mean '" + near + "'?"));
  }
  try {
    of_losses ? set_loss_key(term.loss, *of_losses, value, kListSeparator) : of_terms->set(term, value);
  } catch (const Error& e) {
    throw Error(name + ": " + e.what());
  }
}

}  // namespace

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= text.size() && !text.empty()) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

void set_loss_key(OutputLoss& loss, const LossKey& key, const std::string& text, char separator) {
  std::vector<double> values;
  switch (key.kind) {
    case LossKey::whole:
      (key.name == "class_axis" ? loss.class_axis : loss.ignore_index) = number<int64_t>(text, "a whole number");
      return;
    case LossKey::yes_or_no:
      if (text != "true" && text != "false") throw Error(fmt::format("true or false expected, found '{}'", text));
      values = {text == "true" ? 1.0 : 0.0};
      break;
    case LossKey::list:
      for (const std::string& part : split(text, separator)) values.push_back(value_within(key, part));
      if (values.empty()) throw Error("one number or more expected, found ''");
      break;
    case LossKey::number:
      values = {value_within(key, text)};
  }
  loss.parameters[std::string(key.name)] = std::move(values);
}

std::string get_loss_key(const OutputLoss& loss, const LossKey& key, char separator) {
  if (key.kind == LossKey::whole) {
    const std::optional<int64_t>& value = key.name == "class_axis" ? loss.class_axis : loss.ignore_index;
    return value ? std::to_string(*value) : "";
  }
  const auto given = loss.parameters.find(key.name);
  if (given == loss.parameters.end()) return "";
  if (key.kind == LossKey::yes_or_no) return given->second.front() != 0 ? "true" : "false";
  return fmt::format("{}", fmt::join(given->second, std::string_view(&separator, 1)));
}

std::vector<LossTerm> read_losses(const std::string& text) {
  std::vector<LossTerm> losses;
  Problems problems;
  for (const std::string& one : split(text, ';')) {
    losses.emplace_back();
    if (one.empty()) problems.add(fmt::format("loss {}: it is empty", losses.size()));
    for (const std::string& part : split(one, ',')) try {
        const size_t equals = part.find('=');
        if (equals == std::string::npos) throw Error("KEY=VALUE expected, found '" + part + "'");
        set(losses.back(), part.substr(0, equals), part.substr(equals + 1));
      } catch (const Error& e) {
        problems.add(fmt::format("loss {}: {}", losses.size(), e.what()));
      }
  }
  problems.throw_if_any();
  return losses;
}

std::string write_losses(const std::vector<LossTerm>& losses) {
  std::string text;
  for (const LossTerm& term : losses) {
    std::vector<std::pair<std::string, std::string>> keys;
    for (const TermKey& key : kTermKeys)
      if (std::string value = key.get(term); !value.empty()) keys.emplace_back(key.name, std::move(value));
    for (const LossKey& key : loss_keys())
      if (std::string value = get_loss_key(term.loss, key, kListSeparator); !value.empty())
        keys.emplace_back(key.name, std::move(value));
    text += (text.empty() ? "" : ";") + keys_text(keys, "losses");
  }
  return text;
}

std::string keys_text(const std::vector<std::pair<std::string, std::string>>& keys, std::string_view several) {
  std::string text;
  for (const auto& [name, value] : keys) {
    if (value.find_first_of(",;") != std::string::npos)
      throw Error(fmt::format("{}: '{}' holds ',' or ';', which separate {} and their keys", name, value, several));
    text += (text.empty() ? "" : ",") + name + "=" + value;
  }
  return text;
}

}  // namespace halfstep
