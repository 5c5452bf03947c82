// One line for every op: small graphs of a single node, from which the whole-table tests draw. `{f}` stands for the
// floating type under test, "-" for an optional operand left out. Integer inputs named "labels", "indices" and "index"
// are drawn below their bound.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace halfstep {

struct OpSample {
  std::string_view op;
  std::string_view inputs;      // types, comma separated
  std::string_view attributes;  // IR text, without braces
  double low = -2, high = 2;    // floating operands are drawn uniformly from here
  int64_t bound = 2;            // integer operands from [0, bound)
  int results = 1;
};

inline const std::vector<OpSample>& op_samples() {
  static const std::vector<OpSample> samples{
      {"neg", "{f}[3,5]", ""},
      {"abs", "{f}[3,5]", ""},
      {"relu", "{f}[33]", ""},
      {"exp", "{f}[3,5]", ""},
      {"expm1", "{f}[3,5]", "", -3, 3},
      {"log", "{f}[3,5]", "", 0.1, 4},
      {"sqrt", "{f}[3,5]", "", 0.1, 4},
      {"rsqrt", "{f}[3,5]", "", 0.1, 4},
      {"reciprocal", "{f}[3,5]", "", 0.3, 4},
      {"tanh", "{f}[3,5]", ""},
      {"sigmoid", "{f}[3,5]", "", -6, 6},
      {"erf", "{f}[3,5]", ""},
      {"sin", "{f}[3,5]", "", -6, 6},
      {"cos", "{f}[3,5]", "", -6, 6},
      {"tan", "{f}[3,5]", "", -1.2, 1.2},
      {"tan", "{f}[2,0]", ""},
      {"asin", "{f}[3,5]", "", -0.95, 0.95},
      {"acos", "{f}[3,5]", "", -0.95, 0.95},
      {"atan", "{f}[3,5]", "", -4, 4},
      {"atan", "{f}[1]", "", 5, 90},
      {"sinh", "{f}[3,5]", "", -3, 3},
      {"cosh", "{f}[3,5]", "", -3, 3},
      {"asinh", "{f}[3,5]", "", -4, 4},
      {"acosh", "{f}[3,5]", "", 1.1, 6},
      {"atanh", "{f}[3,5]", "", -0.9, 0.9},
      {"round_through", "{f}[3,5]", "", -9, 9},
      {"softplus", "{f}[3,5]", "", -6, 6},
      {"gelu", "{f}[3,5]", "", -4, 4},
      {"gelu_tanh", "{f}[3,5]", "", -4, 4},
      {"silu", "{f}[3,5]", "", -4, 4},
      {"mish", "{f}[3,5]", "", -4, 4},
      {"floor", "{f}[3,5]", ""},
      {"ceil", "{f}[3,5]", ""},
      {"round", "{f}[3,5]", ""},
      {"sign", "{f}[3,5]", ""},
      {"is_finite", "{f}[7]", ""},
      {"is_nan", "{f}[7]", ""},
      {"not", "bool[9]", ""},
      {"cast", "{f}[3,5]", "to=f16"},
      {"cast", "{f}[3,5]", "to=i32", -9, 9},
      {"cast", "i64[6]", "to=f32", 0, 0, 9},
      {"add", "{f}[3,5],{f}[3,5]", ""},
      {"add", "{f}[0,5],{f}[0,5]", ""},
      {"accumulate", "{f}[3,5],{f}[3,5]", ""},
      {"product", "{f}[3,5],{f}[3,5]", ""},
      {"sub", "{f}[3,5],{f}[3,5]", ""},
      {"mul", "{f}[],{f}[]", ""},
      {"div", "{f}[3,5],{f}[3,5]", "", 0.5, 3},
      {"pow", "{f}[3,5],{f}[3,5]", "", 0.5, 2},
      {"fmod", "{f}[3,5],{f}[3,5]", "", 0.5, 3},
      {"max", "{f}[3,5],{f}[3,5]", ""},
      {"min", "{f}[3,5],{f}[3,5]", ""},
      {"eq", "i64[9],i64[9]", ""},
      {"less", "{f}[3,5],{f}[3,5]", ""},
      {"less_equal", "{f}[3,5],{f}[3,5]", ""},
      {"and", "bool[9],bool[9]", ""},
      {"or", "bool[9],bool[9]", ""},
      {"select", "bool[3,5],{f}[3,5],{f}[3,5]", ""},
      {"broadcast", "{f}[3,1,5]", "shape=[3,4,5]"},
      {"broadcast", "{f}[1]", "shape=[7]"},
      {"reshape", "{f}[3,4,5]", "shape=[4,15]"},
      {"transpose", "{f}[2,3,4,5]", "permutation=[0,2,3,1]"},
      {"slice", "{f}[5,7]", "starts=[1,0], limits=[4,7], steps=[1,3]"},
      {"pad", "{f}[3,4]", "low=[1,0], high=[0,2], interior=[0,1]"},
      {"concat", "{f}[2,3],{f}[2,1],{f}[2,4]", "axis=1"},
      {"iota", "", "shape=[3,4], axis=1"},
      {"gather", "{f}[5,3],i64[2,4]", "axis=0", -2, 2, 5},
      {"after", "{f}[3,4],{f}[5]", ""},
      {"gather", "{f}[5,3],i32[7]", "axis=1", -2, 2, 3},
      {"gather", "{f}[2,7,3],i64[4,2]", "axis=1", -2, 2, 7},
      {"gather", "{f}[2,3,9],i64[]", "axis=2", -2, 2, 9},
      {"gather", "{f}[40],i64[33]", "axis=0", -2, 2, 40},
      {"gather", "{f}[1,5],i64[3]", "axis=0", -2, 2, 1},
      {"gather", "{f}[6,40],i64[1]", "axis=0", -2, 2, 6},
      {"gather", "{f}[6,4],i64[0]", "axis=0", -2, 2, 6},
      {"gather", "{f}[6,0],i64[3]", "axis=0", -2, 2, 6},
      {"gather", "{f}[0,4],i64[0,2]", "axis=0", -2, 2, 6},
      {"gather", "{f}[2,3,4],i64[5]", "axis=0"},
      {"gather", "{f}[3,4],i64[9]", "axis=0", -2, 2, 6},
      {"gather", "{f}[40,3],i32[17]", "axis=1", -2, 2, 5},
      {"scatter", "{f}[5,3],i64[2,4],{f}[2,4,3]", "axis=0, reduction=\"add\"", -2, 2, 5},
      {"scatter", "{f}[5,7],i32[4],{f}[5,4]", "axis=1, reduction=\"add\"", -2, 2, 7},
      {"scatter", "{f}[2,7,3],i64[4,2],{f}[2,4,2,3]", "axis=1, reduction=\"add\"", -2, 2, 7},
      {"scatter", "{f}[9],i64[12],{f}[12]", "axis=0, reduction=\"add\"", -2, 2, 9},
      {"scatter", "{f}[3,70],i64[2],{f}[2,70]", "axis=0, reduction=\"add\"", -2, 2, 1},
      {"scatter", "{f}[4,2,9],i64[],{f}[4,2]", "axis=2, reduction=\"add\"", -2, 2, 9},
      {"scatter", "{f}[4,5],i64[0],{f}[0,5]", "axis=0, reduction=\"add\"", -2, 2, 4},
      {"scatter", "{f}[4,0],i64[2],{f}[2,0]", "axis=0, reduction=\"add\"", -2, 2, 4},
      {"scatter", "{f}[1,5],i64[3],{f}[3,5]", "axis=0, reduction=\"add\"", -2, 2, 1},
      {"scatter", "{f}[5,3],i64[6],{f}[6,3]", "axis=0", -2, 2, 5},
      {"scatter", "{f}[2,5,3],i64[2,3],{f}[2,2,3,3]", "axis=1", -2, 2, 5},
      {"scatter", "{f}[7],i64[4],{f}[4]", "axis=0, reduction=\"set\"", -2, 2, 7},
      {"scatter", "i64[7],i64[4],i64[4]", "axis=0, reduction=\"max\"", 0, 0, 9},
      {"scatter", "{f}[5,3],i64[6],{f}[6,3]", "axis=0, reduction=\"mul\"", 0.5, 2, 5},
      {"scatter", "{f}[5,3],i64[6],{f}[6,3]", "axis=0, reduction=\"min\"", -2, 2, 5},
      {"scatter", "{f}[4,5],i64[6],{f}[4,6]", "axis=1, reduction=\"max\"", -2, 2, 5},
      {"uniform", "i64[],i32[]", "shape=[4,9], site=3", 0, 0, 100},
      {"reduce_sum", "{f}[3,4,5]", "axes=[2]"},
      {"reduce_sum", "{f}[3,4,5]", "axes=[0,1]"},
      {"reduce_sum", "{f}[3,4,5]", "axes=[0,1,2]"},
      {"reduce_sum", "{f}[3,4,5]", "axes=[1]"},
      {"reduce_sum", "{f}[3,4,5]", "axes=[0,2]"},
      {"reduce_max", "{f}[3,40]", "axes=[1]"},
      {"reduce_min", "{f}[30,4]", "axes=[0]"},
      {"max_pool", "{f}[2,6,7,3]", "window=[2,2], strides=[2,2]", -2, 2, 2, 2},
      {"max_pool", "{f}[2,6,7,3]", "window=[3,3], strides=[2,1], pads_begin=[1,1], pads_end=[1,0]", -2, 2, 2, 2},
      {"max_pool_grad", "{f}[2,3,3,3],u8[2,3,3,3]",
       "window=[3,2], strides=[2,2], pads_begin=[1,0], pads_end=[0,0], spatial=[6,7]", -2, 2, 6},
      {"avg_pool", "{f}[2,6,7,3]", "window=[3,3], strides=[2,2], pads_begin=[1,1], pads_end=[1,1]"},
      {"avg_pool", "{f}[2,9,3]", "window=[3], strides=[2], pads_begin=[1], pads_end=[1], count_include_pad=1"},
      {"avg_pool_grad", "{f}[2,3,4,3]", "window=[3,3], strides=[2,2], pads_begin=[1,1], pads_end=[0,1], spatial=[6,7]"},
      {"matmul", "{f}[3,4],{f}[4,5]", ""},
      {"matmul", "{f}[4,3],{f}[5,4]", "transpose_a=1, transpose_b=1"},
      {"matmul", "{f}[2,3,4],{f}[2,5,4]", "transpose_b=1"},
      {"matmul", "{f}[2,4,3],{f}[2,4,5]", "transpose_a=1"},
      {"matmul", "{f}[3,4],{f}[4,5],{f}[5]", ""},
      {"matmul", "{f}[3,4],{f}[9,4],{f}[9],{f}[3,9]", "transpose_b=1"},
      {"matmul", "{f}[4,3],{f}[4,5],-,{f}[3,5]", "transpose_a=1"},
      {"full_matmul", "{f}[3,4],{f}[4,5]", ""},
      {"full_matmul", "{f}[2,3,4],{f}[2,5,4]", "transpose_b=1"},
      {"depthwise", "{f}[2,6,7,4],{f}[3,3,4]", "window=[3,3], strides=[2,1], pads_begin=[1,1], pads_end=[1,0]"},
      {"depthwise", "{f}[2,9,8],{f}[3,8]", "window=[3], dilations=[2], pads_begin=[3]"},
      {"depthwise", "{f}[1,9,8,16],{f}[7,7,16]", "window=[7,7], pads_begin=[3,3], pads_end=[3,3]"},
      {"depthwise", "{f}[2,5,8,8],{f}[5,5,8]", "window=[5,5], pads_begin=[2,2], pads_end=[2,2]"},
      {"depthwise", "{f}[1,7,12,8],{f}[3,3,8]", "window=[3,3], strides=[2,1], pads_begin=[1,1], pads_end=[1,1]"},
      {"depthwise_data_grad", "{f}[1,6,8,8],{f}[7,7,8]",
       "window=[7,7], pads_begin=[3,3], pads_end=[3,3], spatial=[6,8]"},
      {"depthwise_data_grad", "{f}[2,3,7,8],{f}[3,3,8]",
       "window=[3,3], strides=[2,1], pads_begin=[1,1], pads_end=[1,1], spatial=[6,7]"},
      {"depthwise_data_grad", "{f}[1,4,4,16],{f}[5,5,16]",
       "window=[5,5], strides=[2,2], pads_begin=[2,2], pads_end=[2,2], spatial=[8,8]"},
      {"depthwise_data_grad", "{f}[1,5,4],{f}[3,4]",
       "window=[3], strides=[2], pads_begin=[1], dilations=[2], spatial=[13]"},
      {"convolution", "{f}[2,6,7,4],{f}[6,3,3,4]", "strides=[2,1], pads_begin=[1,1], pads_end=[1,0]"},
      {"convolution", "{f}[2,9,4],{f}[6,3,2]", "groups=2, dilations=[2]"},
      {"convolution", "{f}[1,4,5,4,2],{f}[3,2,2,2,2]", "pads_begin=[1,0,0], pads_end=[0,0,1]"},
      {"convolution_data_grad", "{f}[6,3,3,4],{f}[2,3,7,6]",
       "strides=[2,1], pads_begin=[1,1], pads_end=[1,1], spatial=[6,7]"},
      {"convolution_data_grad", "{f}[4,3,3],{f}[1,5,4]",
       "strides=[2], pads_begin=[1], dilations=[2], groups=2, spatial=[13]"},
      {"convolution_data_grad", "{f}[3,1,2,1,2],{f}[1,2,1,3,3]", "strides=[1,2,1], spatial=[2,2,3]"},
      {"convolution_filter_grad", "{f}[2,6,7,4],{f}[2,3,7,6]",
       "strides=[2,1], pads_begin=[1,1], pads_end=[1,1], window=[3,3]"},
      {"resample", "{f}[2,3,4]", "axis=1, positions=i64[4,1](2, 0, 0, 1), weights=f32[4,1](1, 1, 1, 1)"},
      {"resample", "{f}[3,2]",
       "axis=0, positions=i64[5,2](0, 0, 0, 1, 1, 1, 1, 2, 2, 2), weights=f32[5,2](0.75, 0.25, 0.5, 0.5, 1, 0, 0.25, "
       "0.75, 1, 0)"},
      {"resample", "{f}[2,9,3]",
       "axis=1, positions=i64[1,9](0, 1, 2, 3, 4, 5, 6, 7, 8), weights=f32[1,9](1, 2, 3, 4, 5, 4, 3, 2, 1)"},
      {"resample", "{f}[2,1,3]", "axis=1, positions=i64[2,1](0, 0), weights=f32[2,1](1, 0.5)"},
      {"resample", "{f}[0,3]", "axis=1, positions=i64[2,1](2, 0), weights=f32[2,1](1, 1)"},
      {"softmax", "{f}[4,9]", "axis=1"},
      {"softmax", "{f}[3,4,5]", "axis=1"},
      {"log_softmax", "{f}[4,9]", "axis=1"},
      {"softmax_cross_entropy", "{f}[6,10],i64[6]", "ignore_index=2", -3, 3, 10},
      {"softmax_cross_entropy", "{f}[5,7],i64[5]", "smoothing=0.25, ignore_index=1", -3, 3, 7},
      {"argmax", "{f}[6,10]", "axis=1"},
      {"batch_norm", "{f}[4,3,5],f32[5],f32[5],f32[5],f32[5]", "axis=2", 0.5, 3, 2, 3},
      {"batch_norm", "{f}[4,3,5],f32[3],f32[3]", "axis=1", 0.5, 3, 2, 3},
      {"layer_norm", "{f}[6,33],f32[33],f32[33]", "axis=1", -2, 2, 2, 3},
      {"layer_norm", "{f}[3,5,2,7],f32[2,7],f32[2,7]", "axis=2, epsilon=0.01", -2, 2, 2, 3},
      {"layer_norm", "{f}[4,9],{f}[9]", "axis=1", 0.5, 3, 2, 3},
      {"layer_norm", "{f}[2,3,5]", "axis=0", -2, 2, 2, 3},
      {"layer_norm", "{f}[5,8],-,f32[8]", "axis=1", -2, 2, 2, 3},
      {"layer_norm", "{f}[4,1],f32[1],f32[1]", "axis=1", -2, 2, 2, 3},
      {"layer_norm", "{f}[0,5],f32[5],f32[5]", "axis=1", -2, 2, 2, 3},
      {"rms_norm", "{f}[6,33],f32[33]", "axis=1", -2, 2, 2, 2},
      {"rms_norm", "{f}[2,3,2,5],f32[3,2,5]", "axis=1, epsilon=0.01", -2, 2, 2, 2},
      {"rms_norm", "{f}[3,7]", "axis=1", 0.5, 3, 2, 2},
      {"rms_norm", "{f}[3,1],f32[1]", "axis=1", 0.5, 3, 2, 2},
      {"group_norm", "{f}[2,6,3,5],f32[6],f32[6]", "axis=1, batch=0, groups=3", -2, 2, 2, 3},
      {"group_norm", "{f}[2,3,5,6],f32[6],f32[6]", "axis=3, batch=0, groups=2", 0.5, 3, 2, 3},
      {"group_norm", "{f}[4,3,5],f32[4],f32[4]", "axis=0, batch=1, groups=4", -2, 2, 2, 3},
      {"group_norm", "{f}[3,8],f32[8],f32[8]", "axis=1, batch=0, groups=2, epsilon=0.1", -2, 2, 2, 3},
      {"group_norm", "{f}[5,7,1],f32[1],f32[1]", "axis=2, batch=0, groups=1", -2, 2, 2, 3},
      {"attention", "{f}[2,3,5,4],{f}[2,3,5,4],{f}[2,3,5,4]", "scale=0.5", -2, 2, 2, 3},
      {"attention", "{f}[2,2,5,4],{f}[2,2,7,4],{f}[2,2,7,3]", "scale=0.5, causal=1", -2, 2, 2, 3},
      {"attention", "{f}[2,4,3,4],{f}[2,2,5,4],{f}[2,2,5,6]", "scale=0.7, causal=1, softcap=1.5", -2, 2, 2, 3},
      {"attention", "{f}[2,2,6,4],{f}[2,2,4,4],{f}[2,2,4,3],bool[6,4]", "scale=0.5", -2, 2, 2, 3},
      {"attention", "{f}[2,3,4,4],{f}[2,1,5,4],{f}[2,1,5,4],bool[2,1,1,5]", "scale=-0.5, softcap=2.0", -2, 2, 2, 3},
      {"attention", "{f}[3,2,4,3],{f}[3,2,5,3],{f}[3,2,5,3],{f}[1,2,4,5]", "scale=0.5", -2, 2, 2, 3},
      {"attention", "{f}[3,4,2,3],{f}[3,2,5,3],{f}[3,2,5,3],f32[3,1,1,5]", "scale=0.5, causal=1, softcap=2.0", -2, 2, 2,
       3},
      {"attention", "{f}[1,1,1,1],{f}[1,1,1,1],{f}[1,1,1,1]", "scale=1.0", -2, 2, 2, 3},
      {"attention", "{f}[2,2,1,3],{f}[2,1,4,3],{f}[2,1,4,1],bool[1]", "scale=0.5", -2, 2, 2, 3},
      {"attention", "{f}[2,2,3,4],{f}[2,2,6,4],{f}[2,2,6,4],-,i64[],i32[]", "scale=0.5, ratio=0.25, site=3", -2, 2, 9,
       3},
      {"attention", "{f}[2,2,3,4],{f}[2,1,6,4],{f}[2,1,6,4],{f}[3,6],i64[],i32[]", "scale=0.5, ratio=0.5, site=1", -2,
       2, 9, 3},
      {"attention", "{f}[2,2,3,4],{f}[2,2,5,4],{f}[2,2,5,4],bool[3,1]", "scale=0.5", -2, 2, 1, 3},
      {"attention", "{f}[2,2,3,4],{f}[2,2,5,4],{f}[2,2,5,4],bool[3,1]", "scale=0.5, fill=-10000.0", -2, 2, 1, 3},
      {"attention_grad",
       "{f}[2,4,3,5],{f}[2,4,3,5],f32[2,4,3],f32[2,4,3],{f}[2,4,3,4],{f}[2,2,6,4],{f}[2,2,6,5],bool[2,1,3,6]",
       "scale=0.5, causal=1, softcap=2.0", 0.2, 1.2, 2, 3},
      {"attention_grad",
       "{f}[2,2,3,4],{f}[2,2,3,4],f32[2,2,3],f32[2,2,3],{f}[2,2,3,4],{f}[2,2,6,4],{f}[2,2,6,4],{f}[2,3,6],i64[],i32[]",
       "scale=0.5, ratio=0.25, site=3", 0.2, 1.2, 9, 4},
      {"flash_attention", "{f}[2,5,3,4],{f}[2,5,3,4],{f}[2,5,3,4]", "scale=0.5", -2, 2, 2, 2},
      {"flash_attention", "{f}[2,5,4,4],{f}[2,7,2,4],{f}[2,7,2,3]", "scale=0.5, causal=1", -2, 2, 2, 2},
      {"flash_attention", "{f}[3,4,2,4],{f}[3,5,1,4],{f}[3,5,1,4]", "scale=-0.5", -2, 2, 2, 2},
      {"flash_attention_grad", "{f}[2,3,4,5],{f}[2,3,4,5],f32[2,4,3],{f}[2,3,4,4],{f}[2,6,2,4],{f}[2,6,2,5]",
       "scale=0.5, causal=1, deterministic=1", 0.2, 1.2, 2, 3},
      {"dropout", "{f}[4,9],i64[],i32[]", "ratio=0.25, site=5", -2, 2, 100},
      {"dropout", "{f}[4,3,5],i64[],i32[]", "ratio=0.5, site=5, shape=[4,1,1]", -2, 2, 100},
  };
  return samples;
}

