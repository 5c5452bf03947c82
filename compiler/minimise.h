// The fewest of some choices with which something still holds: delta debugging (Zeller and Hildebrandt 2002, ddmin).
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <vector>

namespace halfstep {

// `holds` is true of `all`. The result is 1-minimal: without any one of its elements it holds no more.
template <typename T>
std::vector<T> fewest(std::vector<T> all, const std::function<bool(const std::vector<T>&)>& holds) {
  size_t parts = 2;
  while (all.size() > 1) {
    const size_t length = (all.size() + parts - 1) / parts;
    bool smaller = false;
    const auto part = [&](size_t begin, bool inside) {
      const size_t end = std::min(begin + length, all.size());
      std::vector<T> chosen;
      for (size_t i = 0; i < all.size(); ++i)
        if ((i >= begin && i < end) == inside) chosen.push_back(all[i]);
      return chosen;
    };
    for (const bool inside : {true, false}) {
      if (!inside && parts == 2) break;  // the other half is a half
      for (size_t begin = 0; begin < all.size() && !smaller; begin += length)
        if (std::vector<T> chosen = part(begin, inside); holds(chosen)) {
          parts = inside ? 2 : std::max<size_t>(parts - 1, 2);
          all = std::move(chosen), smaller = true;
        }
      if (smaller) break;
    }
    if (smaller) continue;
    if (parts >= all.size()) break;
    parts = std::min(parts * 2, all.size());
  }
  return all;
}

}  // namespace halfstep
