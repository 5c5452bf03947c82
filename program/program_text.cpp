// Program as text: one line a buffer, one line a step. Fields of a call are key=value; those at their default are left
// out, except places and types. One list of fields per call serves the printer and the parser.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <concepts>

#include "base/error.h"
#include "program/program_check.h"

namespace halfstep {
namespace {

template <typename T, typename Call>
concept Is = std::same_as<std::remove_const_t<T>, Call>;

template <Is<KernelLaunch> Call, typename Visit>
void visit_fields(Call& c, Visit&& visit) {
  visit("kernel", c.kernel), visit("arguments", c.arguments), visit("grid", c.grid), visit("block", c.block);
  visit("units", c.units), visit("bytes", c.bytes), visit("extents", c.extents), visit("written", c.written);
  visit("shared", c.shared);
}

template <Is<Gemm> Call, typename Visit>
void visit_fields(Call& c, Visit&& visit) {
  visit("m", c.m), visit("n", c.n), visit("k", c.k), visit("batch", c.batch);
  visit("transpose_a", c.transpose_a), visit("transpose_b", c.transpose_b);
  visit("relu", c.relu);
  visit("stride_a", c.stride_a), visit("stride_b", c.stride_b), visit("stride_c", c.stride_c);
  visit("operand", c.operand), visit("result", c.result), visit("bias_type", c.bias_type);
  visit("a", c.a), visit("b", c.b), visit("c", c.c), visit("bias", c.bias);
  visit("addend", c.addend);
}

template <Is<Convolution> Call, typename Visit>
void visit_fields(Call& c, Visit&& visit) {
  visit("kind", c.kind), visit("batch", c.batch), visit("in_channels", c.in_channels);
  visit("out_channels", c.out_channels), visit("groups", c.groups);
  visit("spatial", c.spatial), visit("window", c.window), visit("out_spatial", c.out_spatial);
  visit("strides", c.strides), visit("pads_begin", c.pads_begin), visit("pads_end", c.pads_end);
  visit("dilations", c.dilations), visit("relu", c.relu);
  visit("operand", c.operand), visit("result", c.result), visit("bias_type", c.bias_type);
  visit("x", c.x), visit("w", c.w), visit("y", c.y), visit("bias", c.bias);
}

template <Is<Attention> Call, typename Visit>
void visit_fields(Call& c, Visit&& visit) {
  visit("kind", c.kind), visit("batch", c.batch), visit("heads", c.heads), visit("key_heads", c.key_heads);
  visit("queries", c.queries), visit("keys", c.keys), visit("depth", c.depth), visit("value_depth", c.value_depth);
  visit("scale", c.scale), visit("causal", c.causal), visit("deterministic", c.deterministic);
  visit("operand", c.operand);
  visit("q", c.q), visit("k", c.k), visit("v", c.v), visit("y", c.y), visit("stats", c.stats), visit("dy", c.dy),
      visit("dq", c.dq), visit("dk", c.dk), visit("dv", c.dv);
}

template <Is<Recurrent> Call, typename Visit>
void visit_fields(Call& c, Visit&& visit) {
  auto& s = c.sizes;
  visit("kind", c.kind), visit("cell", s.cell), visit("steps", s.steps), visit("batch", s.batch);
  visit("inputs", s.inputs), visit("hidden", s.hidden), visit("layers", s.layers), visit("directions", s.directions);
  visit("biased", s.biased), visit("reserve_bytes", c.reserve_bytes), visit("operand", c.operand);
  visit("x", c.x), visit("weights", c.weights), visit("y", c.y), visit("h", c.h), visit("c", c.c);
  visit("h_last", c.h_last), visit("c_last", c.c_last), visit("reserve", c.reserve);
  visit("dy", c.dy), visit("dh_last", c.dh_last), visit("dc_last", c.dc_last), visit("dx", c.dx);
  visit("dweights", c.dweights), visit("dh", c.dh), visit("dc", c.dc);
}

template <Is<Copy> Call, typename Visit>
void visit_fields(Call& c, Visit&& visit) {
  visit("from", c.from), visit("to", c.to), visit("bytes", c.bytes);
}

// Which fields every line shows and must have.
template <typename T>
constexpr bool kAlwaysShown =
    std::same_as<T, Ref> || std::same_as<T, DType> || std::same_as<T, ConvolutionKind> ||
    std::same_as<T, AttentionKind> || std::same_as<T, RecurrentKind> || std::same_as<T, RecurrentCell> ||
    std::same_as<T, std::vector<Ref>> || std::same_as<T, std::string>;

std::string in_quotes(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (static_cast<unsigned char>(c) < 0x20)
      result += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
    else
      result += c;
  }
  return result + '"';
}

// Before the text of a name; nothing where it is the model's.
std::string role_text(const Name& of) { return of.is(Role::model) ? "" : std::string(name(of.role)) + " "; }

std::string text_of(int64_t value) { return std::to_string(value); }
std::string text_of(double value) { return fmt::format("{}", value); }
std::string text_of(bool value) { return value ? "yes" : "no"; }
std::string text_of(DType value) { return std::string(name(value)); }
std::string text_of(ConvolutionKind value) { return std::string(name(value)); }
std::string text_of(AttentionKind value) { return std::string(name(value)); }
std::string text_of(RecurrentKind value) { return std::string(name(value)); }
std::string text_of(RecurrentCell value) { return std::string(name(value)); }
std::string text_of(const std::string& value) { return in_quotes(value); }
std::string text_of(Ref value) { return fmt::format("{}+{}", value.buffer, value.offset); }
std::string text_of(const std::optional<Ref>& value) { return text_of(*value); }
std::string text_of(const Shape& value) { return to_string(value); }
std::string text_of(const std::array<int64_t, 3>& value) { return fmt::format("[{}]", fmt::join(value, ",")); }
std::string text_of(const std::vector<Ref>& value) {
  std::string text = "[";
  for (const Ref& ref : value) text += (text.size() > 1 ? "," : "") + text_of(ref);
  return text + "]";
}

template <typename Call>
constexpr std::string_view kCallName = "";
template <>
constexpr std::string_view kCallName<KernelLaunch> = "kernel";
template <>
constexpr std::string_view kCallName<Gemm> = "gemm";
template <>
constexpr std::string_view kCallName<Convolution> = "convolution";
template <>
constexpr std::string_view kCallName<Attention> = "attention";
template <>
constexpr std::string_view kCallName<Recurrent> = "recurrent";
template <>
constexpr std::string_view kCallName<Copy> = "copy";

template <typename Call>
std::string print_fields(const Call& call) {
  std::vector<std::string> defaults, fields;
  const Call untouched;
  visit_fields(untouched, [&](const char*, const auto& value) {
    using Field = std::remove_cvref_t<decltype(value)>;
    const bool shown = kAlwaysShown<Field> || std::same_as<Field, std::optional<Ref>>;
    defaults.push_back(shown ? "" : text_of(value));
  });
  size_t index = 0;
  visit_fields(call, [&](const char* key, const auto& value) {
    const std::string& skipped = defaults[index++];
    if constexpr (std::same_as<std::remove_cvref_t<decltype(value)>, std::optional<Ref>>)
      if (!value) return;
    const std::string text = text_of(value);
    if (text != skipped) fields.push_back(fmt::format("{}={}", key, text));
  });
  return fmt::format("{}", fmt::join(fields, " "));
}

// --- parsing

class Line {
 public:
  // Words are separated by blanks; blanks inside quotes do not separate.
  explicit Line(std::string_view text) {
    for (size_t i = 0; i < text.size();) {
      if (text[i] == ' ') {
        ++i;
        continue;
      }
      const size_t begin = i;
      for (bool in_quotes = false; i < text.size() && (in_quotes || text[i] != ' '); ++i) {
        if (text[i] == '"') in_quotes = !in_quotes;
        if (text[i] == '\\' && in_quotes && i + 1 < text.size()) ++i;
      }
      words_.push_back(text.substr(begin, i - begin));
    }
  }

