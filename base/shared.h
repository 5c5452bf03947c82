// Shared: an immutable value that its copies share, so that a copy costs a reference and not the value's storage.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

namespace halfstep {

// Reads as a `const T`. A default one is T().
template <typename T>
class Shared {
 public:
  Shared() = default;
  Shared(T value) : value_(std::make_shared<const T>(std::move(value))) {}
  template <typename U>
    requires std::is_convertible_v<U, T>
  Shared(U&& value) : Shared(T(std::forward<U>(value))) {}

  const T& operator*() const {
    static const T none{};
    return value_ ? *value_ : none;
  }
  const T* operator->() const { return &**this; }
  operator const T&() const { return **this; }

  // Of containers.
  bool empty() const { return (**this).empty(); }
  size_t size() const { return (**this).size(); }
  auto begin() const { return (**this).begin(); }
  auto end() const { return (**this).end(); }
  const auto& operator[](size_t i) const { return (**this)[i]; }
  const auto& front() const { return (**this).front(); }

  friend bool operator==(const Shared& a, const Shared& b) { return a.value_ == b.value_ || *a == *b; }
  friend bool operator==(const Shared& a, const T& b) { return *a == b; }

 private:
  std::shared_ptr<const T> value_;
};

}  // namespace halfstep
