// Values of a recipe's keys as text: one reader and one writer for each kind.
#pragma once

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "training/recipe.h"
#include "training/recipe_losses.h"

namespace halfstep::recipe_values {

inline void read(std::string& to, const std::string& text) { to = text; }

inline void read(int64_t& to, const std::string& text) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
  if (error != std::errc() || end != text.data() + text.size())
    throw Error("a whole number expected, found '" + text + "'");
}

inline void read(double& to, const std::string& text) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(to))
    throw Error("a number expected, found '" + text + "'");
}

inline void read(bool& to, const std::string& text) {
  if (text != "true" && text != "false") throw Error("true or false expected, found '" + text + "'");
  to = text == "true";
}

// 6GiB, 1.5GiB, 500MiB, 1073741824
inline void read(ByteSize& to, const std::string& text) {
  constexpr std::string_view kUnits[] = {"TiB", "GiB", "MiB", "KiB"};
  double factor = 0x1p40, number = 0;
  std::string digits = text;
  for (const std::string_view unit : kUnits) {
    if (digits.ends_with(unit)) break;
    factor /= 1024;
  }
  if (factor > 1) digits.resize(digits.size() - 3);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size() ||
      !(number * factor >= 1 && number * factor < 0x1p62))
    throw Error("a size expected as 6GiB, 1.5GiB, 500MiB or a number of bytes, found '" + text + "'");
  to.bytes = static_cast<int64_t>(number * factor);
}

template <typename T>
inline void read(std::optional<T>& to, const std::string& text) {
  read(to.emplace(), text);
}

template <typename T>
inline void read(std::vector<T>& to, const std::string& text) {
  to.clear();
  for (const std::string& part : split(text, ',')) read(to.emplace_back(), part);
}

// x=64,3,224,224;y=64,10 or 64,3,224,224 for the only input.
inline void read(std::map<std::string, Shape>& to, const std::string& text) {
  for (const std::string& part : split(text, ';')) {
    const size_t equals = part.find('=');
    read(to[equals == std::string::npos ? "" : part.substr(0, equals)],
         part.substr(equals == std::string::npos ? 0 : equals + 1));
  }
}

// sr=16000,threshold=0.5
inline void read(std::map<std::string, double>& to, const std::string& text) {
  for (const std::string& part : split(text, ',')) {
    const size_t equals = part.rfind('=');
    if (equals == std::string::npos || equals == 0) throw Error("NAME=NUMBER expected, found '" + part + "'");
    read(to[part.substr(0, equals)], part.substr(equals + 1));
  }
}

inline std::string write(const std::string& v) { return v; }
inline std::string write(int64_t v) { return std::to_string(v); }
inline std::string write(double v) { return fmt::format("{}", v); }
inline std::string write(ByteSize v) { return std::to_string(v.bytes); }
inline std::string write(bool v) { return v ? "true" : "false"; }
template <typename T>
inline std::string write(const std::optional<T>& v) {
  return v ? write(*v) : "";
}
template <typename T>
inline std::string write(const std::vector<T>& v) {
  std::string text;
  for (const T& part : v) text += (text.empty() ? "" : ",") + write(part);
  return text;
}
inline std::string write(const std::map<std::string, Shape>& v) {
  std::string text;
  for (const auto& [name, shape] : v)
    text += (text.empty() ? "" : ";") + (name.empty() ? "" : name + "=") + write(shape);
  return text;
}

inline std::string write(const std::map<std::string, double>& v) {
  std::string text;
  for (const auto& [name, number] : v) text += (text.empty() ? "" : ",") + name + "=" + write(number);
  return text;
}

}  // namespace halfstep::recipe_values
