// Sequences and optionals exist while importing only: a sequence is a list of values, an optional its element or
// nothing.
#include "base/checked.h"
#include "frontend/import/operators.h"

namespace halfstep {
namespace {

Binding sequence_of(std::vector<Binding> elements) {
  return {.kind = Binding::sequence, .elements = std::move(elements)};
}

// The position that operand `i` names among `count`; `otherwise` if it is left out.
std::ptrdiff_t position(NodeContext& c, size_t i, size_t count, int64_t otherwise) {
  const auto n = static_cast<int64_t>(count);
  if (!c.has_operand(i)) return otherwise;
  const auto at = checked_integer(c.number(i, "position"), "position");
  if (at < -n || at >= n) c.fail("position " + std::to_string(at) + " is outside a sequence of " + std::to_string(n));
  return at < 0 ? at + n : at;
}

std::vector<Binding> import_construct(NodeContext& c) {
  std::vector<Binding> elements;
  for (size_t i = 0; i < c.operand_count(); ++i) elements.push_back(c.binding(i));
  return {sequence_of(elements)};
}

std::vector<Binding> import_empty(NodeContext& c) {
  c.ignore({"dtype"});
  return {sequence_of({})};
}

std::vector<Binding> import_insert(NodeContext& c) {
  std::vector<Binding> elements = c.sequence(0);
  const auto end = static_cast<int64_t>(elements.size());
  // Behind the last is a position here.
  const bool at_end = c.has_operand(2) && c.number(2, "position") == static_cast<double>(end);
  const std::ptrdiff_t at = at_end ? end : position(c, 2, elements.size(), end);
  elements.insert(elements.begin() + at, c.binding(1));
  return {sequence_of(elements)};
}

std::vector<Binding> import_erase(NodeContext& c) {
  std::vector<Binding> elements = c.sequence(0);
  if (elements.empty()) c.fail("the sequence is empty");
  elements.erase(elements.begin() + position(c, 1, elements.size(), static_cast<int64_t>(elements.size()) - 1));
  return {sequence_of(elements)};
}

std::vector<Binding> import_at(NodeContext& c) {
  const std::vector<Binding>& elements = c.sequence(0);
  return {elements[static_cast<size_t>(position(c, 1, elements.size(), 0))]};
}

std::vector<Binding> import_length(NodeContext& c) {
  return c.bind({c.b.constant(DType::i64, static_cast<double>(c.sequence(0).size()))});
}

std::vector<Binding> import_split(NodeContext& c) {
  const Shape shape = c.shape(0);
  const size_t axis = c.axis(c.integer("axis", 0), shape.size());
  const bool keep = c.integer("keepdims", 1) != 0 || c.has_operand(1);
  Ints sizes;
  const auto check_count = [&](int64_t pieces) {
    constexpr int64_t kMostPieces = 1 << 16;
    if (pieces > kMostPieces) c.fail("a sequence of " + std::to_string(pieces) + " pieces is too long");
  };
  if (!c.has_operand(1)) {
    check_count(shape[axis]);
    sizes = Ints(static_cast<size_t>(shape[axis]), 1);
  } else if (const Tensor split = c.constant(1, "split"); split.type.shape.empty()) {
    const auto chunk = checked_integer(split.at(0), "split");
    if (chunk <= 0) c.fail("operand split is " + std::to_string(chunk));
    check_count(ceil_div(shape[axis], chunk));
    for (int64_t left = shape[axis]; left > 0; left -= chunk) sizes.push_back(std::min(left, chunk));
  } else {
    sizes = c.ints(1, "split");
  }
  std::vector<Value> pieces;
  Ints starts(shape.size(), 0), limits = shape;
  for (int64_t size : sizes) {
    limits[axis] = checked_add(starts[axis], size, "split");
    if (size < 0 || limits[axis] > shape[axis])
      c.fail("operand split does not add up to the axis of " + to_string(shape));
    Value piece = c.b.slice(c.operand(0), starts, limits);
    if (!keep) {
      Shape without = shape;
      without.erase(without.begin() + static_cast<std::ptrdiff_t>(axis));
      piece = c.b.reshape(piece, without);
    }
    pieces.push_back(piece);
    starts[axis] = limits[axis];
  }
  if (starts[axis] != shape[axis]) c.fail("operand split does not add up to the axis of " + to_string(shape));
  return {sequence_of(c.bind(pieces))};
}

std::vector<Binding> import_concat(NodeContext& c) {
  std::vector<Value> elements;
  for (const Binding& element : c.sequence(0)) elements.push_back(c.importer().read(element));
  if (elements.empty()) c.fail("the sequence is empty");
  const bool new_axis = c.integer("new_axis", 0) != 0;
  const size_t axis = c.axis(c.integer("axis"), c.b.shape(elements[0]).size() + (new_axis ? 1 : 0));
  if (new_axis) return c.bind({stacked(c.b, elements, axis)});
  return c.bind({c.b.call("concat", elements, {{"axis", static_cast<int64_t>(axis)}})});
}

// A tensor, a sequence or an optional as it is.
Binding passed_on(NodeContext& c) {
  const Binding& from = c.binding(0);
  return from.kind == Binding::sequence || from.kind == Binding::left_out ? from : c.bind({c.operand(0)})[0];
}

std::vector<Binding> import_identity(NodeContext& c) { return {passed_on(c)}; }

std::vector<Binding> import_optional(NodeContext& c) {
  c.ignore({"type"});
  return {c.operand_count() == 0 ? Binding{Binding::left_out} : passed_on(c)};
}

std::vector<Binding> import_get_element(NodeContext& c) {
  if (!c.has_operand(0)) c.fail("the optional has no element");
  return {passed_on(c)};
}

std::vector<Binding> import_has_element(NodeContext& c) {
  return c.bind({c.b.constant(DType::boolean, c.has_operand(0) ? 1 : 0)});
}

constexpr std::string_view kKnownPosition = "positions must be known when the model is compiled";

const std::vector<OnnxOperator> kRows{
    {"ConcatFromSequence", {11}, 1, 1, nullptr, "", import_concat},
    {"Identity", {1}, 1, 1, nullptr, "", import_identity, OnnxOperator::read},
    {"Optional", {15}, 0, 1, nullptr, "", import_optional},
    {"OptionalGetElement", {15}, 1, 1, nullptr, "", import_get_element},
    {"OptionalHasElement", {15}, 0, 1, nullptr, "", import_has_element},
    {"SequenceAt", {11}, 2, 2, nullptr, kKnownPosition, import_at},
    {"SequenceConstruct", {11}, 1, kVariadic, nullptr, "", import_construct},
    {"SequenceEmpty", {11}, 0, 0, nullptr, "", import_empty},
    {"SequenceErase", {11}, 1, 2, nullptr, kKnownPosition, import_erase},
    {"SequenceInsert", {11}, 2, 3, nullptr, kKnownPosition, import_insert},
    {"SequenceLength", {11}, 1, 1, nullptr, "", import_length},
    {"SplitToSequence", {11}, 1, 2, nullptr, "sizes must be known when the model is compiled", import_split},
};

}  // namespace

std::span<const OnnxOperator> sequence_operators() { return kRows; }

}  // namespace halfstep
