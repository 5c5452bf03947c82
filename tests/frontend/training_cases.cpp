// Recorded from the ONNX reference.
#include "operator_cases.h"

namespace halfstep::test {

std::vector<Case> training_cases() {
  const Operand rate = x({}, {0.1}), first = x(ints({}, {0})), later = x(ints({}, {3}));
  const AttributeList adagrad{{"decay_factor", 0.5}, {"epsilon", 0.01}, {"norm_coefficient", 0.01}},
      adam{{"epsilon", 0.01}, {"norm_coefficient", 0.01}, {"norm_coefficient_post", 0.125}};
  const auto momentum = [](const char* mode) {
    return AttributeList{{"alpha", 0.9}, {"beta", 0.5}, {"norm_coefficient", 0.01}, {"mode", std::string(mode)}};
  };
  // Two tensors, so that the lists of operands and results are told apart.
  const Operand a = x({2}, {1.5, -2}), b = x({1}, {3}), da = x({2}, {0.5, 0.25}), db = x({1}, {-1}),
                mean_a = x({2}, {-1, 3}), mean_b = x({1}, {2}), square_a = x({2}, {1, 0.5}), square_b = x({1}, {0.25});
  const std::vector<double> squares_a{1.265225, 0.5529}, squares_b{1.1909};
  return {
      {"ai.onnx.preview.training.Adagrad",
       17,
       {rate, first, a, b, da, db, square_a, square_b},
       adagrad,
       {{1.454618, -2.030521}, {3.088079}, squares_a, squares_b}},
      {"ai.onnx.preview.training.Adagrad",
       17,
       {rate, later, a, b, da, db, square_a, square_b},
       adagrad,
       {{1.481847, -2.012208}, {3.035232}, squares_a, squares_b}},
      {"ai.onnx.preview.training.Adam",
       17,
       {rate, first, a, b, da, db, mean_a, mean_b, square_a, square_b},
       adam,
       {{1.386035, -2.082402}, {2.333214}, {-0.8485, 2.723}, {1.703}, {0.9992653, 0.4995529}, {0.2506909}}},
      {"ai.onnx.preview.training.Adam",
       17,
       {rate, later, a, b, da, db, mean_a, mean_b, square_a, square_b},
       adam,
       {{1.327355, -1.817148}, {2.566056}, {-0.8485, 2.723}, {1.703}, {0.9992653, 0.4995529}, {0.2506909}}},
      {"ai.onnx.preview.training.Gradient",
       17,
       {a},
       {{"xs", std::vector<std::string>{"operand0"}}, {"y", std::string("operand0")}},
       {{1, 1}}},
      {"ai.onnx.preview.training.Momentum",
       17,
       {rate, first, a, b, da, db, mean_a, mean_b},
       momentum("standard"),
       {{1.5385, -2.293}, {2.917}, {-0.385, 2.93}, {0.83}}},
      {"ai.onnx.preview.training.Momentum",
       17,
       {rate, later, a, b, da, db, mean_a, mean_b},
       momentum("standard"),
       {{1.56425, -2.2815}, {2.8685}, {-0.6425, 2.815}, {1.315}}},
      {"ai.onnx.preview.training.Momentum",
       17,
       {rate, first, a, da, mean_a},
       momentum("nesterov"),
       {{1.48315, -2.2867}, {-0.385, 2.93}}},
      {"ai.onnx.preview.training.Momentum",
       17,
       {rate, later, a, da, mean_a},
       momentum("nesterov"),
       {{1.506325, -2.27635}, {-0.6425, 2.815}}},
  };
}

}  // namespace halfstep::test
