#include "ir/attributes.h"

#include <algorithm>
#include <bit>

#include "base/combine_hashes.h"
#include "base/error.h"

namespace halfstep {
namespace {

size_t hash_of(const Attribute& attribute) {
  struct Visitor {
    size_t operator()(int64_t v) const { return std::hash<int64_t>()(v); }
    size_t operator()(double v) const { return std::bit_cast<uint64_t>(v); }
    size_t operator()(const std::string& v) const { return std::hash<std::string>()(v); }
    size_t operator()(DType v) const { return static_cast<size_t>(v); }
    size_t operator()(const Ints& v) const {
      size_t seed = v.size();
      for (int64_t i : v) seed = combine(seed, std::hash<int64_t>()(i));
      return seed;
    }
    size_t operator()(const Tensor& v) const {
      const std::string_view bytes(reinterpret_cast<const char*>(v.data.data()), v.data.size());
      return combine(static_cast<size_t>(v.type.dtype), std::hash<std::string_view>()(bytes));
    }
    size_t operator()(const Region& v) const { return std::hash<const Graph*>()(v.get()); }
  };
  return std::visit(Visitor(), attribute);
}

size_t hash_of(const Attributes::Entry& entry) {
  return combine(std::hash<std::string>()(entry.first), hash_of(entry.second));
}

}  // namespace

Attributes::Attributes(std::initializer_list<Entry> entries) : map_(std::make_shared<Map>()) {
  map_->entries.assign(entries);
  std::ranges::sort(map_->entries, {}, &Entry::first);
  for (const Entry& e : map_->entries) map_->hash += hash_of(e);
}

void Attributes::set(std::string_view name, Attribute value) {
  if (!map_)
    map_ = std::make_shared<Map>();
  else if (map_.use_count() > 1)
    map_ = std::make_shared<Map>(*map_);
  std::vector<Entry>& entries = map_->entries;
  auto at = std::lower_bound(entries.begin(), entries.end(), name,
                             [](const Entry& e, std::string_view n) { return e.first < n; });
  if (at != entries.end() && at->first == name) {
    map_->hash -= hash_of(*at);
    at->second = std::move(value);
  } else {
    at = entries.emplace(at, std::string(name), std::move(value));
  }
  map_->hash += hash_of(*at);
}

const Attribute* Attributes::find(std::string_view name) const {
  for (const Entry& e : entries())
    if (e.first == name) return &e.second;
  return nullptr;
}

const std::vector<Attributes::Entry>& Attributes::entries() const {
  static const std::vector<Entry> none;
  return map_ ? map_->entries : none;
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
