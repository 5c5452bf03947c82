#include "tests/fuzz/values.h"

#include <array>
#include <cmath>
#include <sstream>

#include "base/error.h"
#include "tests/fuzz/random.h"

namespace halfstep::fuzz {
namespace {

constexpr std::array<const char*, kDistributions> kNames{"zeros", "ones",   "grid",  "normal",    "positive",
                                                         "unit",  "sparse", "rows",  "saturated", "large",
                                                         "huge",  "tiny",   "mixed", "below"};

double signed_power(Random& r, double low, double high) {
  return (r.chance(0.5) ? 1 : -1) * std::pow(10, r.between(low, high));
}

double grid(Random& r) { return static_cast<double>(r.between(int64_t{-4}, int64_t{4})) / 2; }

// Irwin and Hall: twelve uniform numbers.
double normal(Random& r) {
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += r.unit();
  return sum;
}

double element(Random& r, Distribution d, int64_t row, int64_t bound) {
  switch (d) {
    case Distribution::zeros:
      return 0;
    case Distribution::ones:
      return 1;
    case Distribution::grid:
      return grid(r);
    case Distribution::normal:
      return normal(r);
    case Distribution::positive:
      return r.between(0.1, 4.0);
    case Distribution::unit:
      return r.between(0.02, 0.98);
    case Distribution::sparse:
      return r.chance(0.5) ? 0 : normal(r);
    case Distribution::rows: {
      const double v = grid(r);
      return row % 2 == 0 ? 0 : v;
    }
    case Distribution::saturated:
      return (r.chance(0.5) ? 1 : -1) * r.between(8.0, 60.0);
    case Distribution::large:
      return signed_power(r, 3, 4.77);
    case Distribution::huge:
      return signed_power(r, 5, 15);
    case Distribution::tiny:
      return signed_power(r, -9, -4);
    case Distribution::mixed: {
      constexpr std::array kOf{Distribution::zeros, Distribution::ones,      Distribution::grid,  Distribution::normal,
                               Distribution::unit,  Distribution::saturated, Distribution::large, Distribution::tiny};
      return element(r, kOf[static_cast<size_t>(r.below(static_cast<int64_t>(kOf.size())))], row, bound);
    }
    case Distribution::below:
      return static_cast<double>(r.below(bound));
  }
  throw InternalError("no such distribution");
}

}  // namespace

std::string to_string(const LeafValues& v) {
  std::string text = kNames[static_cast<size_t>(v.distribution)];
  if (v.distribution == Distribution::below) text += " " + std::to_string(v.bound);
  return text + " " + std::to_string(v.seed);
}

LeafValues parse_values(const std::string& text) {
  std::istringstream stream(text);
  std::string name;
  stream >> name;
  LeafValues v;
  size_t i = 0;
  while (i < kNames.size() && kNames[i] != name) ++i;
  if (i == kNames.size()) throw Error("no distribution '" + name + "'");
  v.distribution = static_cast<Distribution>(i);
  if (v.distribution == Distribution::below) stream >> v.bound;
  stream >> v.seed;
  if (!stream || v.bound < 1) throw Error("a distribution and its seed expected, found '" + text + "'");
  return v;
}

Tensor draw(const TensorType& type, const LeafValues& values) {
  Tensor t(type);
  Random r(values.seed);
  const int64_t columns = type.shape.empty() ? 1 : type.shape.back();
  for (int64_t i = 0; i < type.element_count(); ++i)
    t.set(i, element(r, values.distribution, i / columns, values.bound));
  return t;
}

}  // namespace halfstep::fuzz
