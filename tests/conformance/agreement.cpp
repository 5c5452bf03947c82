#include "tests/conformance/agreement.h"

#include <fmt/format.h>

#include <cmath>

#include "frontend/onnx/tensor_data.h"

namespace halfstep::conformance {
namespace {

bool same(double a, double b, double tolerance = 1e-3) {
  return a == b || (std::isnan(a) && std::isnan(b)) || std::abs(a - b) <= 1e-6 + tolerance * std::abs(b);
}

std::string difference(const onnx::TensorProto& expected, const Tensor& value, const InterpretedTensor& found) {
  if (found.type.shape != value.type.shape)
    return fmt::format("output '{}' has shape {}, {} expected", expected.name(), to_string(found.type.shape),
                       to_string(value.type.shape));
  // The suite computes low-precision results low, where we compute in f32, and truncates to bfloat16.
  const double tolerance = expected.data_type() == onnx::TensorProto::BFLOAT16  ? 0x1p-6
                           : expected.data_type() == onnx::TensorProto::FLOAT16 ? 0x1p-9
                                                                                : 1e-3;
  for (size_t k = 0; k < found.values.size(); ++k)
    if (const double wanted = value.at(static_cast<int64_t>(k)); !same(found.values[k], wanted, tolerance))
      return fmt::format("output '{}' element {} is {}, {} expected", expected.name(), k, found.values[k], wanted);
  return "";
}

// A count of independent events lies within five standard deviations of its mean.
bool plausible(double count, double mean, double variance) {
  return std::abs(count - mean) <= 5 * std::sqrt(variance) + 1e-6;
}

std::vector<double> input_values(const SuiteCase& suite_case, size_t i) {
  return TensorReader(suite_case.directory).read(suite_case.inputs.at(i)).values();
}

// y = x / (1 - ratio) where the element is kept and 0 elsewhere; the mask says which.
std::string dropout_violation(const SuiteCase& suite_case, const Outputs& found) {
  const std::vector<double> x = input_values(suite_case, 0);
  const double ratio = suite_case.inputs.size() > 1 ? input_values(suite_case, 1).at(0) : 0.5;
  const std::vector<double>& y = found.at(suite_case.expected[0].name()).values;
  double kept = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const bool keeps = y.at(i) != 0;
    kept += keeps;
    if (keeps && !same(y[i], x[i] / (1 - ratio))) return fmt::format("element {} is {}, neither 0 nor scaled", i, y[i]);
    if (suite_case.expected.size() > 1 && (found.at(suite_case.expected[1].name()).values.at(i) != 0) != keeps)
      return fmt::format("the mask is wrong at element {}", i);
  }
  const auto n = static_cast<double>(x.size());
  return plausible(kept, n * (1 - ratio), n * ratio * (1 - ratio)) ? "" : fmt::format("{} of {} are kept", kept, n);
}

// Zeros and ones, as often one as the probabilities say.
std::string bernoulli_violation(const SuiteCase& suite_case, const Outputs& found) {
  const std::vector<double> p = input_values(suite_case, 0);
  double ones = 0, mean = 0, variance = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double y = found.at(suite_case.expected[0].name()).values.at(i);
    if (y != 0 && y != 1) return fmt::format("element {} is {}", i, y);
    ones += y, mean += p[i], variance += p[i] * (1 - p[i]);
  }
  return plausible(ones, mean, variance) ? "" : fmt::format("{} ones, about {} expected", ones, mean);
}

}  // namespace

std::string disagreement(const SuiteCase& suite_case, const Outputs& found) {
  const TensorReader reader(suite_case.directory);
  for (const onnx::TensorProto& expected : suite_case.expected)
    if (const std::string different = difference(expected, reader.read(expected), found.at(expected.name()));
        !different.empty()) {
      const std::set<std::string> operators = operators_of(suite_case.model);
      if (operators.contains("Dropout")) return dropout_violation(suite_case, found);
      if (operators.contains("Bernoulli") || operators.contains("RandomUniformLike"))
        return bernoulli_violation(suite_case, found);
      return different;
    }
  return "";
}

}  // namespace halfstep::conformance
