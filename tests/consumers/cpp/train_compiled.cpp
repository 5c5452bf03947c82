// Trains a compiled classifier on points of its own, saves it, and predicts: train_compiled DIRECTORY CHECKPOINTS
#include <algorithm>
#include <halfstep/halfstep.hpp>
#include <iostream>
#include <numeric>

int main(int argc, char** argv) try {
  if (argc != 3) throw std::invalid_argument("usage: train_compiled DIRECTORY CHECKPOINTS");
  halfstep::Step step(argv[1], {{"device", "cpu"}, {"threads", "1"}});
  const halfstep::Value x = step.inputs(halfstep::Program::predict).at(0);
  const halfstep::Value logits = step.outputs(halfstep::Program::predict).at(0);
  const int64_t batch = x.shape.at(0), classes = logits.shape.at(1);
  const size_t elements = std::accumulate(x.shape.begin(), x.shape.end(), size_t{1}, std::multiplies<>());

  // One pattern for each class.
  std::vector<float> values(elements), scores(static_cast<size_t>(batch * classes));
  std::vector<int64_t> labels(static_cast<size_t>(batch));
  for (int64_t row = 0; row < batch; ++row) labels[static_cast<size_t>(row)] = row % classes;
  for (size_t i = 0; i < elements; ++i) {
    const size_t row_elements = elements / static_cast<size_t>(batch), row = i / row_elements;
    values[i] = static_cast<int64_t>(i % row_elements) % classes == labels[row] ? 1.0F : 0.0F;
  }

  step.set_learning_rate(0.1);
  for (int i = 0; i < 60; ++i) step.train({{x.name, x.shape, values}, {"labels", {batch}, labels}});
  std::cout << "step " << step.step_count() << ": loss " << step.loss() << '\n';
  step.save_checkpoint(argv[2]);

  halfstep::Step other(argv[1]);
  other.load_checkpoint(argv[2]);
  if (other.read_parameters() != step.read_parameters()) throw std::runtime_error("the checkpoint has other weights");
  other.predict({{x.name, x.shape, values}}, {{logits.name, scores}});
  int64_t right = 0;
  for (int64_t row = 0; row < batch; ++row) {
    const auto first = scores.begin() + row * classes;
    right += std::max_element(first, first + classes) - first == labels[static_cast<size_t>(row)];
  }
  std::cout << right << " of " << batch << " are right\n";

  try {
    step.train({{x.name, x.shape, values}, {"label", {batch}, labels}});
    return 1;
  } catch (const halfstep::Error& e) {
    std::cout << e.what() << '\n';  // names the nearest input
  }
  return right == batch ? 0 : 1;
} catch (const std::exception& e) {
  std::cerr << "train_compiled: " << e.what() << '\n';
  return 1;
}
