#include "frontend/import/repeated_leaves.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "frontend/import/input_shapes.h"

namespace halfstep {
namespace {

// What was expanded to the batch may have been expanded to the length too, as the row of a table of token types is. A
// tensor of one value, as a fresh class token, tells nothing about its other axes.
RepeatedLeaves along_every_axis(RepeatedLeaves leaves, const onnx::GraphProto& graph, const TensorReader& reader) {
  for (const onnx::TensorProto& tensor : graph.initializer()) {
    const auto leaf = leaves.find(tensor.name());
    if (leaf == leaves.end() || reader.missing_file(tensor)) continue;
    const Tensor value = reader.read(tensor);
    std::set<size_t> axes;
    bool one_value = true;
    for (size_t axis = 0; axis < value.type.shape.size(); ++axis)
      if (repeats(value, axis))
        axes.insert(axis);
      else
        one_value = false;
    if (!one_value) leaf->second.insert(axes.begin(), axes.end());
  }
  return leaves;
}

}  // namespace

Recording record(const Importer::Inputs& inputs) {
  const InputShapes exported = as_exported(inputs.shapes);
  Importer::Inputs recorded{inputs.model, inputs.reader,  inputs.options, exported,
                            inputs.ties,  inputs.scalars, inputs.order,   inputs.unfilled};
  recorded.recording_only = true;
  Importer importer(recorded);
  importer.run();
  return std::move(importer.recording());
}

RepeatedLeaves find_repeated(const Importer::Inputs& inputs) {
  const auto first =
      std::find_if(inputs.shapes.begin(), inputs.shapes.end(), [](const auto& input) { return !input.second.empty(); });
  if (first == inputs.shapes.end()) return {};
  const int64_t batch = exported_sizes(first->second).front();
  const auto& tensors = inputs.model.graph().initializer();
  const bool any = std::any_of(tensors.begin(), tensors.end(), [&](const onnx::TensorProto& t) {
    if (t.dims_size() < 2 || t.dims(0) != batch || batch < 2) return false;
    return element_type(t.data_type()) == DType::f32 &&
           (inputs.reader.missing_file(t) || repeats(inputs.reader.read(t), 0));
  });
  if (!any) return {};
  InputShapes other = as_exported(inputs.shapes);
  for (auto& [name, dimensions] : other)
    if (!dimensions.empty() && exported_sizes(dimensions)[0] == batch) dimensions[0] = {{batch, batch + 1}};
  try {
    const Recording recording = record(inputs);
    Importer importer({inputs.model, inputs.reader, inputs.options, other, inputs.ties, inputs.scalars, inputs.order,
                       inputs.unfilled, &recording});
    importer.run();
    return along_every_axis(importer.repeated_leaves(), inputs.model.graph(), inputs.reader);
  } catch (const Error&) {
    return {};  // the model cannot be read at another batch, so that nothing in it is known to stand for one
  }
}

}  // namespace halfstep
