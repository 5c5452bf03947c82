#include "frontend/import/input_shapes.h"

#include <algorithm>
#include <optional>
#include <set>
#include <vector>

#include "base/checked.h"
#include "frontend/onnx/tensor_data.h"

namespace halfstep {
namespace {

std::string dimension_name(const onnx::TensorShapeProto::Dimension& dimension, int axis) {
  return "dimension " + std::to_string(axis) +
         (dimension.dim_param().empty() ? "" : " ('" + dimension.dim_param() + "')");
}

class InputResolver {
 public:
  InputResolver(const onnx::GraphProto& graph, const ImportOptions& options, Problems& problems)
      : options_(options), problems_(problems), symbols_(options.dimensions) {
    std::set<std::string> initialized;
    for (const onnx::TensorProto& tensor : graph.initializer()) initialized.insert(tensor.name());
    for (const onnx::ValueInfoProto& input : graph.input())
      if (!initialized.contains(input.name())) inputs_.push_back(&input);
  }

  InputShapes resolve() {
    check_options();
    find_batch();
    for (const onnx::ValueInfoProto* input : inputs_) {
      const onnx::TypeProto& type = input->type();
      if (!type.has_tensor_type() || !element_type(type.tensor_type().elem_type()))
        problems_.add("input '" + input->name() + "': a tensor of numbers expected, found " +
                      (type.has_tensor_type()     ? element_type_name(type.tensor_type().elem_type())
                       : type.has_sequence_type() ? "a sequence; build it inside the model"
                                                  : "another kind of value"));
      else
        resolve_input(*input);
    }
    return std::move(result_);
  }

 private:
  void check_options() {
    std::vector<std::string> names;
    for (const onnx::ValueInfoProto* input : inputs_) names.push_back(input->name());
    for (const auto& [name, shape] : options_.shapes)
      if (name.empty() && names.size() != 1) {
        problems_.add("a shape is given without an input's name, but the model has " + std::to_string(names.size()) +
                      " inputs: write NAME=D,D,...");
      } else if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end()) {
        const std::string near = nearest(name, names);
        problems_.add("a shape is given for input '" + name + "', which the model does not have" +
                      (near.empty() ? "" : "; did you mean '" + near + "'?"));
      }
    for (const auto& [name, value] : options_.values) {
      const auto known = std::find_if(inputs_.begin(), inputs_.end(),
                                      [&](const onnx::ValueInfoProto* input) { return input->name() == name; });
      if (known == inputs_.end()) {
        const std::string near = nearest(name, names);
        problems_.add("a value is set for input '" + name + "', which the model does not have" +
                      (near.empty() ? "" : "; did you mean '" + near + "'?"));
        continue;
      }
      const std::optional<DType> type = element_type((*known)->type().tensor_type().elem_type());
      if (type && !is_floating(*type) && round_to(*type, value) != value)
        problems_.add("input '" + name + "' is set to " + std::to_string(value) + ", which is no " +
                      std::string(halfstep::name(*type)));
    }
    if (options_.batch && *options_.batch <= 0)
      problems_.add("batch " + std::to_string(*options_.batch) + ": a positive number expected");
  }

  // Axis 0 of the first input that has axes is the batch: as exported, if that is a number, and as wanted.
  void find_batch() {
    batch_ = options_.batch;
    for (const onnx::ValueInfoProto* input : inputs_) {
      const auto& dims = input->type().tensor_type().shape().dim();
      if (dims.empty()) continue;
      if (dims[0].has_dim_value() && dims[0].dim_value() > 0) fixed_batch_ = dims[0].dim_value();
      const Shape* asked = asked_shape(input->name());
      if (!batch_ && asked && !asked->empty() && asked->front() > 0) batch_ = asked->front();
      return;
    }
  }

  const Shape* asked_shape(const std::string& input) const {
    auto asked = options_.shapes.find(input);
    if (asked == options_.shapes.end()) asked = options_.shapes.find("");
    return asked == options_.shapes.end() ? nullptr : &asked->second;
  }

