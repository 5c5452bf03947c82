#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "runtime/cpu/dnnl_call.h"

namespace halfstep {
namespace {

using dnnl::memory;
using Forward = dnnl::convolution_forward;
using DataGrad = dnnl::convolution_backward_data;
using FilterGrad = dnnl::convolution_backward_weights;

// Winograd's tiles are 4x4 outputs. Below these sizes the transforms and reorders take what the products save.
constexpr int64_t kTile = 4, kBlock = 16, kLeastChannels = 64, kLeastTiles = 64, kLeastOutputs = 10;
// What no plan knows of: above it operands stay as they lie.
constexpr int64_t kMostWorkspace = 512 << 20;
// Of a thread's second-level cache.
constexpr int64_t kCachedBytes = 1 << 20;

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

using dnnl::algorithm;

// Winograd's F(4x4, 3x3) multiplies 36 times for 16 outputs in the place of 144. In fp32 its results are as near to the
// exact ones as the direct sum's within a factor of two (filter gradients: five), some 1e-6 of their mean square.
bool suits_winograd(const Convolution& c) {
  const auto all = [](const Shape& shape, int64_t value) {
    return std::ranges::all_of(shape, [value](int64_t size) { return size == value; });
  };
  if (c.window.size() != 2 || !all(c.window, 3) || !all(c.strides, 1) || !all(c.dilations, 1)) return false;
  if (!all(c.pads_begin, 1) || !all(c.pads_end, 1)) return false;
  const auto tiles = [&](size_t axis) { return ceil_div(c.out_spatial[axis], kTile); };
  const int64_t count = tiles(0) * tiles(1), outputs = c.out_spatial[0] * c.out_spatial[1];
  return c.groups == 1 && c.in_channels % kBlock == 0 && c.out_channels % kBlock == 0 &&
         std::min(c.in_channels, c.out_channels) >= kLeastChannels && c.batch * count >= kLeastTiles &&
         outputs >= count * kLeastOutputs;
}

// The three operands as oneDNN sees them, and how it multiplies. Formats that are `any` are left to it, and copies in
// these formats are made each step: filters always, all operands for Winograd's algorithm.
struct Descriptions {
  memory::desc x, w, y, bias, x_any, w_any, y_any;
  memory::dims strides, dilations, pads_begin, pads_end;
  algorithm kind;

  Descriptions(const Convolution& c, const ComputeTypes& types, algorithm algorithm_kind)
      : x(activation(c.batch, c.in_channels, c.spatial, written(c, types, ConvolutionKind::data_grad))),
        w(filter(c, written(c, types, ConvolutionKind::filter_grad))),
        y(activation(c.batch, c.out_channels, c.out_spatial, written(c, types, ConvolutionKind::forward))),
        x_any(x),
        w_any(any_format(w)),
        y_any(y),
        strides(c.strides),
        pads_begin(c.pads_begin),
        pads_end(c.pads_end),
        kind(algorithm_kind) {
    if (kind == algorithm::convolution_winograd) {
      x_any = any_format(x);
      y_any = any_format(y);
    }
    if (c.bias) bias = {memory::dims{c.out_channels}, dnnl_type(types.bias), memory::format_tag::a};
    for (const int64_t dilation : c.dilations) dilations.push_back(dilation - 1);
  }

