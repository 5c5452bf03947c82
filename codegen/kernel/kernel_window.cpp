// Windows: pooling, depthwise convolution and their gradients as folds over the elements of a window. A gradient
// gathers: each input position visits the outputs whose window may hold it.
#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "codegen/kernel/kernel_region.h"
#include "ir/ops/families.h"

namespace halfstep {
namespace {

// So many steps of a fold are written out, as far as its last axes make whole loops.
constexpr int64_t kUnrolledSteps = 16;

ops::WindowGeometry geometry_of(const Node& node) {
  return ops::window_geometry(node.attributes, node.attributes.ints("window"));
}

}  // namespace

std::vector<ExpressionId> RegionReader::fold(const Shape& extents, std::vector<ExpressionId> initial,
                                             const FoldStep& step) {
  size_t looped = extents.size();
  for (int64_t steps = 1; looped > 0 && (steps *= extents[looped - 1]) <= kUnrolledSteps;) --looped;
  const Shape outer(extents.begin(), extents.begin() + static_cast<std::ptrdiff_t>(looped)),
      inner(extents.begin() + static_cast<std::ptrdiff_t>(looped), extents.end());
  const auto written_out = [&](const std::vector<Index>& first, std::vector<ExpressionId> carried) {
    ops::for_each_index(inner, [&](const Ints& at) {
      std::vector<Index> point = first;
      for (int64_t i : at) point.push_back(constant_index(i));
      carried = step(point, carried);
    });
    return carried;
  };
  if (looped == 0) return written_out({}, std::move(initial));
  Fold loop;
  std::vector<Index> point;
  VariableSet own = 0;
  for (int64_t extent : outer) {
    const AtomId v = kernel_.space.variable(extent);
    point.push_back(kernel_.space.of(v));
    own |= kernel_.space.atom(v).variables;
    if (extent > 1) loop.variables.push_back(v);
  }
  const auto id = static_cast<int32_t>(kernel_.folds.size());
  kernel_.folds.push_back(loop);
  const auto slot = [&](Expression::Kind kind, size_t i, VariableSet variables, int level) {
    Expression e;
    e.kind = kind;
    e.dtype = kernel_.expressions[initial[i]].dtype;
    e.id = id;
    e.slot = static_cast<int32_t>(i);
    return kernel_.expressions.add(std::move(e), kernel_.space, variables, level);
  };
  std::vector<ExpressionId> carried, results;
  for (size_t i = 0; i < initial.size(); ++i) carried.push_back(slot(Expression::Kind::carried, i, own, 0));
  loop.initial = initial;
  loop.next = written_out(point, carried);
  VariableSet variables = 0;
  int level = 0;
  for (const std::vector<ExpressionId>& used : {loop.initial, loop.next})
    for (ExpressionId e : used) {
      variables |= kernel_.expressions.variables(e);
      level = std::max(level, kernel_.expressions.level(e));
    }
  for (size_t i = 0; i < initial.size(); ++i)
    results.push_back(slot(Expression::Kind::fold, i, variables & ~own, level));
  kernel_.folds[static_cast<size_t>(id)] = std::move(loop);
  return results;
}

RegionReader::WindowElement RegionReader::input_element(const Point& p, const std::vector<Index>& element,
                                                        Outside outside) {
  const ops::WindowGeometry g = geometry_of(p.node);
  const Shape &shape = operand_shape(p, 0), &outputs = p.node.results[0].shape;
  WindowElement e{p.index, kNoExpression, element, true, {}};
  std::vector<Index> number = element;
  for (size_t i = 0; i < element.size(); ++i) {
    const int64_t extent = shape[i + 1];
    const Index start = p.index[i + 1] * g.strides[i] + -g.pads_begin[i];
    Index& at = e.index[i + 1];
    at = start + element[i] * g.dilations[i];
    const ExpressionId inside = kernel_.in_range(at, 0, extent);
    const bool has_nearest =
        g.dilations[i] == 1 && (outputs[i + 1] - 1) * g.strides[i] - g.pads_begin[i] < extent && extent > 0;
    if (inside != kNoExpression && outside == Outside::nearest && has_nearest) {
      at = kernel_.clamped(at, extent);
      number[i] = at + start * -1;
    } else {
      e.inside = kernel_.both(e.inside, inside);
    }
  }
  e.number = kernel_.space.linear(number, g.window);
  return e;
}

Shape RegionReader::candidate_counts(const Point& p) const {
  const ops::WindowGeometry g = geometry_of(p.node);
  Shape counts;
  for (size_t i = 0; i < g.window.size(); ++i)
    counts.push_back(ceil_div((g.window[i] - 1) * g.dilations[i] + 1, g.strides[i]));
  return counts;
}

// Of the outputs o with o stride <= position, padded, the `candidate`-th from the last; its window may hold the
// position.
RegionReader::WindowElement RegionReader::output_element(const Point& p, const std::vector<Index>& candidate) {
  const ops::WindowGeometry g = geometry_of(p.node);
  const Shape& outputs = operand_shape(p, 0);
  WindowElement e{p.index, kNoExpression, {}, true, {}};
  for (size_t i = 0; i < candidate.size(); ++i) {
    const Index padded = p.index[i + 1] + g.pads_begin[i];
    const Index reach = kernel_.space.remainder(padded, g.strides[i]) + candidate[i] * g.strides[i];
    e.index[i + 1] = kernel_.space.quotient(padded, g.strides[i]) + candidate[i] * -1;
    const auto need = [&](const Index& index, int64_t limit) {
      const ExpressionId in_range = kernel_.in_range(index, 0, limit);
      e.inside = kernel_.both(e.inside, in_range);
      return in_range == kNoExpression;
    };
    need(e.index[i + 1], outputs[i + 1]);
    e.place.push_back(kernel_.space.quotient(reach, g.dilations[i]));
    e.has_place &= need(kernel_.space.remainder(reach, g.dilations[i]), 1);
    e.has_place &= need(e.place.back(), g.window[i]);
  }
  e.number = kernel_.space.linear(e.place, g.window);
  return e;
}

ExpressionId RegionReader::read_max_pool(const Point& p) {
  const ops::WindowGeometry g = geometry_of(p.node);
  const auto primitive = [&](ScalarOp op, auto... x) { return kernel_.primitive(op, {x...}); };
  const ExpressionId yes = kernel_.constant(DType::boolean, 1), no = kernel_.constant(DType::boolean, 0);
  const std::vector<ExpressionId> initial{
      kernel_.constant(p.node.results[0].dtype, identity_of(ScalarOp::maximum, p.node.results[0].dtype)),
      kernel_.constant(DType::u8, 0), no};
  const FoldStep step = [&](const std::vector<Index>& at, const std::vector<ExpressionId>& carried) {
    const WindowElement e = input_element(p, at, Outside::nearest);
    const ExpressionId v = evaluate(p.node.operands[0], e.index, kernel_.both(p.guard, e.inside));
    const ExpressionId best = carried[0], seen = carried[2];
    // The first element, then a larger one, or the first NaN.
    ExpressionId take = kNoExpression, seen_now = yes;
    if (seen != no) {
      take =
          primitive(ScalarOp::logical_and, primitive(ScalarOp::logical_not, primitive(ScalarOp::less_equal, v, best)),
                    primitive(ScalarOp::equal, best, best));
      if (seen != yes) take = primitive(ScalarOp::logical_or, take, primitive(ScalarOp::logical_not, seen));
    }
    if (seen != yes && e.inside != kNoExpression) seen_now = primitive(ScalarOp::logical_or, seen, e.inside);
    take = kernel_.both(e.inside, take);
    return std::vector{kernel_.select(take, v, best),
                       kernel_.select(take, kernel_.index(DType::u8, e.number), carried[1]), seen_now};
  };
  const std::vector<ExpressionId> result = fold(g.window, initial, step);
  for (int32_t i = 0; i < 2; ++i)
    known_.emplace(std::tuple{Value{static_cast<NodeId>(&p.node - region_.nodes().data()), i}, p.index, p.guard},
                   result[static_cast<size_t>(i)]);
  return result[0];
}

// carried + (condition ? v : 0), where the first term is not added to nothing.
ExpressionId RegionReader::add_where(ExpressionId carried, ExpressionId condition, ExpressionId v) {
  const ExpressionId zero = kernel_.constant(kernel_.expressions[v].dtype, 0);
  const ExpressionId term = kernel_.select(condition, v, zero);
  return carried == zero ? term : kernel_.primitive(ScalarOp::add, {carried, term});
}

ExpressionId RegionReader::read_max_pool_grad(const Point& p) {
  constexpr int64_t kNoElement = 255;  // the number of none, in windows of at most so many
  const bool spare = TensorType{DType::u8, geometry_of(p.node).window}.element_count() <= kNoElement;
  const FoldStep step = [&](const std::vector<Index>& at, const std::vector<ExpressionId>& carried) {
    const WindowElement e = output_element(p, at);
    if (kernel_.never(e.inside)) return carried;
    const ExpressionId guard = kernel_.both(p.guard, e.inside);
    // One comparison a lane also where the output may not exist.
    ExpressionId number = kernel_.index(DType::u8, e.number);
    if (spare) number = kernel_.select(e.inside, number, kernel_.constant(DType::u8, kNoElement));
    ExpressionId hit = kernel_.primitive(ScalarOp::equal, {evaluate(p.node.operands[1], e.index, guard), number});
    if (!spare) hit = kernel_.both(e.inside, hit);
    return std::vector{add_where(carried[0], hit, evaluate(p.node.operands[0], e.index, guard))};
  };
  return fold(candidate_counts(p), {kernel_.constant(p.node.results[0].dtype, 0)}, step)[0];
}

// How many elements of the window at `output` count: the product over the axes of those inside the input.
ExpressionId RegionReader::window_count(const Point& p, const std::vector<Index>& output) {
  const ops::WindowGeometry g = geometry_of(p.node);
  const bool grad = p.node.op->gradient != Gradient::none;
  const DType dtype = p.node.results[0].dtype;
  const Shape& input = grad ? p.node.results[0].shape : operand_shape(p, 0);
  const bool whole = p.node.attributes.integer("count_include_pad") != 0;
  const ExpressionId one = kernel_.constant(dtype, 1), zero = kernel_.constant(dtype, 0);
  ExpressionId count = kNoExpression;
  for (size_t i = 0; i < g.window.size(); ++i) {
    int64_t always = 0;
    ExpressionId along = kNoExpression;
    for (int64_t k = 0; k < g.window[i]; ++k) {
      const Index at = output[i + 1] * g.strides[i] + (k * g.dilations[i] - g.pads_begin[i]);
      const ExpressionId inside = whole ? kNoExpression : kernel_.in_range(at, 0, input[i + 1]);
      if (inside == kNoExpression) {
        ++always;
        continue;
      }
      const ExpressionId counted = kernel_.select(inside, one, zero);
      along = along == kNoExpression ? counted : kernel_.primitive(ScalarOp::add, {along, counted});
    }
    const ExpressionId certain = kernel_.constant(dtype, static_cast<double>(always));
    along = along == kNoExpression ? certain : kernel_.primitive(ScalarOp::add, {along, certain});
    count = count == kNoExpression ? along : kernel_.primitive(ScalarOp::multiply, {count, along});
  }
  return count;
}

ExpressionId RegionReader::read_avg_pool(const Point& p) {
  const ops::WindowGeometry g = geometry_of(p.node);
  const ExpressionId zero = kernel_.constant(p.node.results[0].dtype, 0);
  const FoldStep step = [&](const std::vector<Index>& at, const std::vector<ExpressionId>& carried) {
    const WindowElement e = input_element(p, at, Outside::absent);
    const ExpressionId v = evaluate(p.node.operands[0], e.index, kernel_.both(p.guard, e.inside));
    return std::vector{add_where(carried[0], e.inside, v)};
  };
  // A window that lies in the padding counts nothing: 0.
  const ExpressionId count =
      kernel_.primitive(ScalarOp::maximum, {window_count(p, p.index), kernel_.constant(p.node.results[0].dtype, 1)});
  return kernel_.primitive(ScalarOp::divide, {fold(g.window, {zero}, step)[0], count});
}

ExpressionId RegionReader::read_avg_pool_grad(const Point& p) {
  const ExpressionId zero = kernel_.constant(p.node.results[0].dtype, 0);
  const FoldStep step = [&](const std::vector<Index>& at, const std::vector<ExpressionId>& carried) {
    const WindowElement e = output_element(p, at);
    if (kernel_.never(e.inside)) return carried;
    const ExpressionId dy = evaluate(p.node.operands[0], e.index, kernel_.both(p.guard, e.inside));
    return std::vector{
        add_where(carried[0], e.inside, kernel_.primitive(ScalarOp::divide, {dy, window_count(p, e.index)}))};
  };
  return fold(candidate_counts(p), {zero}, step)[0];
}

// Of the results along the last spatial axis so many stand together, from a multiple of their number on.
int64_t RegionReader::outputs_together(const Point& p) const {
  const Index& at = p.index[p.index.size() - 2];
  const int64_t count = kernel_.together;
  const bool whole = std::ranges::all_of(at.terms, [&](const Index::Term& t) { return t.factor % count == 0; });
  return whole && p.guard == kNoExpression && p.node.results[0].shape.end()[-2] % count == 0 ? count : 1;
}

// Products with a filter [window..., C] and their sum. Neighbouring results share what they read: one fold makes all
// that stand together.
ExpressionId RegionReader::read_depthwise(const Point& p) {
  const ExpressionId zero = kernel_.constant(p.node.results[0].dtype, 0);
  const bool is_gradient = p.node.op->gradient != Gradient::none;
  const int64_t together = outputs_together(p), offset = p.index.end()[-2].offset;
  const int64_t number = ((offset % together) + together) % together;
  std::vector<std::vector<Index>> indices;
  for (int64_t i = 0; i < together; ++i) {
    indices.push_back(p.index);
    indices.back().end()[-2].offset += i - number;
  }
  const auto add_product = [&](const std::vector<Index>& index, const std::vector<Index>& at, ExpressionId carried) {
    const Point here{p.node, index, p.guard};
    const WindowElement e = is_gradient ? output_element(here, at) : input_element(here, at, Outside::absent);
    if (kernel_.never(e.inside)) return carried;
    const ExpressionId guard = kernel_.both(p.guard, e.inside);
    std::vector<Index> place = e.place;
    place.push_back(index.back());
    ExpressionId x = evaluate(p.node.operands[0], e.index, guard);
    ExpressionId w = evaluate(p.node.operands[1], place, e.has_place ? p.guard : guard);
    // Chosen before they are multiplied: a sum takes a product in without rounding it, but no choice of one.
    x = kernel_.select(guard, x, zero);
    if (!e.has_place) w = kernel_.select(guard, w, zero);
    const ExpressionId term = kernel_.primitive(ScalarOp::multiply, {x, w});
    return carried == zero ? term : kernel_.sum(carried, term);
  };
  const FoldStep step = [&](const std::vector<Index>& at, const std::vector<ExpressionId>& carried) {
    std::vector<ExpressionId> next;
    for (size_t i = 0; i < indices.size(); ++i) next.push_back(add_product(indices[i], at, carried[i]));
    return next;
  };
  const std::vector<ExpressionId> results = fold(is_gradient ? candidate_counts(p) : geometry_of(p.node).window,
                                                 std::vector<ExpressionId>(indices.size(), zero), step);
  const Value v{static_cast<NodeId>(&p.node - region_.nodes().data()), 0};
  for (size_t i = 0; i < indices.size(); ++i)
    known_.emplace(std::tuple{v, indices[i], p.guard}, kernel_.rounded(p.node.results[0].dtype, results[i]));
  return results[static_cast<size_t>(number)];
}

// A fold of maxima, of sums for the mean, or of products with a filter.
ExpressionId RegionReader::read_window(Value v, const Point& p) {
  const bool is_maximum = p.node.op->combine == ScalarOp::maximum, is_gradient = p.node.op->gradient != Gradient::none;
  const ExpressionId first = ops::has_filter(*p.node.op) ? read_depthwise(p)
                             : is_maximum                ? (is_gradient ? read_max_pool_grad(p) : read_max_pool(p))
                             : is_gradient               ? read_avg_pool_grad(p)
                                                         : read_avg_pool(p);
  if (v.result == 0) return kernel_.rounded(p.node.results[0].dtype, first);
  // The index of a maximum is slot 1 of the fold that gives it.
  return known_.at({v, p.index, p.guard});
}

}  // namespace halfstep
