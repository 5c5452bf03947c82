// Every tests/passes/<pass>/<sentence>.ir: options, input graph, divider, expected graph or error.
//
//   // pass: NAME option=value ...
//   graph ... { ... }
//   ----
//   graph ... { ... }            or        error: the whole message
//
// UPDATE_EXPECTED=1 rewrites what stands below the divider.
//
// What a pass keeps (its row in passes/pipeline.cpp) is checked on every case that gives a graph. A case of which that
// cannot hold has the option unchecked=why.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "ir/builder.h"
#include "ir/interpret.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pipeline.h"
#include "passes/rewrite/rules.h"
#include "passes/training/differentiate.h"
#include "tests/order_of_need.h"
#include "tests/passes/named_passes.h"
#include "tests/random_tensors.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDivider = "----\n";

struct Case {
  std::string header, input, expected;
};

Case read_case(const fs::path& path) {
  const std::string text = read_file(path);
  const size_t line = text.find('\n'), divider = text.find(kDivider);
  Case result{text.substr(0, line + 1), text.substr(line + 1), ""};
  if (divider != std::string::npos) {
    result.input = text.substr(line + 1, divider - line - 1);
    result.expected = text.substr(divider + kDivider.size());
  }
  return result;
}

struct Header {
  std::string pass;
  CaseOptions options;
};

Header read_header(const Case& c) {
  std::istringstream header(c.header);
  std::string slashes, keyword, pass;
  header >> slashes >> keyword >> pass;
  require(slashes == "//" && keyword == "pass:" && named_passes().contains(pass), "a case begins with '// pass: NAME'");
  CaseOptions options;
  for (std::string word; header >> word;) {
    const size_t at = word.find('=');
    require(at != std::string::npos, "an option is name=value");
    options.set(word.substr(0, at), word.substr(at + 1));
  }
  return {pass, options};
}

std::string run_case(const Case& c) {
  auto [pass, options] = read_header(c);
  options.text("unchecked");
  const Graph input = parse_graph(c.input);
  verify(input);
  try {
    const std::string result = named_passes().at(pass)(input, options);
    options.require_all_used();
    verify(parse_graph(result));
    return result;
  } catch (const Error& e) {
    return std::string("error: ") + e.what() + "\n";
  }
}

class TextCase : public testing::TestWithParam<fs::path> {};

TEST_P(TextCase, GivesTheExpectedGraph) {
  const Case c = read_case(GetParam());
  const std::string found = run_case(c);
  if (std::getenv("UPDATE_EXPECTED"))
    write_file_atomically(GetParam(), c.header + c.input + std::string(kDivider) + found);
  else
    EXPECT_EQ(test::in_order_of_need(found), test::in_order_of_need(c.expected)) << GetParam();
}

// A parameter, or its gradient, of `from` as `to` stores it.
Tensor stored_in(const Graph& to, const Graph& from, const Name& name, Tensor value) {
  const Ints before = from.node(from.leaf(name)).attributes.ints("permutation");
  const Ints after = to.node(to.leaf(name)).attributes.ints("permutation");
  if (!before.empty()) value = value.transpose(inverse(before));
  return after.empty() ? value : value.transpose(after);
}

// Values for the leaves of `to`: those of `from`, as parameters or as slices of arenas, and what only `to` has.
NamedTensors leaves_for(const Graph& to, const Graph& from, const NamedTensors& leaves) {
  NamedTensors result = random_leaves(to, 101);
  const ArenaLayout layout = plan_arenas(from);
  for (auto& [name, value] : result) {
    if (const auto same = leaves.find(name); same != leaves.end())
      value = is(to.node(to.leaf(name)), "parameter") ? stored_in(to, from, name, same->second) : same->second;
    else if (is_floating(value.type.dtype) && name == arena_name(value.type.dtype))
      for (const ArenaSlice& slice : layout.slices)
        for (int64_t i = 0; i < slice.size(); ++i) value.set(slice.offset + i, leaves.at(slice.name).at(i));
  }
  return result;
}

using Results = std::map<Name, InterpretedTensor>;

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], tolerance * std::max(1.0, std::abs(expected[i]))) << "[" << i << "]";
}

// What nothing reads any more has no gradient.
void expect_same(const Results& expected, const Results& found, double tolerance) {
  for (const auto& [name, tensor] : expected) {
    SCOPED_TRACE(to_string(name));
    const auto same = found.find(name);
    if (same == found.end() && name.is(Role::gradient)) {
      expect_near(tensor.values, std::vector<double>(tensor.values.size()), tolerance);
      continue;
    }
    ASSERT_NE(same, found.end()) << "not computed any more";
    EXPECT_EQ(same->second.type.shape, tensor.type.shape);
    expect_near(same->second.values, tensor.values, tolerance);
  }
}

constexpr double kSameValues = 1e-6, kSameGradients = 1e-5;

void expect_same_results(const Graph& before, const Graph& after, double tolerance) {
  NamedTensors leaves = random_leaves(before, 3);
  for (auto& [name, value] : leaves)  // exact in a low copy of it
    if (is(before.node(before.leaf(name)), "parameter")) value = value.cast(DType::f16).cast(value.type.dtype);
  const InterpretOptions exact{.rounding = Rounding::none, .observe = nullptr};
  InterpretResult expected = interpret(before, leaves, exact);
  const InterpretResult found = interpret(after, leaves_for(after, before, leaves), exact);
  ASSERT_FALSE(expected.outputs.empty());
  for (auto& [name, gradient] : expected.outputs) {
    if (!name.is(Role::gradient) || !found.outputs.contains(name)) continue;
    const Tensor value = Tensor::from_values(gradient.type, gradient.values);
    const Tensor stored = stored_in(after, before, name.text, value);
    gradient = {stored.type, stored.values()};
  }
  expect_same(expected.outputs, found.outputs, tolerance);
  expect_same(expected.updates, found.updates, tolerance);
}