  static DType written(const Convolution& c, const ComputeTypes& types, ConvolutionKind writer) {
    return c.kind == writer ? types.result : types.operand;
  }
};

Forward::primitive_desc describe_forward(const Descriptions& d, const dnnl::primitive_attr& attributes,
                                         const dnnl::engine& engine) {
  const auto training = dnnl::prop_kind::forward_training;
  const auto operation = d.bias.is_zero() ? Forward::desc(training, d.kind, d.x_any, d.w_any, d.y_any, d.strides,
                                                          d.dilations, d.pads_begin, d.pads_end)
                                          : Forward::desc(training, d.kind, d.x_any, d.w_any, d.bias, d.y_any,
                                                          d.strides, d.dilations, d.pads_begin, d.pads_end);
  return {operation, attributes, engine, true};
}

// Gradients are described after a forward convolution, which must not mix types.
Forward::primitive_desc describe_hint(const Convolution& c, DType type, algorithm kind, const dnnl::engine& engine) {
  return describe_forward(Descriptions(c, {type, type, type}, kind), dnnl::primitive_attr(), engine);
}

DataGrad::primitive_desc describe_data_grad(const Descriptions& d, const dnnl::primitive_attr& attributes,
                                            const dnnl::engine& engine, const Forward::primitive_desc& hint) {
  const DataGrad::desc operation(d.kind, d.x_any, d.w_any, d.y_any, d.strides, d.dilations, d.pads_begin, d.pads_end);
  return {operation, attributes, engine, hint, true};
}

FilterGrad::primitive_desc describe_filter_grad(const Descriptions& d, const dnnl::primitive_attr& attributes,
                                                const dnnl::engine& engine, const Forward::primitive_desc& hint) {
  const FilterGrad::desc operation(d.kind, d.x_any, d.w_any, d.y_any, d.strides, d.dilations, d.pads_begin, d.pads_end);
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

// Samples that are computed at once where operands are converted: the copies of as many stay in the threads' caches.
int64_t samples_at_once(const Convolution& c, const DnnlContext& context) {
  const auto floats = [](int64_t channels, const Shape& spatial) {
    int64_t count = channels;
    for (const int64_t size : spatial) count *= size;
    return count;
  };
  const int64_t sample = 4 * (floats(c.in_channels, c.spatial) + floats(c.out_channels, c.out_spatial));
  const int64_t threads = context.team.size(), most = std::max(threads, threads * kCachedBytes / sample);
  int64_t samples = std::min(most, c.batch);
  while (c.batch % samples != 0) --samples;
  return samples < threads ? c.batch : samples;
}

class Builder {
 public:
  Builder(const Convolution& convolution, const AddressOf& address, const DnnlContext& context)
      : c_(convolution), address_(address), context_(context) {
    attributes_.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  }

  // nullptr: oneDNN does not have these types, or only slowly and there are others to try.
  std::unique_ptr<CpuCall> build(const ComputeTypes& types) const {
    if (types.operand == DType::f32 && suits_winograd(c_)) {
      std::unique_ptr<DnnlCall> call = build(types, algorithm::convolution_winograd);
      if (call && call->workspace_bytes() <= kMostWorkspace) return call;
    }
    const bool converts = c_.operand != types.operand || c_.result != types.result;
    if (!converts || c_.kind == ConvolutionKind::filter_grad) return build(types, algorithm::convolution_direct);
    Convolution piece = c_;
    piece.batch = samples_at_once(c_, context_);
    std::unique_ptr<DnnlCall> call = Builder(piece, address_, context_).build(types, algorithm::convolution_direct);
    if (call && piece.batch < c_.batch) call->set_pieces(c_.batch / piece.batch, {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST});
    return call;
  }

 private:
  std::unique_ptr<DnnlCall> build(const ComputeTypes& types, algorithm kind) const {
    const Descriptions d(c_, types, kind);
    auto call = std::make_unique<DnnlCall>(context_);
    if (c_.kind == ConvolutionKind::forward) {
      const auto description = describe_forward(d, attributes_, context_.engine);
      if (!is_usable(description, types)) return nullptr;
      add_x(*call, DNNL_ARG_SRC, d, description.src_desc());
      add_w(*call, d, description.weights_desc());
      if (c_.bias)
        call->add_source(DNNL_ARG_BIAS, {address_(*c_.bias), c_.bias_type, 1, c_.out_channels, 0}, d.bias, d.bias);
      set_result(*call, DNNL_ARG_DST, c_.y, d.y, description.dst_desc());
      call->set_primitive(Forward(description), description.scratchpad_desc());
      return call;
    }
    const Forward::primitive_desc hint = describe_hint(c_, types.operand, kind, context_.engine);
    if (!hint) return nullptr;
    if (c_.kind == ConvolutionKind::data_grad) {
      const auto description = describe_data_grad(d, attributes_, context_.engine, hint);
      if (!is_usable(description, types)) return nullptr;
      add_w(*call, d, description.weights_desc());
      add_y(*call, d, description.diff_dst_desc());
      set_result(*call, DNNL_ARG_DIFF_SRC, c_.x, d.x, description.diff_src_desc());
      call->set_primitive(DataGrad(description), description.scratchpad_desc());
    } else {
      // oneDNN 2.6 with AMX leaves what was in memory as the gradient of such a tap.
      if (types.operand == DType::bf16 && has_idle_tap(c_)) return nullptr;
      const auto description = describe_filter_grad(d, attributes_, context_.engine, hint);
      if (!is_usable(description, types)) return nullptr;
      add_x(*call, DNNL_ARG_SRC, d, description.src_desc());
      add_y(*call, d, description.diff_dst_desc());
      set_result(*call, DNNL_ARG_DIFF_WEIGHTS, c_.w, d.w, description.diff_weights_desc());
      call->set_primitive(FilterGrad(description), description.scratchpad_desc());
    }
    return call;
  }

  template <typename Description>
  static bool is_usable(const Description& description, const ComputeTypes& types) {
    return description && (types.operand == DType::f32 || is_fast(description));
  }
  void add_x(DnnlCall& call, int argument, const Descriptions& d, const memory::desc& wanted) const {
    call.add_source(argument, stored(address_(c_.x), c_.operand, d.x), d.x, wanted);
  }
  void add_w(DnnlCall& call, const Descriptions& d, const memory::desc& wanted) const {
    call.add_source(DNNL_ARG_WEIGHTS, stored(address_(c_.w), c_.operand, d.w), d.w, wanted);
  }
  void add_y(DnnlCall& call, const Descriptions& d, const memory::desc& wanted) const {
    call.add_source(DNNL_ARG_DIFF_DST, stored(address_(c_.y), c_.operand, d.y), d.y, wanted);
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
  for (const ComputeTypes& types :
       compute_types(context, convolution.operand, convolution.result, convolution.bias_type))
    if (std::unique_ptr<CpuCall> call = builder.build(types)) return call;
  throw InternalError("oneDNN has no fp32 primitive for this convolution");
}

}  // namespace halfstep
