#include "frontend/onnx/exporter_metadata.h"

#include <google/protobuf/unknown_field_set.h>

#include <string_view>

namespace halfstep {
namespace {

constexpr int kMetadataField = 9;  // metadata_props, added to the format after our messages

bool is_entry(const google::protobuf::UnknownField& field, onnx::StringStringEntryProto& entry) {
  return field.number() == kMetadataField && field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED &&
         entry.ParseFromString(field.length_delimited());
}

std::string metadata(const onnx::NodeProto& node, std::string_view key) {
  for (int i = 0; i < node.unknown_fields().field_count(); ++i) {
    onnx::StringStringEntryProto entry;
    if (is_entry(node.unknown_fields().field(i), entry) && entry.key() == key) return entry.value();
  }
  return "";
}

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  return text;
}

}  // namespace

std::string module_of(const onnx::NodeProto& node) {
  // ['', 'encoder', 'encoder.norm', 'layer_norm']: modules from the outermost on, and the node's value.
  const std::string text = metadata(node, "pkg.torch.onnx.name_scopes");
  std::vector<std::string> scopes;
  for (size_t begin = text.find('\''); begin != std::string::npos;) {
    const size_t end = text.find('\'', begin + 1);
    if (end == std::string::npos) break;
    scopes.push_back(text.substr(begin + 1, end - begin - 1));
    begin = text.find('\'', end + 1);
  }
  return scopes.size() < 2 ? "" : scopes[scopes.size() - 2];
}

TracedCall traced_call(const onnx::NodeProto& node) {
  // %conv2d : [num_users=1] = call_function[target=torch.ops.aten.conv2d.default](args = (%x, %w, None, [1, 1]), ...
  constexpr std::string_view kTarget = "call_function[target=", kArguments = "](args = (";
  const std::string text = metadata(node, "pkg.torch.onnx.fx_node");
  const size_t target = text.find(kTarget), arguments = text.find(kArguments);
  if (target == std::string::npos || arguments == std::string::npos || arguments < target) return {};
  TracedCall call{text.substr(target + kTarget.size(), arguments - target - kTarget.size()), {}};
  size_t begin = arguments + kArguments.size();
  int depth = 0;
  for (size_t i = begin; i < text.size() && depth >= 0; ++i) {
    const char c = text[i];
    depth += (c == '(' || c == '[') - (c == ')' || c == ']');
    if (depth < 0 || (depth == 0 && c == ',')) {
      call.arguments.emplace_back(trimmed(std::string_view(text).substr(begin, i - begin)));
      begin = i + 1;
    }
  }
  return call;
}

void set_metadata(onnx::NodeProto& node, const std::string& key, const std::string& value) {
  google::protobuf::UnknownFieldSet& fields = *node.mutable_unknown_fields();
  onnx::StringStringEntryProto entry;
  for (int i = fields.field_count(); i-- > 0;)
    if (is_entry(fields.field(i), entry) && entry.key() == key) fields.DeleteSubrange(i, 1);
  entry.set_key(key), entry.set_value(value);
  fields.AddLengthDelimited(kMetadataField, entry.SerializeAsString());
}

}  // namespace halfstep