class ValueCase : public TextCase {};

TEST_P(ValueCase, KeepsTheValues) {
  const Case c = read_case(GetParam());
  expect_same_results(parse_graph(c.input), parse_graph(run_case(c)), kSameValues);
}

// With the floating-point inputs as parameters, and a loss that weighs all elements of all outputs differently.
Graph with_gradients(const Graph& graph) {
  Builder b(graph.name());
  const ValueMap map = copy_nodes(graph, b, [](Builder& builder, const Node& node, std::span<const Value>) {
    const bool trained = is(node, "input") && is_floating(node.results[0].dtype);
    if (!trained) return std::vector<Value>();
    const auto [dtype, shape] = node.results[0];
    return std::vector{builder.cast(builder.parameter(node.attributes.text("name"), {DType::f32, shape}), dtype)};
  });
  Value loss = b.constant(DType::f32, 0);
  uint64_t seed = 0;
  for (const NamedValue& o : graph.outputs()) {
    const Value v = map(o.value);
    if (!is_floating(b.dtype(v))) continue;
    const Value weights = b.constant(random_tensor({DType::f32, b.shape(v)}, ++seed, -1, 1, 0));
    loss = b.add(loss, b.sum_to(b.mul(b.cast(v, DType::f32), weights), {}));
  }
  b.output(kLoss, loss);
  return differentiate(std::move(b).finish());
}

class GradientCase : public TextCase {};

TEST_P(GradientCase, KeepsTheGradients) {
  const Case c = read_case(GetParam());
  const Graph before = with_gradients(parse_graph(c.input)), after = with_gradients(parse_graph(run_case(c)));
  ASSERT_GT(before.outputs().size(), 1u) << "nothing has a gradient";
  expect_same_results(before, after, kSameGradients);
}

std::string folder_of(const fs::path& path) { return path.parent_path().filename().string(); }

std::vector<fs::path> cases() {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(HALFSTEP_SOURCE_DIR) / "tests/passes"))
    if (entry.path().extension() == ".ir") paths.push_back(entry.path());
  std::ranges::sort(paths);
  return paths;
}

ValueCheck::Kind check_of(const std::string& folder) {
  for (const PassRow& row : pipeline_rows())
    if (std::ranges::find(row.cases, folder) != row.cases.end()) return row.check.kind;
  return ValueCheck::none;
}

// Of the passes that are checked in this way, what gives a graph.
std::vector<fs::path> cases_checked(ValueCheck::Kind least) {
  std::vector<fs::path> paths = cases();
  std::erase_if(paths, [&](const fs::path& path) {
    const Case c = read_case(path);
    return check_of(folder_of(path)) < least || c.expected.starts_with("error:") ||
           !read_header(c).options.text("unchecked").empty();
  });
  return paths;
}

constexpr auto kNameOfCase = [](const auto& info) { return folder_of(info.param) + "__" + info.param.stem().string(); };
INSTANTIATE_TEST_SUITE_P(Passes, TextCase, testing::ValuesIn(cases()), kNameOfCase);
INSTANTIATE_TEST_SUITE_P(Passes, ValueCase, testing::ValuesIn(cases_checked(ValueCheck::values)), kNameOfCase);
INSTANTIATE_TEST_SUITE_P(Passes, GradientCase, testing::ValuesIn(cases_checked(ValueCheck::values_and_gradients)),
                         kNameOfCase);

// The suites of this executable that the text names as "Suite.*".
std::vector<std::string> suites_named(const std::string& text) {
  std::vector<std::string> names;
  const std::regex suite("(\\w+)\\.\\*");
  for (std::sregex_iterator at(text.begin(), text.end(), suite), end; at != end; ++at) names.push_back((*at)[1]);
  return names;
}

bool has_suite(const std::string& name) {
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i)
    if (all.GetTestSuite(i)->name() == name) return true;
  return false;
}

TEST(ValueChecks, EveryPassHasOneOrSaysWhyNot) {
  std::set<std::string> folders, checked, known;
  for (const fs::path& path : cases()) folders.insert(folder_of(path));
  for (const fs::path& path : cases_checked(ValueCheck::values)) checked.insert(folder_of(path));
  for (const PassRow& row : pipeline_rows()) {
    SCOPED_TRACE(row.name);
    EXPECT_FALSE(row.cases[0].empty());
    for (const std::string_view cases : row.cases) {
      if (cases.empty()) continue;
      const std::string folder(cases);
      known.insert(folder);
      EXPECT_TRUE(folders.contains(folder)) << "no cases in tests/passes/" << folder;
      EXPECT_EQ(check_of(folder), row.check.kind) << folder << " is checked as another row says";
      EXPECT_EQ(checked.contains(folder), row.check.kind != ValueCheck::none) << folder;
    }
    const std::vector<std::string> instead = suites_named(std::string(row.check.reason));
    EXPECT_EQ(instead.empty(), row.check.kind != ValueCheck::none) << "checked by its cases or by the tests it names";
    for (const std::string& suite : instead) EXPECT_TRUE(has_suite(suite)) << "no tests " << suite;
  }
  EXPECT_EQ(known, folders) << "cases of a pass that no row names";
}

}  // namespace
}  // namespace halfstep
