#include "frontend/import/function_body.h"

#include <google/protobuf/unknown_field_set.h>

#include <map>
#include <string>

namespace halfstep {
namespace {

// Attributes that a function's body takes from its call. A default is the function's own.
std::map<std::string, onnx::AttributeProto> call_attributes(const onnx::FunctionProto& function,
                                                            const onnx::NodeProto& call) {
  constexpr int kDefaultsField = 11;  // attribute_proto, added to the format after our messages
  std::map<std::string, onnx::AttributeProto> attributes;
  for (int i = 0; i < function.unknown_fields().field_count(); ++i) {
    const google::protobuf::UnknownField& field = function.unknown_fields().field(i);
    onnx::AttributeProto attribute;
    if (field.number() == kDefaultsField && field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED &&
        attribute.ParseFromString(field.length_delimited()))
      attributes[attribute.name()] = attribute;
  }
  for (const onnx::AttributeProto& attribute : call.attribute()) attributes[attribute.name()] = attribute;
  return attributes;
}

void fill_in_attributes(NodeList& nodes, const std::map<std::string, onnx::AttributeProto>& given) {
  for (onnx::NodeProto& node : nodes) {
    auto& attributes = *node.mutable_attribute();
    for (int i = attributes.size(); i-- > 0;) {
      onnx::AttributeProto& attribute = attributes[i];
      if (attribute.has_g()) fill_in_attributes(*attribute.mutable_g()->mutable_node(), given);
      if (attribute.ref_attr_name().empty()) continue;
      const auto found = given.find(attribute.ref_attr_name());
      if (found == given.end()) {
        attributes.DeleteSubrange(i, 1);
        continue;
      }
      const std::string name = attribute.name();
      attribute = found->second;
      attribute.set_name(name);
    }
  }
}

}  // namespace

NodeList body_of_call(const onnx::FunctionProto& function, const onnx::NodeProto& call) {
  NodeList nodes = function.node();
  fill_in_attributes(nodes, call_attributes(function, call));
  return nodes;
}

}  // namespace halfstep