// `  %0 = input() {name="0"} : f32[3,5]` ... `output "0" = ...`, with the element type filled in.
inline std::string sample_text(const OpSample& sample, std::string_view element) {
  std::string types(sample.inputs), text = "graph sample {\n", operands, results, outputs;
  for (size_t at; (at = types.find("{f}")) != std::string::npos;) types.replace(at, 3, element);
  int count = 0;
  for (size_t begin = 0; begin < types.size();) {
    const bool absent = types[begin] == '-';
    size_t end = absent ? begin + 1 : types.find(']', begin) + 1;
    const std::string number = std::to_string(count);
    if (!absent)
      text += "  %" + number + " = input() {name=\"" + number + "\"} : " + types.substr(begin, end - begin) + "\n";
    operands += (begin ? ", " : "") + (absent ? "_" : "%" + number);
    ++count;
    begin = end + 1;
  }
  for (int i = 0; i < sample.results; ++i) {
    const std::string number = std::to_string(i);
    results += (i ? ", %r" : "%r") + number;
    outputs += "  output \"" + number + "\" = %r" + number + "\n";
  }
  return text + "  " + results + " = " + std::string(sample.op) + "(" + operands + ") {" +
         std::string(sample.attributes) + "}\n" + outputs + "}\n";
}

}  // namespace halfstep
