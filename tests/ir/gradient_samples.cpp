// Shapes for the whole-table gradient test, as data: one list for all pointwise rows, and one for every other row.
#include "tests/ir/gradient_samples.h"

#include "ir/op.h"
#include "tests/op_samples.h"

namespace halfstep {
namespace {

struct Shapes {
  std::string_view inputs, attributes;  // as in OpSample
};

struct Elements {
  double low = -2, high = 2;
  int64_t bound = 2;
  int results = 1;
};

struct RowShapes {
  std::string_view op;
  Elements elements;
  std::vector<Shapes> shapes;
};

// All operands of a pointwise row have one shape.
constexpr std::string_view kPointwise[] = {"[]",      "[0]",     "[0,5]",   "[1]",       "[7]",        "[1,1]",
                                           "[3,1,5]", "[2,3,4]", "[5,0,2]", "[2,1,3,2]", "[1,2,1,3,1]"};

const std::vector<Shapes> kReductions{
    {"{f}[7]", "axes=[0]"},       {"{f}[1]", "axes=[0]"},         {"{f}[3,5]", "axes=[0]"},
    {"{f}[3,5]", "axes=[1]"},     {"{f}[3,1,5]", "axes=[1]"},     {"{f}[2,3,4]", "axes=[0,2]"},
    {"{f}[2,3,4]", "axes=[1,2]"}, {"{f}[2,3,2,3]", "axes=[1,3]"}, {"{f}[0,5]", "axes=[1]"},
    {"{f}[5,0]", "axes=[0]"},     {"{f}[2,3,4]", "axes=[0,1,2]"}, {"{f}[3,2]", "axes=[]"},
    {"{f}[2,1,3]", "axes=[0,1]"},
};

const std::vector<Shapes> kAlongAxis{
    {"{f}[7]", "axis=0"},     {"{f}[1]", "axis=0"},     {"{f}[5,3]", "axis=0"},   {"{f}[5,3]", "axis=1"},
    {"{f}[4,1]", "axis=1"},   {"{f}[1,4]", "axis=0"},   {"{f}[0,5]", "axis=1"},   {"{f}[5,0]", "axis=0"},
    {"{f}[3,0,2]", "axis=2"}, {"{f}[2,3,4]", "axis=0"}, {"{f}[2,3,4]", "axis=2"}, {"{f}[2,3,2,3]", "axis=1"},
};

const std::vector<Shapes> kPools{
    {"{f}[2,5,3]", "window=[1]"},
    {"{f}[1,1,1]", "window=[1]"},
    {"{f}[2,9,3]", "window=[3], strides=[2], pads_begin=[1]"},
    {"{f}[1,9,2]", "window=[3], dilations=[2], pads_end=[1]"},
    {"{f}[0,5,2]", "window=[2]"},
    {"{f}[2,5,0]", "window=[2], strides=[2]"},
    {"{f}[1,5,4,2]", "window=[5,4]"},
    {"{f}[2,5,7,1]", "window=[2,3], strides=[3,2], pads_begin=[1,0], pads_end=[0,2]"},
    {"{f}[1,6,6,2]", "window=[2,2], strides=[1,1], dilations=[3,2]"},
    {"{f}[1,3,4,3,2]", "window=[2,2,2], pads_begin=[0,1,0]"},
    {"{f}[1,7,2]", "window=[2], strides=[3]"},
};

const std::vector<Shapes> kProducts{
    {"{f}[1,1],{f}[1,1]", ""},
    {"{f}[0,3],{f}[3,5]", ""},
    {"{f}[3,0],{f}[0,5]", ""},
    {"{f}[3,5],{f}[5,0]", ""},
    {"{f}[1,7],{f}[7,1]", ""},
    {"{f}[7,1],{f}[1,3]", ""},
    {"{f}[5,3],{f}[5,7]", "transpose_a=1"},
    {"{f}[5,3],{f}[7,3]", "transpose_b=1"},
    {"{f}[1,3,2],{f}[1,2,5]", ""},
    {"{f}[3,2,1],{f}[3,5,2]", "transpose_a=1, transpose_b=1"},
    {"{f}[0,2,3],{f}[0,3,2]", ""},
};

const std::vector<RowShapes> kRows{
    {"broadcast",
     {},
     {{"{f}[]", "shape=[]"},
      {"{f}[1]", "shape=[1]"},
      {"{f}[1]", "shape=[0]"},
      {"{f}[0,1]", "shape=[0,3]"},
      {"{f}[1,5]", "shape=[3,5]"},
      {"{f}[3,1]", "shape=[3,5]"},
      {"{f}[1,1]", "shape=[3,5]"},
      {"{f}[1,3,1]", "shape=[2,3,4]"},
      {"{f}[2,1,1,3]", "shape=[2,3,2,3]"},
      {"{f}[2,3]", "shape=[2,3]"}}},
    {"reshape",
     {},
     {{"{f}[]", "shape=[1]"},
      {"{f}[1]", "shape=[]"},
      {"{f}[1,1]", "shape=[1,1,1]"},
      {"{f}[0]", "shape=[0,5]"},
      {"{f}[3,0]", "shape=[0]"},
      {"{f}[6]", "shape=[2,3]"},
      {"{f}[2,3]", "shape=[6]"},
      {"{f}[2,3]", "shape=[3,2]"},
      {"{f}[2,3,4]", "shape=[4,3,2]"},
      {"{f}[5,1,3]", "shape=[5,3]"}}},
    {"transpose",
     {},
     {{"{f}[]", "permutation=[]"},
      {"{f}[1]", "permutation=[0]"},
      {"{f}[7]", "permutation=[0]"},
      {"{f}[0,5]", "permutation=[1,0]"},
      {"{f}[3,5]", "permutation=[1,0]"},
      {"{f}[1,5]", "permutation=[1,0]"},
      {"{f}[2,3,4]", "permutation=[2,0,1]"},
      {"{f}[2,3,4]", "permutation=[1,0,2]"},
      {"{f}[2,0,4]", "permutation=[2,1,0]"},
      {"{f}[2,3,1,4]", "permutation=[3,1,2,0]"}}},
    {"slice",
     {},
     {{"{f}[]", "starts=[], limits=[], steps=[]"},
      {"{f}[1]", "starts=[0], limits=[1], steps=[1]"},
      {"{f}[7]", "starts=[2], limits=[2], steps=[1]"},
      {"{f}[7]", "starts=[0], limits=[7], steps=[3]"},
      {"{f}[7]", "starts=[1], limits=[6], steps=[4]"},
      {"{f}[7]", "starts=[6], limits=[7], steps=[9]"},
      {"{f}[0,5]", "starts=[0,1], limits=[0,4], steps=[1,2]"},
      {"{f}[3,5]", "starts=[0,0], limits=[3,5], steps=[1,1]"},
      {"{f}[3,5]", "starts=[1,4], limits=[2,5], steps=[1,1]"},
      {"{f}[4,3,5]", "starts=[0,2,1], limits=[4,3,4], steps=[2,1,2]"}}},
    {"pad",
     {},
     {{"{f}[]", "low=[], high=[], interior=[]"},
      {"{f}[1]", "low=[2], high=[1]"},
      {"{f}[1]", "interior=[3]"},
      {"{f}[5]", "low=[0], high=[0], interior=[2]"},
      {"{f}[0]", "low=[1], high=[2], value=3.0"},
      {"{f}[0,5]", "high=[0,1]"},
      {"{f}[3,5]", "low=[1,2], value=-1.5"},
      {"{f}[3,5]", "low=[0,1], high=[2,0], interior=[1,0]"},
      {"{f}[2,1,3]", "low=[1,0,1], high=[0,1,0], interior=[0,2,1]"},
      {"{f}[2,3,4]", ""}}},
    {"concat",
     {},
     {{"{f}[1]", "axis=0"},
      {"{f}[3],{f}[1]", "axis=0"},
      {"{f}[0],{f}[3]", "axis=0"},
      {"{f}[0,5],{f}[0,5]", "axis=1"},
      {"{f}[2,3],{f}[1,3]", "axis=0"},
      {"{f}[2,3],{f}[2,0],{f}[2,1]", "axis=1"},
      {"{f}[2,3,4],{f}[2,1,4]", "axis=1"},
      {"{f}[2,3,4],{f}[2,3,1]", "axis=2"},
      {"{f}[1,1],{f}[1,1],{f}[1,1],{f}[1,1]", "axis=0"},
      {"{f}[1,2,3,1],{f}[4,2,3,1]", "axis=0"}}},
    {"after",
     {},
     {{"{f}[],{f}[]", ""},
      {"{f}[1],{f}[3]", ""},
      {"{f}[0],{f}[3]", ""},
      {"{f}[7],{f}[0]", ""},
      {"{f}[0,5],{f}[1]", ""},
      {"{f}[3,5],{f}[5,3]", ""},
      {"{f}[1,1],{f}[]", ""},
      {"{f}[2,3,4],i64[2]", ""},
      {"{f}[3,1,5],bool[2]", ""},
      {"{f}[2,1,3,2],{f}[2]", ""}}},
    {"reduce_sum", {}, kReductions},
    {"reduce_max", {}, kReductions},
    {"reduce_min", {}, kReductions},
    {"softmax", {}, kAlongAxis},
    {"log_softmax", {}, kAlongAxis},
    {"max_pool", {.results = 2}, kPools},
    {"avg_pool", {}, kPools},

    {"reduce_sum", {}, {{"{f}[3,0]", "axes=[1]"}, {"{f}[0]", "axes=[0]"}}},
    {"resample",
     {},
     {{"{f}[1]", "axis=0, positions=i64[3,1](0, 0, 0), weights=f32[3,1](1, 0.5, -2)"},
      {"{f}[7]", "axis=0, positions=i64[3,1](6, 3, 0), weights=f32[3,1](1, 1, 1)"},
      {"{f}[3,1,5]", "axis=2, positions=i64[2,2](0, 4, 4, 2), weights=f32[2,2](0.5, 0.5, 1, 0)"},
      {"{f}[5,2]", "axis=0, positions=i64[1,3](4, 4, 1), weights=f32[1,3](0.25, 0.5, 2)"},
      {"{f}[2,3,0]", "axis=1, positions=i64[2,1](2, 0), weights=f32[2,1](1, 2)"},
      {"{f}[2,3]", "axis=1, positions=i64[3,1](0, 1, 2), weights=f32[3,1](0, 0, 0)"}}},
    {"matmul", {}, kProducts},
    {"matmul",
     {},
     {{"{f}[1,1],{f}[1,1],{f}[1]", ""},
      {"{f}[0,3],{f}[3,5],{f}[5]", ""},
      {"{f}[3,0],{f}[0,5],{f}[5]", ""},
      {"{f}[3,5],{f}[5,0],{f}[0]", ""},
      {"{f}[5,3],{f}[5,7],{f}[7]", "transpose_a=1"},
      {"{f}[5,3],{f}[7,3],{f}[7]", "transpose_b=1"},
      {"{f}[5,3],{f}[3,7],{f}[7],{f}[5,7]", ""},
      {"{f}[5,0],{f}[7,0],{f}[7],{f}[5,7]", "transpose_b=1"},
      {"{f}[5,3],{f}[3,7],-,{f}[5,7]", ""}}},
    {"full_matmul", {}, kProducts},
    {"convolution",
     {},
     {{"{f}[1,1,1],{f}[1,1,1]", ""},
      {"{f}[0,5,2],{f}[3,3,2]", "pads_begin=[1]"},
      {"{f}[2,7,1],{f}[3,3,1]", "strides=[2], pads_begin=[1], pads_end=[1]"},
      {"{f}[1,7,3],{f}[3,3,1]", "groups=3, dilations=[3]"},
      {"{f}[2,5,4],{f}[6,1,2]", "groups=2, strides=[3]"},
      {"{f}[1,3,5,2],{f}[1,3,5,2]", ""},
      {"{f}[2,4,3,1],{f}[2,1,3,1]", "pads_begin=[0,1], pads_end=[2,1], strides=[1,2]"},
      {"{f}[1,5,5,2],{f}[2,2,2,2]", "dilations=[2,3], pads_end=[0,1]"},
      {"{f}[1,6,5,3],{f}[3,3,2,1]", "groups=3, strides=[4,1], pads_begin=[2,0]"},
      {"{f}[1,2,3,2,1],{f}[2,1,2,2,1]", "strides=[1,2,1]"}}},
    {"convolution_data_grad",
     {},
     {{"{f}[1,1,1],{f}[1,1,1]", "spatial=[1]"},
      {"{f}[3,3,2],{f}[0,5,3]", "pads_begin=[1], pads_end=[1], spatial=[5]"},
      {"{f}[3,3,1],{f}[2,4,3]", "strides=[2], pads_begin=[1], pads_end=[1], spatial=[7]"},
      {"{f}[3,3,1],{f}[2,4,3]", "strides=[2], pads_begin=[1], pads_end=[1], spatial=[8]"},
      {"{f}[3,3,1],{f}[1,1,3]", "groups=3, dilations=[3], spatial=[7]"},
      {"{f}[6,1,2],{f}[2,2,6]", "groups=2, strides=[3], spatial=[5]"},
      {"{f}[2,2,2,2],{f}[1,3,3,2]", "dilations=[2,3], pads_end=[0,1], spatial=[5,5]"},
      {"{f}[1,3,5,2],{f}[1,1,1,1]", "spatial=[3,5]"}}},
    {"gather", {.bound = 1}, {{"{f}[1],i64[]", "axis=0"}, {"{f}[1,1,3],i32[1,1]", "axis=1"}}},
    {"softmax_cross_entropy",
     {-3, 3, 5},
     {{"{f}[1,5],i64[1]", ""},
      {"{f}[0,5],i64[0]", ""},
      {"{f}[7,5],i64[7]", ""},
      {"{f}[3,9],i64[3]", "smoothing=0.1"},
      {"{f}[2,6],i64[2]", "ignore_index=0"},
      {"{f}[9,5],i64[9]", "ignore_index=3, smoothing=0.5"},
      {"{f}[1,33],i64[1]", "smoothing=0.25"},
      {"{f}[0,7],i64[0]", "smoothing=0.25, ignore_index=1"}}},
    {"softmax_cross_entropy", {-3, 3, 1}, {{"{f}[4,1],i64[4]", ""}, {"{f}[4,3],i64[4]", "ignore_index=0"}}},
    {"batch_norm",
     {0.5, 3, 2, 3},
     {{"{f}[4,1],f32[1],f32[1],f32[1],f32[1]", "axis=1"},
      {"{f}[7,3],f32[3],f32[3],f32[3],f32[3]", "axis=1"},
      {"{f}[6,3],f32[3],f32[3]", "axis=1"},
      {"{f}[3,7],f32[3],f32[3],f32[3],f32[3]", "axis=0"},
      {"{f}[4,0],f32[0],f32[0],f32[0],f32[0]", "axis=1"},
      {"{f}[2,3,5],f32[3],f32[3],f32[3],f32[3]", "axis=1"},
      {"{f}[2,3,2,3],f32[3],f32[3],f32[3],f32[3]", "axis=3"},
      {"{f}[3,2,1,5],f32[2],f32[2],f32[2],f32[2]", "axis=1, epsilon=0.1"},
      {"{f}[1,5,2],f32[2],f32[2],f32[2],f32[2]", "axis=2"},
      {"{f}[2,2,2,2,3],f32[3],f32[3],f32[3],f32[3]", "axis=4"}}},
    {"layer_norm",
     {.results = 3},
     {{"{f}[5],{f}[5],{f}[5]", "axis=0"},
      {"{f}[1,7],{f}[7],{f}[7]", "axis=1, epsilon=0.1"},
      {"{f}[2,3,2],{f}[3,2],{f}[3,2]", "axis=1"}}},
    {"rms_norm",
     {.results = 2},
     {{"{f}[5],{f}[5]", "axis=0"},
      {"{f}[0,5],{f}[5]", "axis=1"},
      {"{f}[1,7],{f}[7]", "axis=1"},
      {"{f}[2,3,5],{f}[5]", "axis=2, epsilon=0.1"},
      {"{f}[2,3,2],f32[3,2]", "axis=1"},
      {"{f}[2,2,3,2],f32[2]", "axis=3"}}},
    {"group_norm",
     {.results = 3},
     {{"{f}[1,2,3],f32[2],f32[2]", "axis=1, batch=0, groups=1"},
      {"{f}[0,4,3],f32[4],f32[4]", "axis=1, batch=0, groups=2"},
      {"{f}[2,3,4],f32[4],f32[4]", "axis=2, batch=0, groups=4"},
      {"{f}[2,3,4],f32[3],f32[3]", "axis=1, batch=2, groups=1"},
      {"{f}[2,2,3,4],f32[4],f32[4]", "axis=3, batch=0, groups=2, epsilon=0.1"}}},
    {"attention",
     {.results = 3},
     {{"{f}[0,2,3,4],{f}[0,2,5,4],{f}[0,2,5,4]", "scale=0.5"},
      {"{f}[2,2,3,4],{f}[2,2,5,4],{f}[2,2,5,4],bool[3,5]", "scale=0.5, fill=-10000.0"},
      {"{f}[2,2,0,4],{f}[2,2,5,4],{f}[2,2,5,4]", "scale=0.5"},
      {"{f}[1,3,1,5],{f}[1,1,7,5],{f}[1,1,7,3]", "scale=0.5, causal=1"},
      {"{f}[1,2,3,2],{f}[1,2,3,2],{f}[1,2,3,2],{f}[1]", "scale=1.0"}}},
    {"flash_attention",
     {.results = 2},
     {{"{f}[0,3,2,4],{f}[0,5,2,4],{f}[0,5,2,4]", "scale=0.5"},
      {"{f}[1,1,1,1],{f}[1,1,1,1],{f}[1,1,1,1]", "scale=1.0"},
      {"{f}[1,1,3,5],{f}[1,7,1,5],{f}[1,7,1,3]", "scale=0.5, causal=1"},
      {"{f}[1,3,2,2],{f}[1,3,2,2],{f}[1,3,2,2]", "scale=1.0"},
      {"{f}[2,6,2,3],{f}[2,6,1,3],{f}[2,6,1,4]", "scale=0.7, causal=1"},
      {"{f}[2,2,4,3],{f}[2,5,4,3],{f}[2,5,4,2]", "scale=-0.5"},
      {"{f}[3,4,1,2],{f}[3,2,1,2],{f}[3,2,1,5]", "scale=0.25"},
      {"{f}[1,5,6,3],{f}[1,4,3,3],{f}[1,4,3,3]", "scale=0.5, causal=1"}}},
    {"recurrent",
     {.low = -1, .high = 1, .results = 4},
     {{"{f}[0,2,3],{f}[56],{f}[1,2,2],{f}[1,2,2]", "cell=\"lstm\", hidden=2"},
      {"{f}[3,0,3],{f}[56]", "cell=\"lstm\", hidden=2"},
      {"{f}[3,2,0],{f}[32]", "cell=\"lstm\", hidden=2"},
      {"{f}[1,1,1],{f}[16]", "cell=\"lstm\", hidden=1"},
      {"{f}[5,1,2],{f}[20],{f}[2,1,1]", "cell=\"lstm\", hidden=1, layers=2, bias=0"}}},
    {"dropout",
     {.bound = 100},
     {{"{f}[],i64[],i32[]", "ratio=0.25, site=1"},
      {"{f}[1],i64[],i32[]", "ratio=0.25, site=2"},
      {"{f}[0,5],i64[],i32[]", "ratio=0.25, site=2"},
      {"{f}[7],i64[],i32[]", "ratio=0.5, site=0"},
      {"{f}[3,5],i64[],i32[]", "ratio=0.0, site=3"},
      {"{f}[3,5],i64[],i32[]", "ratio=0.9, site=3"},
      {"{f}[3,1,5],i64[],i32[]", "ratio=0.5, site=4"},
      {"{f}[2,3,4],i64[],i32[]", "ratio=0.5, site=4, shape=[1,3,1]"},
      {"{f}[2,3,4],i64[],i32[]", "ratio=0.5, site=4, shape=[1,1,1]"},
      {"{f}[2,3,2,3],i64[],i32[]", "ratio=0.25, site=5, shape=[2,1,2,1]"}}},
};

// Of scatter, for every reduction; positive elements, of which none is 0.
constexpr std::string_view kReductionNames[] = {"set", "add", "mul", "min", "max"};
const std::vector<Shapes> kScatters{
    {"{f}[3,2],i64[2,3],{f}[2,3,2]", "axis=0"}, {"{f}[2,3,2],i32[4],{f}[2,4,2]", "axis=1"},
    {"{f}[2,5],i64[],{f}[2]", "axis=1"},        {"{f}[4,3],i64[0],{f}[0,3]", "axis=0"},
    {"{f}[3,0],i64[2],{f}[2,0]", "axis=0"},     {"{f}[7],i64[1],{f}[1]", "axis=0"},
    {"{f}[2,3],i64[7],{f}[7,3]", "axis=0"},
};

GradientSample gradient_sample(const OpSample& s) { return {s.op, sample_text(s, "f64"), s.low, s.high, s.bound}; }

// `sample` with all shapes replaced.
GradientSample reshaped(OpSample sample, std::string_view shape) {
  std::string inputs;
  for (bool inside = false; char c : sample.inputs) {
    if (c == '[') inputs += shape;
    inside |= c == '[';
    if (!inside) inputs += c;
    inside &= c != ']';
  }
  sample.inputs = inputs;
  return gradient_sample(sample);
}

}  // namespace

std::vector<GradientSample> gradient_samples() {
  std::vector<GradientSample> samples;
  for (const OpSample& sample : op_samples()) {
    const Op& row = op(sample.op);
    if (!row.vjp) continue;
    samples.push_back(gradient_sample(sample));
    if (row.kernel != KernelKind::pointwise) continue;
    for (std::string_view shape : kPointwise) samples.push_back(reshaped(sample, shape));
  }
  for (const RowShapes& row : kRows)
    for (const auto& [inputs, attributes] : row.shapes) {
      const Elements& e = row.elements;
      samples.push_back(gradient_sample({row.op, inputs, attributes, e.low, e.high, e.bound, e.results}));
    }
  for (std::string_view reduction : kReductionNames)
    for (const auto& [inputs, axis] : kScatters) {
      const std::string attributes = std::string(axis) + ", reduction=\"" + std::string(reduction) + "\"";
      samples.push_back(gradient_sample({"scatter", inputs, attributes, 0.5, 2, 3}));
    }
  return samples;
}

}  // namespace halfstep
