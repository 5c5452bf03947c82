#include <charconv>
#include <cmath>
#include <map>
#include <optional>

#include "base/checked.h"
#include "base/error.h"
#include "ir/builder.h"
#include "ir/text.h"

namespace halfstep {
namespace {

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-'; }

// Recursive descent over the text; every failure is an Error with line and column.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Graph graph() {
    expect_word("graph");
    Builder builder{word("a graph name")};
    expect('{');
    std::map<std::string, Value, std::less<>> values;
    while (!accept('}')) {
      if (peek() == '%')
        node(builder, values);
      else if (const std::string kind = word("a node, output or update"); kind == "output") {
        Name name = output_name();
        expect('=');
        builder.output(std::move(name), value(values));
      } else if (kind == "update") {
        const Value state = value(values);
        expect('=');
        builder.update(state, value(values));
      } else {
        fail("'output' or 'update' expected, found '" + kind + "'");
      }
    }
    return std::move(builder).finish();
  }

  void end() {
    skip_space();
    if (at_ < text_.size()) fail("text after the end of the graph");
  }

 private:
  using Values = std::map<std::string, Value, std::less<>>;

  [[noreturn]] void fail(const std::string& what) const {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at_ && i < text_.size(); ++i) column = text_[i] == '\n' ? (++line, 1) : column + 1;
    throw Error("line " + std::to_string(line) + ", column " + std::to_string(column) + ": " + what);
  }

  void skip_space() {
    while (at_ < text_.size()) {
      if (text_.substr(at_, 2) == "//")
        at_ = std::min(text_.find('\n', at_), text_.size());
      else if (std::isspace(static_cast<unsigned char>(text_[at_])))
        ++at_;
      else
        break;
    }
  }

  char peek() {
    skip_space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  bool accept(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!accept(c)) fail(std::string("'") + c + "' expected");
  }

  std::string word(const std::string& what) {
    skip_space();
    const size_t begin = at_;
    while (at_ < text_.size() && is_word(text_[at_])) ++at_;
    if (begin == at_) fail(what + " expected");
    return std::string(text_.substr(begin, at_ - begin));
  }

  void expect_word(std::string_view expected) {
    if (word("'" + std::string(expected) + "'") != expected) fail("'" + std::string(expected) + "' expected");
  }

  std::string string() {
    expect('"');
    std::string result;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) {
        ++at_;
        result += text_[at_] == 'n' ? '\n' : text_[at_];
      } else {
        result += text_[at_];
      }
      ++at_;
    }
    if (at_ == text_.size()) fail("string is not closed");
    ++at_;
    return result;
  }

  int64_t integer() {
    const std::string digits = word("an integer");
    int64_t result = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), result);
    if (error != std::errc() || end != digits.data() + digits.size())
      fail("an integer expected, found '" + digits + "'");
    return result;
  }

  // '+' is no word character: it stands in exponents such as 1e+20 only.
  double number() {
    std::string text = word("a number");
    if (text.back() == 'e' && accept('+')) text += word("an exponent");
    char* end = nullptr;
    const double result = std::strtod(text.c_str(), &end);
    if (*end) fail("a number expected, found '" + text + "'");
    return result;
  }

  Ints ints() {
    Ints result;
    expect('[');
    if (accept(']')) return result;
    do result.push_back(integer());
    while (accept(','));
    expect(']');
    return result;
  }

  DType dtype() {
    const std::string text = word("an element type");
    const std::optional<DType> type = parse_dtype(text);
    if (!type) fail("no element type '" + text + "'");
    return *type;
  }

  TensorType type() {
    const DType element = dtype();
    return {element, ints()};
  }

  Tensor tensor() {
    const TensorType t = type();
    constexpr int64_t kLargestLiteral = 1 << 24;
    if (checked_element_count(t.shape, "literal") > kLargestLiteral) fail("literal " + to_string(t) + " is too large");
    Tensor result(t);
    expect('(');
    for (int64_t i = 0; i < t.element_count(); ++i) {
      if (i) expect(',');
      if (t.dtype == DType::i64)
        result.as<int64_t>()[static_cast<size_t>(i)] = integer();
      else
        result.set(i, number());
    }
    expect(')');
    return result;
  }

  Attribute attribute(const Attribute& like) {
    struct Reader {
      Parser& p;
      Attribute operator()(int64_t) const { return p.integer(); }
      Attribute operator()(double) const { return p.number(); }
      Attribute operator()(const std::string&) const { return p.string(); }
      Attribute operator()(DType) const { return p.dtype(); }
      Attribute operator()(const Ints&) const { return p.ints(); }
      Attribute operator()(const Tensor&) const { return p.tensor(); }
      Attribute operator()(const Region&) const { return std::make_shared<const Graph>(p.graph()); }
    };
    return std::visit(Reader{*this}, like);
  }

  std::string value_name() {
    expect('%');
    return word("a value name");
  }

  Value value(const Values& values) {
    if (peek() == '_' && (at_ + 1 >= text_.size() || !is_word(text_[at_ + 1]))) {
      ++at_;
      return {};
    }
    const std::string name = value_name();
    const auto found = values.find(name);
    if (found == values.end()) fail("%" + name + " is not defined before its use");
    return found->second;
  }

  // "logits" of the model, measure "loss".
  Name output_name() {
    if (peek() == '"') return string();
    const std::string first = word("an output name or its role");
    if (peek() != '"') return first;
    const std::optional<Role> role = parse_role(first);
    if (!role) fail("no role '" + first + "' of an output");
    return {*role, string()};
  }

  Attributes attributes(const Op& op) {
    Attributes result;
    if (!accept('{')) return result;
    if (accept('}')) return result;
    do {
      const std::string key = word("an attribute name");
      expect('=');
      const AttributeSpec* spec = nullptr;
      for (const AttributeSpec& s : op.attributes)
        if (s.name == key) spec = &s;
      if (!spec) fail(std::string(op.name) + " has no attribute '" + key + "'");
      result.set(key, attribute(spec->default_value));
    } while (accept(','));
    expect('}');
    return result;
  }

  Origin origin() {
    Origin result;
    if (!accept('@')) return result;
    result.name = string();
    for (Phase phase : {Phase::loss, Phase::backward, Phase::update}) {
      skip_space();
      const std::string_view text = name(phase);
      if (text_.substr(at_, text.size()) == text) at_ += text.size(), result.phase = phase;
    }
    return result;
  }

  void node(Builder& builder, Values& values) {
    std::vector<std::string> names;
    do names.push_back(value_name());
    while (accept(','));
    expect('=');
    const std::string op_name = word("an op");
    const Op* op = find_op(op_name);
    if (!op) fail("no op '" + op_name + "'");
    std::vector<Value> operands;
    expect('(');
    if (!accept(')')) {
      do operands.push_back(value(values));
      while (accept(','));
      expect(')');
    }
    Attributes with = attributes(*op);
    std::vector<TensorType> types;
    if (accept(':')) {
      do types.push_back(type());
      while (accept(','));
    }
    if (is_leaf(*op)) {
      if (types.size() != 1) fail("a leaf carries its type");
      with.set("dtype", types[0].dtype), with.set("shape", types[0].shape);
    }
    builder.set_origin(origin());
    std::vector<Value> results;
    try {
      results = builder.call_all(*op, std::move(operands), std::move(with));
    } catch (const Error& e) {
      fail(e.what());
    }
    if (results.size() != names.size()) fail(op_name + " has " + std::to_string(results.size()) + " results");
    if (!types.empty() && types.size() != names.size()) fail("one type for each result expected");
    for (size_t i = 0; i < names.size(); ++i) {
      if (!types.empty() && types[i] != builder.type(results[i]))
        fail("%" + names[i] + " is " + to_string(builder.type(results[i])) + ", not " + to_string(types[i]));
      if (!values.emplace(names[i], results[i]).second) fail("%" + names[i] + " is defined twice");
    }
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

Graph parse_graph(std::string_view text) {
  Parser parser(text);
  Graph graph = parser.graph();
  parser.end();
  return graph;
}

}  // namespace halfstep