  bool empty() const { return words_.empty(); }
  std::string_view take(const char* what) {
    if (next_ == words_.size()) throw Error(fmt::format("{} expected at the end of the line", what));
    return words_[next_++];
  }
  // The value of the next word if it is key=value with this key.
  std::optional<std::string_view> take_field(std::string_view key) {
    if (next_ == words_.size()) return std::nullopt;
    const std::string_view word = words_[next_];
    if (!word.starts_with(key) || word.size() <= key.size() || word[key.size()] != '=') return std::nullopt;
    ++next_;
    return word.substr(key.size() + 1);
  }
  std::string next() const {
    return next_ == words_.size() ? "the end of the line" : fmt::format("'{}'", words_[next_]);
  }
  void expect_end() const {
    if (next_ != words_.size()) throw Error("unexpected " + next());
  }

 private:
  std::vector<std::string_view> words_;
  size_t next_ = 0;
};

void parse(std::string_view text, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw Error(fmt::format("a 64-bit integer expected, found '{}'", text));
}

void parse(std::string_view text, double& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    throw Error(fmt::format("a finite number expected, found '{}'", text));
}

void parse(std::string_view text, bool& value) {
  if (text != "yes" && text != "no") throw Error(fmt::format("yes or no expected, found '{}'", text));
  value = text == "yes";
}

void parse(std::string_view text, DType& value) {
  const std::optional<DType> type = parse_dtype(text);
  if (!type) throw Error(fmt::format("an element type expected, found '{}'", text));
  value = *type;
}

template <typename Enum>
void parse_name(std::string_view text, Enum last, const char* what, Enum& value) {
  for (int i = 0; i <= static_cast<int>(last); ++i) {
    value = static_cast<Enum>(i);
    if (name(value) == text) return;
  }
  throw Error(fmt::format("{} expected, found '{}'", what, text));
}

void parse(std::string_view text, ConvolutionKind& value) {
  parse_name(text, ConvolutionKind::filter_grad, "forward, data_grad or filter_grad", value);
}

void parse(std::string_view text, AttentionKind& value) {
  parse_name(text, AttentionKind::backward, "forward or backward", value);
}

void parse(std::string_view text, RecurrentKind& value) {
  parse_name(text, RecurrentKind::backward, "forward or backward", value);
}

void parse(std::string_view text, RecurrentCell& value) {
  parse_name(text, RecurrentCell::relu, "lstm, gru, tanh or relu", value);
}

void parse(std::string_view text, std::string& value) {
  value.clear();
  if (text.size() < 2 || text.front() != '"' || text.back() != '"')
    throw Error(fmt::format("a quoted name expected, found '{}'", text));
  text = text.substr(1, text.size() - 2);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"') throw Error("a quote inside a quoted name needs a backslash");
    if (text[i] != '\\') {
      value += text[i];
      continue;
    }
    if (++i == text.size()) throw Error("a quoted name ends in a backslash");
    if (text[i] != 'x') {
      value += text[i];
      continue;
    }
    unsigned code = 0;
    const char* const digits = text.data() + i + 1;
    if (i + 2 >= text.size() || std::from_chars(digits, digits + 2, code, 16).ptr != digits + 2)
      throw Error("two hexadecimal digits expected after \\x");
    value += static_cast<char>(code);
    i += 2;
  }
}

