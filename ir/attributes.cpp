#include "ir/attributes.h"

#include <algorithm>

#include "base/error.h"

namespace halfstep {

Attributes::Attributes(std::initializer_list<Entry> entries) {
  for (const Entry& e : entries) set(e.first, e.second);
}

void Attributes::set(std::string_view name, Attribute value) {
  const auto at = std::lower_bound(entries_.begin(), entries_.end(), name,
                                   [](const Entry& e, std::string_view n) { return e.first < n; });
  if (at != entries_.end() && at->first == name)
    at->second = std::move(value);
  else
    entries_.emplace(at, std::string(name), std::move(value));
}

const Attribute* Attributes::find(std::string_view name) const {
  for (const Entry& e : entries_)
    if (e.first == name) return &e.second;
  return nullptr;
}

template <typename T>
const T& Attributes::get(std::string_view name) const {
  const Attribute* a = find(name);
  const T* value = a ? std::get_if<T>(a) : nullptr;
  if (!value) throw InternalError("attribute '" + std::string(name) + "' is missing or of another kind");
  return *value;
}

int64_t Attributes::integer(std::string_view name) const { return get<int64_t>(name); }
double Attributes::number(std::string_view name) const { return get<double>(name); }
const std::string& Attributes::text(std::string_view name) const { return get<std::string>(name); }
DType Attributes::dtype(std::string_view name) const { return get<DType>(name); }
const Ints& Attributes::ints(std::string_view name) const { return get<Ints>(name); }
const Tensor& Attributes::tensor(std::string_view name) const { return get<Tensor>(name); }
const Graph& Attributes::region(std::string_view name) const { return *get<Region>(name); }

}  // namespace halfstep
