#include "frontend/export/export.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "base/error.h"
#include "frontend/export/inference_form.h"
#include "frontend/export/write_model.h"
#include "frontend/import/respecialise.h"
#include "frontend/onnx/local_names.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"
#include "frontend/onnx/ties.h"

namespace halfstep {
namespace {

using onnx::TensorProto;

template <typename T>
std::string as_bytes(const Tensor& tensor, T (*convert)(double)) {
  std::string bytes(static_cast<size_t>(tensor.type.element_count()) * sizeof(T), '\0');
  for (int64_t i = 0; i < tensor.type.element_count(); ++i) {
    const T value = convert(tensor.at(i));
    std::memcpy(bytes.data() + static_cast<size_t>(i) * sizeof(T), &value, sizeof value);
  }
  return bytes;
}

// The elements of a trained tensor in the floating type that its initializer has.
std::string encode(const Tensor& tensor, const TensorProto& initializer) {
  switch (initializer.data_type()) {
    case TensorProto::FLOAT16:
      return as_bytes<uint16_t>(tensor, [](double v) { return half_from_float(static_cast<float>(v)); });
    case TensorProto::BFLOAT16:
      return as_bytes<uint16_t>(tensor, [](double v) { return bfloat16_from_float(static_cast<float>(v)); });
    case TensorProto::DOUBLE:
      return as_bytes<double>(tensor, [](double v) { return v; });
    default:
      return as_bytes<float>(tensor, [](double v) { return static_cast<float>(v); });
  }
}

void set_data(TensorProto& tensor, std::string bytes) {
  tensor.clear_float_data();
  tensor.clear_int32_data();
  tensor.clear_int64_data();
  tensor.clear_double_data();
  tensor.clear_uint64_data();
  tensor.clear_external_data();
  tensor.clear_data_location();
  tensor.set_raw_data(std::move(bytes));
}

class Exporter {
 public:
  Exporter(OnnxModel original, const FileTensors& trained)
      : model_(std::move(original)),
        local_names_(separate_local_names(model_)),
        reader_(model_.reader()),
        ties_(find_ties(model_.proto().graph(), reader_)),
        trained_(trained) {}

  OnnxModel convert() {
    Problems problems;
    onnx::ModelProto& model = model_.edit();
    write_weights(*model.mutable_graph(), problems);
    for (const auto& [name, tensor] : trained_)
      if (!written_.contains(name)) problems.add("trained tensor '" + name + "' is no initializer of the model");
    make_inference(model, reader_, problems);
    problems.throw_if_any();
    restore_local_names(model, local_names_);
    return std::move(model_);
  }

 private:
  void write_weights(onnx::GraphProto& graph, Problems& problems) {
    for (TensorProto& tensor : *graph.mutable_initializer()) {
      try {
        write_weight(tensor);
      } catch (const Error& error) {
        problems.add(error.what());
      }
    }
    for (onnx::NodeProto& node : *graph.mutable_node())
      for (onnx::AttributeProto& attribute : *node.mutable_attribute())
        if (attribute.has_g()) write_weights(*attribute.mutable_g(), problems);
  }

  void write_weight(TensorProto& tensor) {
    const auto tie = ties_.find(tensor.name());
    const auto found = trained_.find(tie == ties_.end() ? tensor.name() : tie->second.to);
    if (found == trained_.end()) {
      if (model_.fresh().contains(tensor.name()))
        throw Error("tensor '" + tensor.name() + "' of the new head has no values yet: name a run's with --checkpoint");
      if (tensor.data_location() == TensorProto::EXTERNAL) set_data(tensor, reader_.read_bytes(tensor));
      return;
    }
    const TensorType type = type_of(tensor);
    const Tensor value = tie == ties_.end() ? found->second : tied_value(tie->second, found->second);
    set_data(tensor, encode(repeated_to(value, type, tensor.name()), tensor));
    written_.insert(found->first);
  }

  // What the model holds as copies of one value is trained as that value, of size 1 there.
  static Tensor repeated_to(const Tensor& trained, const TensorType& type, const std::string& name) {
    Tensor result = trained;
    for (size_t axis = 0; axis < std::min(type.shape.size(), trained.type.shape.size()); ++axis)
      if (result.type.shape[axis] == 1 && type.shape[axis] > 1) result = repeat(result, axis, type.shape[axis]);
    if (result.type != type)
      throw Error("trained tensor '" + name + "' is " + to_string(trained.type) + ", the model has " + to_string(type));
    return result;
  }

  OnnxModel model_;
  LocalNames local_names_;
  TensorReader reader_;
  std::map<std::string, Tie> ties_;
  const FileTensors& trained_;
  std::set<std::string> written_;
};

}  // namespace

std::map<std::string, Shape> fixed_inputs(const OnnxModel& model) {
  std::set<std::string> weights;
  for (const onnx::TensorProto& tensor : model.proto().graph().initializer()) weights.insert(tensor.name());
  std::map<std::string, Shape> fixed;
  for (const onnx::ValueInfoProto& input : model.proto().graph().input()) {
    const auto& dims = input.type().tensor_type().shape().dim();
    const auto is_fixed = [](const auto& dim) { return dim.has_dim_value() && dim.dim_value() > 0; };
    if (weights.contains(input.name()) || dims.empty() || !std::ranges::all_of(dims, is_fixed)) continue;
    Shape& shape = fixed[input.name()];
    for (const auto& dim : dims) shape.push_back(dim.dim_value());
  }
  return fixed;
}

OnnxModel inference_model(OnnxModel original, const FileTensors& trained) {
  return Exporter(std::move(original), trained).convert();
}

void export_model(OnnxModel original, const FileTensors& trained, const std::filesystem::path& path,
                  const ExportOptions& options) {
  export_model(inference_model(std::move(original), trained), path, options);
}

void export_model(OnnxModel model, const std::filesystem::path& path, const ExportOptions& options) {
  onnx::ModelProto& messages = model.edit();
  add_metadata(messages, options.metadata);
  write_model(messages, path, options.largest_inline);
}

int64_t dropouts_left_out(const OnnxModel& model) { return dropouts_left_out(model.proto()); }

}  // namespace halfstep