void parse(std::string_view text, Ref& value) {
  const size_t plus = text.find('+');
  int64_t buffer = -1;
  if (plus != std::string_view::npos) parse(text.substr(0, plus), buffer);
  if (buffer < 0 || buffer > INT32_MAX) throw Error(fmt::format("buffer+offset expected, found '{}'", text));
  value.buffer = static_cast<int32_t>(buffer);
  parse(text.substr(plus + 1), value.offset);
}

void parse(std::string_view text, std::optional<Ref>& value) { parse(text, value.emplace()); }

template <typename Element>
void parse(std::string_view text, std::vector<Element>& value) {
  value.clear();
  if (text.size() < 2 || text.front() != '[' || text.back() != ']')
    throw Error(fmt::format("a list in brackets expected, found '{}'", text));
  for (text = text.substr(1, text.size() - 2); !text.empty();) {
    const size_t comma = std::min(text.find(','), text.size());
    parse(text.substr(0, comma), value.emplace_back());
    if (comma + 1 == text.size()) throw Error("a list ends in a comma");
    text = text.substr(std::min(comma + 1, text.size()));
  }
}

void parse(std::string_view text, std::array<int64_t, 3>& value) {
  Shape list;
  parse(text, list);
  if (list.size() != value.size()) throw Error(fmt::format("three numbers expected, found '{}'", text));
  std::ranges::copy(list, value.begin());
}

void parse(std::string_view text, TensorType& value) {
  const size_t bracket = std::min(text.find('['), text.size());
  parse(text.substr(0, bracket), value.dtype);
  parse(text.substr(bracket), value.shape);
}

