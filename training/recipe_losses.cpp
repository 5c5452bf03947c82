#include "training/recipe_losses.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/printable.h"

namespace halfstep {
namespace {

constexpr const char* kKinds[] = {"softmax_cross_entropy", "mean_squared_error", "from_graph"};

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

struct LossKey {
  const char* name;
  void (*set)(RecipeLoss&, const std::string&);
  std::string (*get)(const RecipeLoss&);  // "": as it is anyway
};
constexpr LossKey kKeys[] = {
    {"name", [](RecipeLoss& l, const std::string& v) { set_text(l.name, v); },
     [](const RecipeLoss& l) { return l.name; }},
    {"kind",
     [](RecipeLoss& l, const std::string& v) {
       if (std::ranges::find(kKinds, v) == std::end(kKinds))
         throw Error(fmt::format("{}, {} or {} expected, found '{}'", kKinds[0], kKinds[1], kKinds[2], v));
       l.kind = v;
     },
     [](const RecipeLoss& l) { return l.kind; }},
    {"output", [](RecipeLoss& l, const std::string& v) { set_text(l.output, v); },
     [](const RecipeLoss& l) { return l.output; }},
    {"labels", [](RecipeLoss& l, const std::string& v) { set_text(l.labels, v); },
     [](const RecipeLoss& l) { return l.labels; }},
    {"weight",
     [](RecipeLoss& l, const std::string& v) {
       l.weight = number<double>(v, "a number");
       // The step multiplies by it in f32.
       const double size = std::abs(l.weight);
       if (size != 0 && (size > std::numeric_limits<float>::max() || size < std::numeric_limits<float>::min()))
         throw Error(fmt::format("0, or a number that an f32 holds expected, found {}", v));
     },
     [](const RecipeLoss& l) { return fmt::format("{}", l.weight); }},
    {"ignore_index", [](RecipeLoss& l, const std::string& v) { l.ignore_index = number<int64_t>(v, "a whole number"); },
     [](const RecipeLoss& l) { return l.ignore_index ? std::to_string(*l.ignore_index) : ""; }},
    {"class_axis", [](RecipeLoss& l, const std::string& v) { l.class_axis = number<int64_t>(v, "a whole number"); },
     [](const RecipeLoss& l) { return l.class_axis ? std::to_string(*l.class_axis) : ""; }},
    {"label_smoothing",
     [](RecipeLoss& l, const std::string& v) {
       l.label_smoothing = number<double>(v, "a number");
       if (l.label_smoothing < 0 || l.label_smoothing > 1)
         throw Error(fmt::format("a number from 0 to 1 expected, found {}", v));
     },
     [](const RecipeLoss& l) { return l.label_smoothing == 0 ? "" : fmt::format("{}", l.label_smoothing); }}};

void set(RecipeLoss& loss, const std::string& name, const std::string& value) {
  const auto key = std::ranges::find(kKeys, name, &LossKey::name);
  if (key == std::end(kKeys)) {
    std::vector<std::string> names;
    for (const LossKey& k : kKeys) names.emplace_back(k.name);
    const std::string near = nearest(name, names);
    throw Error(fmt::format("no key '{}'{}", name, near.empty() ? "" : "; did you mean '" + near + "'?"));
  }
  try {
    key->set(loss, value);
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

std::vector<RecipeLoss> read_losses(const std::string& text) {
  std::vector<RecipeLoss> losses;
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

std::string write_losses(const std::vector<RecipeLoss>& losses) {
  std::string text;
  for (const RecipeLoss& loss : losses) {
    std::vector<std::pair<std::string, std::string>> keys;
    for (const LossKey& key : kKeys)
      if (std::string value = key.get(loss); !value.empty()) keys.emplace_back(key.name, std::move(value));
    text += (text.empty() ? "" : ";") + loss_text(keys);
  }
  return text;
}

std::string loss_text(const std::vector<std::pair<std::string, std::string>>& keys) {
  std::string text;
  for (const auto& [name, value] : keys) {
    if (value.find_first_of(",;") != std::string::npos)
      throw Error(fmt::format("{}: '{}' holds ',' or ';', which separate losses and their keys", name, value));
    text += (text.empty() ? "" : ",") + name + "=" + value;
  }
  return text;
}

}  // namespace halfstep
