#include <algorithm>

#include "base/error.h"
#include "runtime/cpu/dnnl_call.h"

namespace halfstep {
namespace {

using dnnl::memory;
using Forward = dnnl::convolution_forward;
using DataGrad = dnnl::convolution_backward_data;
using FilterGrad = dnnl::convolution_backward_weights;

memory::dims concatenate(memory::dims head, const Shape& tail) {
  head.insert(head.end(), tail.begin(), tail.end());
  return head;
}

// Channels last: axes [batch, channels, spatial...] of oneDNN, stored [batch, spatial..., channels].
memory::desc activation(int64_t batch, int64_t channels, const Shape& spatial, DType type) {
  const memory::dims dims = concatenate({batch, channels}, spatial);
  memory::dims strides(dims.size());
  strides[1] = 1;
  int64_t stride = channels;
  for (size_t i = dims.size(); i-- > 2; stride *= dims[i]) strides[i] = stride;
  strides[0] = stride;
  return {dims, dnnl_type(type), strides};
}

// Axes [groups, out, in, window...] of oneDNN (without the first for one group), stored [groups, out, window..., in].
memory::desc filter(const Convolution& c, DType type) {
  const int64_t out = c.out_channels / c.groups, in = c.in_channels / c.groups;
  const size_t leading = c.groups == 1 ? 0 : 1;
  const memory::dims dims = concatenate(leading ? memory::dims{c.groups, out, in} : memory::dims{out, in}, c.window);
  memory::dims strides(dims.size());
  int64_t stride = in;
  for (size_t i = dims.size(); i-- > leading + 2; stride *= dims[i]) strides[i] = stride;
  strides[leading + 1] = 1;
  strides[leading] = stride;
  if (leading) strides[0] = stride * out;
  return {dims, dnnl_type(type), strides};
}

memory::desc any_format(const memory::desc& description) {
  return {description.dims(), description.data_type(), memory::format_tag::any};
}

// The three operands as oneDNN sees them; the filters' format is left to it, and a copy in that format is made each
// step.
struct Descriptions {
  memory::desc x, w, y, bias, w_any;
  memory::dims strides, dilations, pads_begin, pads_end;

  Descriptions(const Convolution& c, const ComputeTypes& types)
      : x(activation(c.batch, c.in_channels, c.spatial, written(c, types, ConvolutionKind::data_grad))),
        w(filter(c, written(c, types, ConvolutionKind::filter_grad))),
        y(activation(c.batch, c.out_channels, c.out_spatial, written(c, types, ConvolutionKind::forward))),
        w_any(any_format(w)),
        strides(c.strides),
        pads_begin(c.pads_begin),
        pads_end(c.pads_end) {
    if (c.bias) bias = {memory::dims{c.out_channels}, dnnl_type(types.bias), memory::format_tag::a};
    for (const int64_t dilation : c.dilations) dilations.push_back(dilation - 1);
  }

  static DType written(const Convolution& c, const ComputeTypes& types, ConvolutionKind writer) {
    return c.kind == writer ? types.result : types.operand;
  }
};

constexpr auto kAlgorithm = dnnl::algorithm::convolution_direct;

Forward::primitive_desc describe_forward(const Descriptions& d, const dnnl::primitive_attr& attributes,
                                         const dnnl::engine& engine) {
  const auto training = dnnl::prop_kind::forward_training;
  const auto operation = d.bias.is_zero() ? Forward::desc(training, kAlgorithm, d.x, d.w_any, d.y, d.strides,
                                                          d.dilations, d.pads_begin, d.pads_end)
                                          : Forward::desc(training, kAlgorithm, d.x, d.w_any, d.bias, d.y, d.strides,
                                                          d.dilations, d.pads_begin, d.pads_end);
  return {operation, attributes, engine, true};
}

// Gradients are described after a forward convolution, which must not mix types.
Forward::primitive_desc describe_hint(const Convolution& c, DType type, const dnnl::engine& engine) {
  return describe_forward(Descriptions(c, {type, type, type}), dnnl::primitive_attr(), engine);
}

DataGrad::primitive_desc describe_data_grad(const Descriptions& d, const dnnl::primitive_attr& attributes,
                                            const dnnl::engine& engine, const Forward::primitive_desc& hint) {
  const DataGrad::desc operation(kAlgorithm, d.x, d.w_any, d.y, d.strides, d.dilations, d.pads_begin, d.pads_end);
  return {operation, attributes, engine, hint, true};
}

FilterGrad::primitive_desc describe_filter_grad(const Descriptions& d, const dnnl::primitive_attr& attributes,
                                                const dnnl::engine& engine, const Forward::primitive_desc& hint) {
  const FilterGrad::desc operation(kAlgorithm, d.x, d.w_any, d.y, d.strides, d.dilations, d.pads_begin, d.pads_end);
  return {operation, attributes, engine, hint, true};
}

// Whether some tap of the window meets padding alone.
bool has_idle_tap(const Convolution& c) {
  for (size_t i = 0; i < c.window.size(); ++i)
    for (int64_t tap = 0; tap < c.window[i]; ++tap) {
      bool meets = false;
      for (int64_t o = 0; o < c.out_spatial[i] && !meets; ++o) {
        const int64_t at = o * c.strides[i] - c.pads_begin[i] + tap * c.dilations[i];
        meets = at >= 0 && at < c.spatial[i];
      }
      if (!meets) return true;
    }
  return false;
}

StoredRows stored(std::byte* data, DType type, const memory::desc& description) {
  int64_t count = 1;
  for (const memory::dim d : description.dims()) count *= d;
  return {data, type, 1, count, 0};
}

class Builder {
 public:
  Builder(const Convolution& convolution, const AddressOf& address, const DnnlContext& context)
      : c_(convolution), address_(address), context_(context) {
    attributes_.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  }