Buffer parse_buffer(Line& line, size_t expected_index) {
  int64_t index = 0;
  parse(line.take("buffer number"), index);
  if (index != static_cast<int64_t>(expected_index))
    throw Error(fmt::format("buffer {} expected, found buffer {}", expected_index, index));
  Buffer buffer;
  parse_name(line.take("buffer kind"), BufferKind::scratch, "input, output, state or scratch", buffer.kind);
  parse(line.take("buffer type"), buffer.type);
  const std::string_view word = line.take("buffer name");
  if (const std::optional<Role> role = parse_role(word)) {
    buffer.name.role = *role;
    parse(line.take("buffer name"), buffer.name.text);
  } else {
    parse(word, buffer.name.text);
  }
  return buffer;
}

template <typename Call>
Call parse_fields(Line& line) {
  Call call;
  visit_fields(call, [&](const char* key, auto& value) {
    const std::optional<std::string_view> text = line.take_field(key);
    if (!text && kAlwaysShown<std::remove_cvref_t<decltype(value)>>)
      throw Error(fmt::format("{}=... expected next, found {}", key, line.next()));
    if (!text) return;
    try {
      parse(*text, value);
    } catch (const Error& error) {
      throw Error(fmt::format("{}: {}", key, error.what()));
    }
  });
  return call;
}

Step parse_step(std::string_view call, Line& line) {
  Step step;
  parse(line.take("origin"), step.origin);
  if (call == kCallName<KernelLaunch>)
    step.call = parse_fields<KernelLaunch>(line);
  else if (call == kCallName<Gemm>)
    step.call = parse_fields<Gemm>(line);
  else if (call == kCallName<Convolution>)
    step.call = parse_fields<Convolution>(line);
  else if (call == kCallName<Attention>)
    step.call = parse_fields<Attention>(line);
  else if (call == kCallName<Recurrent>)
    step.call = parse_fields<Recurrent>(line);
  else if (call == kCallName<Copy>)
    step.call = parse_fields<Copy>(line);
  else
    throw Error(fmt::format(
        "program, buffer, kernel, gemm, convolution, attention, recurrent or copy expected, found '{}'", call));
  return step;
}

}  // namespace

std::string print(const Program& program) {
  std::string text = fmt::format("program {}\n", in_quotes(program.name));
  size_t type_width = 0, origin_width = 0;
  for (const Buffer& buffer : program.buffers) type_width = std::max(type_width, to_string(buffer.type).size());
  for (const Step& step : program.steps) origin_width = std::max(origin_width, in_quotes(step.origin).size());
  origin_width = std::min<size_t>(origin_width, 40);
  for (size_t i = 0; i < program.buffers.size(); ++i) {
    const Buffer& buffer = program.buffers[i];
    text += fmt::format("buffer {:4} {:7} {:{}} {}{}\n", i, name(buffer.kind), to_string(buffer.type), type_width,
                        role_text(buffer.name), in_quotes(buffer.name.text));
  }
  for (const Step& step : program.steps)
    std::visit(
        [&]<typename Call>(const Call& call) {
          text += fmt::format("{:11} {:{}} {}\n", kCallName<Call>, in_quotes(step.origin), origin_width,
                              print_fields(call));
        },
        step.call);
  return text;
}

Program parse_program(std::string_view text) {
  Program program;
  bool named = false;
  std::vector<int> buffer_lines, step_lines;
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    Line line(text.substr(0, end));
    text = text.substr(std::min(end + 1, text.size()));
    if (line.empty()) continue;
    try {
      const std::string_view word = line.take("a word");
      if (named != (word != "program")) throw Error(named ? "a second program" : "program \"name\" expected first");
      if (word == "program") {
        parse(line.take("program name"), program.name);
        named = true;
      } else if (word == "buffer") {
        program.buffers.push_back(parse_buffer(line, program.buffers.size()));
        buffer_lines.push_back(number);
      } else {
        program.steps.push_back(parse_step(word, line));
        step_lines.push_back(number);
      }
      line.expect_end();
    } catch (const Error& error) {
      throw Error(fmt::format("line {}: {}", number, error.what()));
    }
  }
  if (!named) throw Error("line 1: program \"name\" expected, found nothing");
  check(program, {[&](size_t i) { return fmt::format("line {}", buffer_lines[i]); },
                  [&](size_t i) { return fmt::format("line {}", step_lines[i]); }});
  return program;
}

}  // namespace halfstep