  void resolve_input(const onnx::ValueInfoProto& input) {
    const std::string place = "input '" + input.name() + "'";
    const onnx::TypeProto::Tensor& type = input.type().tensor_type();
    const Shape* given = asked_shape(input.name());
    if (!type.has_shape() && !given) {
      problems_.add(place + ": the file does not say its shape; give it");
      return;
    }
    const auto& dims = type.shape().dim();
    const auto rank = type.has_shape() ? static_cast<size_t>(dims.size()) : given->size();
    if (given && given->size() != rank) {
      problems_.add(place + ": shape " + to_string(*given) + " is given, the model has " + std::to_string(rank) +
                    " axes");
      return;
    }
    Dimensions dimensions;
    for (size_t i = 0; i < rank; ++i) {
      const onnx::TensorShapeProto::Dimension dim =
          type.has_shape() ? dims[static_cast<int>(i)] : onnx::TensorShapeProto::Dimension();
      const std::optional<int64_t> fixed =
          dim.has_dim_value() && dim.dim_value() > 0 ? std::optional(dim.dim_value()) : std::nullopt;
      const std::optional<int64_t> asked = given && (*given)[i] != -1 ? std::optional((*given)[i]) : std::nullopt;
      const std::optional<int64_t> size = asked ? asked : size_of(dim, i, fixed);
      if (!size)
        problems_.add(place + ": " + dimension_name(dim, static_cast<int>(i)) + " is open in the file; give its size" +
                      (i == 0 ? ", the batch" : ""));
      else if (*size < 0 || (asked && *size == 0))
        problems_.add(place + ": " + dimension_name(dim, static_cast<int>(i)) + " is given as " +
                      std::to_string(*size));
      const int64_t wanted = size.value_or(1);
      dimensions.push_back({{fixed.value_or(wanted), wanted}});
    }
    try {
      checked_mul(checked_element_count(wanted_sizes(dimensions), place), 8, place);
    } catch (const Error& error) {
      problems_.add(error.what());
    }
    result_[input.name()] = dimensions;
  }

  std::optional<int64_t> size_of(const onnx::TensorShapeProto::Dimension& dim, size_t axis,
                                 std::optional<int64_t> fixed) {
    if (fixed) return axis == 0 && fixed == fixed_batch_ ? batch_.value_or(*fixed) : *fixed;
    if (const auto known = symbols_.find(dim.dim_param()); known != symbols_.end() && !dim.dim_param().empty())
      return known->second;
    if (axis != 0 || !batch_) return std::nullopt;
    if (!dim.dim_param().empty()) symbols_[dim.dim_param()] = *batch_;  // the batch, wherever it occurs
    return *batch_;
  }

  const ImportOptions& options_;
  Problems& problems_;
  std::map<std::string, int64_t> symbols_;
  std::vector<const onnx::ValueInfoProto*> inputs_;
  std::optional<int64_t> fixed_batch_, batch_;
  InputShapes result_;
};

}  // namespace

InputShapes resolve_inputs(const onnx::GraphProto& graph, const ImportOptions& options, Problems& problems) {
  return InputResolver(graph, options, problems).resolve();
}

InputShapes as_exported(const InputShapes& shapes) {
  InputShapes result;
  for (const auto& [name, dimensions] : shapes) result[name] = numbers(exported_sizes(dimensions));
  return result;
}

bool sizes_differ(const InputShapes& shapes) {
  return std::any_of(shapes.begin(), shapes.end(),
                     [](const auto& input) { return exported_sizes(input.second) != wanted_sizes(input.second); });
}

std::string describe_sizes(const InputShapes& shapes) {
  std::string exported, wanted;
  for (const auto& [name, dimensions] : shapes) {
    if (exported_sizes(dimensions) == wanted_sizes(dimensions)) continue;
    const std::string separator = exported.empty() ? "" : ", ";
    exported += separator + name + "=" + to_string(exported_sizes(dimensions));
    wanted += separator + name + "=" + to_string(wanted_sizes(dimensions));
  }
  return "the model was exported at " + exported + " and is read at " + wanted;
}

}  // namespace halfstep
