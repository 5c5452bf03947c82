// The C API over small models, beside the executable on the same data.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "include/halfstep/halfstep.h"
#include "tests/cli/cli_fixture.h"

namespace halfstep::test {

inline const halfstep_api* const api = halfstep_get_api(HALFSTEP_API_VERSION);
inline const halfstep_compiler_api* const compiler = halfstep_get_compiler_api(HALFSTEP_API_VERSION);

struct Outcome {
  halfstep_code code = HALFSTEP_OK;
  std::string message, node;
};
inline Outcome outcome(halfstep_status* status) {
  const Outcome result{api->status_code(status), api->status_message(status), api->status_node(status)};
  api->release_status(status);
  return result;
}
inline void ok(halfstep_status* status) {
  const Outcome result = outcome(status);
  ASSERT_EQ(result.code, HALFSTEP_OK) << result.message;
}
inline void refused(halfstep_status* status, halfstep_code code, const Arguments& parts) {
  const Outcome result = outcome(status);
  EXPECT_EQ(result.code, code) << result.message;
  for (const std::string& part : parts) EXPECT_THAT(result.message, testing::HasSubstr(part));
}

using Keys = std::vector<std::pair<std::string, std::string>>;
inline std::vector<halfstep_option> options_of(const Keys& keys) {
  std::vector<halfstep_option> options;
  for (const auto& [key, value] : keys) options.push_back({key.c_str(), value.c_str()});
  return options;
}
inline Arguments arguments_of(const Keys& keys) {
  Arguments arguments;
  for (const auto& [key, value] : keys) arguments.insert(arguments.end(), {"--" + key, value});
  return arguments;
}

using StepHandle = std::unique_ptr<halfstep_step, void (*)(halfstep_step*)>;

class Api : public Cli {
 protected:
  void compile(const std::string& model, const Keys& keys, const std::string& directory) const {
    const std::vector<halfstep_option> options = options_of(keys);
    ok(compiler->compile_model(path(model).c_str(), options.data(), options.size(), path(directory).c_str(), nullptr));
  }
  StepHandle load(const std::string& directory, const Keys& keys = {{"device", "cpu"}}) const {
    const std::vector<halfstep_option> options = options_of(keys);
    halfstep_step* step = nullptr;
    ok(api->load_step(path(directory).c_str(), options.data(), options.size(), &step));
    return {step, api->release_step};
  }
};

// Batches of the points that Cli::data writes, in their order.
class Points {
 public:
  Points(Shape sample, int64_t batch, int64_t samples = 64) : batch_(batch), samples_(samples) {
    shape_ = sample;
    shape_.insert(shape_.begin(), batch);
    const int64_t elements = TensorType{DType::f32, sample}.element_count();
    for (int64_t i = 0; i < samples; ++i) {
      labels_.push_back(i % 3);
      for (int64_t j = 0; j < elements; ++j)
        values_.push_back(
            static_cast<float>((j % 3 == i % 3 ? 1.0 : -0.5) + 0.3 * std::sin(static_cast<double>(i * 7 + j))));
    }
    row_ = static_cast<size_t>(elements);
  }
  int64_t batches() const { return samples_ / batch_; }
  std::vector<halfstep_input> batch(int64_t number) const {
    const auto first = static_cast<size_t>(number % batches() * batch_);
    return {{"x", HALFSTEP_F32, shape_.size(), shape_.data(), values_.data() + first * row_},
            {"labels", HALFSTEP_I64, 1, shape_.data(), labels_.data() + first}};
  }

 private:
  int64_t batch_, samples_;
  Shape shape_;
  size_t row_ = 0;
  std::vector<float> values_;
  std::vector<int64_t> labels_;
};

inline double train(halfstep_step* step, const std::vector<halfstep_input>& batch) {
  double loss = 0;
  ok(api->train_step(step, batch.data(), batch.size()));
  ok(api->loss(step, &loss));
  return loss;
}

inline std::vector<float> weights_of(halfstep_step* step) {
  size_t tensors = 0, elements = 0;
  ok(api->parameter_count(step, &tensors, &elements));
  std::vector<float> values(elements);
  ok(api->read_parameters(step, values.data(), values.size()));
  return values;
}

}  // namespace halfstep::test