  // nullptr: oneDNN does not have these types, or only slowly and there are others to try.
  std::unique_ptr<CpuCall> build(const ComputeTypes& types) const {
    const Descriptions d(c_, types);
    auto call = std::make_unique<DnnlCall>(context_);
    if (c_.kind == ConvolutionKind::forward) {
      const auto description = describe_forward(d, attributes_, context_.engine);
      if (!is_usable(description, types)) return nullptr;
      add_x(*call, DNNL_ARG_SRC, d);
      add_w(*call, d, description.weights_desc());
      if (c_.bias)
        call->add_source(DNNL_ARG_BIAS, {address_(*c_.bias), c_.bias_type, 1, c_.out_channels, 0}, d.bias, d.bias);
      set_result(*call, DNNL_ARG_DST, c_.y, d.y, d.y);
      call->set_primitive(Forward(description), description.scratchpad_desc());
      return call;
    }
    const Forward::primitive_desc hint = describe_hint(c_, types.operand, context_.engine);
    if (!hint) return nullptr;
    if (c_.kind == ConvolutionKind::data_grad) {
      const auto description = describe_data_grad(d, attributes_, context_.engine, hint);
      if (!is_usable(description, types)) return nullptr;
      add_w(*call, d, description.weights_desc());
      add_y(*call, d);
      set_result(*call, DNNL_ARG_DIFF_SRC, c_.x, d.x, d.x);
      call->set_primitive(DataGrad(description), description.scratchpad_desc());
    } else {
      // oneDNN 2.6 with AMX leaves what was in memory as the gradient of such a tap.
      if (types.operand == DType::bf16 && has_idle_tap(c_)) return nullptr;
      const auto description = describe_filter_grad(d, attributes_, context_.engine, hint);
      if (!is_usable(description, types)) return nullptr;
      add_x(*call, DNNL_ARG_SRC, d);
      add_y(*call, d);
      set_result(*call, DNNL_ARG_DIFF_WEIGHTS, c_.w, d.w, description.diff_weights_desc());
      call->set_primitive(FilterGrad(description), description.scratchpad_desc());
    }
    return call;
  }

 private:
  template <typename Description>
  static bool is_usable(const Description& description, const ComputeTypes& types) {
    return description && (types.operand == DType::f32 || is_fast(description));
  }
  void add_x(DnnlCall& call, int argument, const Descriptions& d) const {
    call.add_source(argument, stored(address_(c_.x), c_.operand, d.x), d.x, d.x);
  }
  void add_w(DnnlCall& call, const Descriptions& d, const memory::desc& wanted) const {
    call.add_source(DNNL_ARG_WEIGHTS, stored(address_(c_.w), c_.operand, d.w), d.w, wanted);
  }
  void add_y(DnnlCall& call, const Descriptions& d) const {
    call.add_source(DNNL_ARG_DIFF_DST, stored(address_(c_.y), c_.operand, d.y), d.y, d.y);
  }
  void set_result(DnnlCall& call, int argument, Ref ref, const memory::desc& plain, const memory::desc& wanted) const {
    call.set_result(argument, stored(address_(ref), c_.result, plain), plain, wanted, nullptr,
                    c_.relu ? Activation::relu : Activation::none);
  }

  const Convolution& c_;
  const AddressOf& address_;
  const DnnlContext& context_;
  dnnl::primitive_attr attributes_;
};

}  // namespace

std::unique_ptr<CpuCall> make_dnnl_call(const Convolution& convolution, const AddressOf& address,
                                        const DnnlContext& context) {
  const Builder builder(convolution, address, context);
  for (const ComputeTypes& types : compute_types(convolution.operand, convolution.result, convolution.bias_type))
    if (std::unique_ptr<CpuCall> call = builder.build(types)) return call;
  throw InternalError("oneDNN has no fp32 primitive for this convolution");
}

}  // namespace halfstep
