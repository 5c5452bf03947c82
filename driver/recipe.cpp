#include "driver/recipe.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <charconv>

#include "base/error.h"
#include "base/file.h"

namespace halfstep {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= text.size() && !text.empty()) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// Reading and writing one value of each kind.
void read(std::string& to, const std::string& text) { to = text; }

void read(int64_t& to, const std::string& text) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
  if (error != std::errc() || end != text.data() + text.size())
    throw Error("a whole number expected, found '" + text + "'");
}

void read(double& to, const std::string& text) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
  if (error != std::errc() || end != text.data() + text.size()) throw Error("a number expected, found '" + text + "'");
}

void read(bool& to, const std::string& text) {
  if (text != "true" && text != "false") throw Error("true or false expected, found '" + text + "'");
  to = text == "true";
}

template <typename T>
void read(std::optional<T>& to, const std::string& text) {
  read(to.emplace(), text);
}

template <typename T>
void read(std::vector<T>& to, const std::string& text) {
  to.clear();
  for (const std::string& part : split(text, ',')) read(to.emplace_back(), part);
}

// x=64,3,224,224;y=64,10 or 64,3,224,224 for the only input.
void read(std::map<std::string, Shape>& to, const std::string& text) {
  for (const std::string& part : split(text, ';')) {
    const size_t equals = part.find('=');
    read(to[equals == std::string::npos ? "" : part.substr(0, equals)],
         part.substr(equals == std::string::npos ? 0 : equals + 1));
  }
}

std::string write(const std::string& v) { return v; }
std::string write(int64_t v) { return std::to_string(v); }
std::string write(double v) { return fmt::format("{}", v); }
std::string write(bool v) { return v ? "true" : "false"; }
template <typename T>
std::string write(const std::optional<T>& v) {
  return v ? write(*v) : "";
}
template <typename T>
std::string write(const std::vector<T>& v) {
  std::string text;
  for (const T& part : v) text += (text.empty() ? "" : ",") + write(part);
  return text;
}
std::string write(const std::map<std::string, Shape>& v) {
  std::string text;
  for (const auto& [name, shape] : v)
    text += (text.empty() ? "" : ";") + (name.empty() ? "" : name + "=") + write(shape);
  return text;
}

// Words separated by | in `choices`.
void expect_choice(const std::string& choices, const std::string& text) {
  const std::vector<std::string> known = split(choices, '|');
  for (const std::string& choice : known)
    if (choice == text) return;
  const std::string near = nearest(text, known);
  throw Error("one of " + choices + " expected, found '" + text + "'" +
              (near.empty() ? "" : "; did you mean '" + near + "'?"));
}

template <auto Member>
RecipeKey key(std::string name, std::string group, std::string unit, std::string help) {
  return {std::move(name),
          std::move(group),
          std::move(help),
          std::move(unit),
          [](Recipe& r, const std::string& text) { read(r.*Member, text); },
          [](const Recipe& r) { return write(r.*Member); }};
}

const std::vector<RecipeKey>& keys() {
  static const std::vector<RecipeKey> table{
      key<&Recipe::model>("model", "model", "PATH", "the ONNX file, or a directory that `compile` made"),
      key<&Recipe::data>("data", "model", "PATH", "training data: IDX directory, x=FILE,y=FILE, or FILE.npz"),
      key<&Recipe::test_data>("test_data", "model", "PATH",
                              "held-out data; default: the test part of an IDX directory"),
      key<&Recipe::init>("init", "model", "from_file|absent|fresh",
                         "where weights come from; absent: fresh ones where the file has none"),
      key<&Recipe::shapes>("shape", "model", "[NAME=]D,D,...", "an input's shape; -1 leaves an axis as exported"),
      key<&Recipe::freeze>("freeze", "model", "LIST", "patterns of parameters that are not trained"),
      key<&Recipe::classes>("classes", "model", "NUMBER",
                            "labels are checked against it; default: from the output's shape"),
      key<&Recipe::scale>("scale", "model", "NUMBER",
                          "the image input takes bytes, multiplied by this in the graph (1/255 = 0.00392157)"),
      key<&Recipe::mean>("mean", "model", "LIST", "subtracted after scaling: one value, or one a channel"),
      key<&Recipe::std>("std", "model", "LIST", "divided by afterwards: one value, or one a channel"),

      key<&Recipe::batch>("batch", "step", "NUMBER", "samples in a step"),
      key<&Recipe::accumulation>("accumulation", "step", "NUMBER", "batches whose gradients make one optimizer step"),
      key<&Recipe::loss>("loss", "step", "softmax_cross_entropy|mean_squared_error|from_graph", "what is minimised"),
      key<&Recipe::output>("output", "step", "NAME", "the output the loss is attached to; default: the only one"),
      key<&Recipe::ignore_index>("ignore_index", "step", "NUMBER", "the label that does not count"),
      key<&Recipe::dropout>("dropout", "step", "NUMBER", "replaces every dropout ratio of the model"),
      key<&Recipe::optimizer>("optimizer", "step", "sgd|adam|adamw", "the update rule"),
      key<&Recipe::momentum>("momentum", "step", "NUMBER", "sgd"),
      key<&Recipe::nesterov>("nesterov", "step", "true|false", "sgd"),
      key<&Recipe::dampening>("dampening", "step", "NUMBER", "sgd"),
      key<&Recipe::weight_decay>("weight_decay", "step", "NUMBER", "all optimizers"),
      key<&Recipe::beta1>("beta1", "step", "NUMBER", "adam, adamw"),
      key<&Recipe::beta2>("beta2", "step", "NUMBER", "adam, adamw"),
      key<&Recipe::epsilon>("epsilon", "step", "NUMBER", "adam, adamw"),
      key<&Recipe::clip_norm>("clip_norm", "step", "NUMBER", "largest global gradient norm; 0: no limit"),

      key<&Recipe::precision>("precision", "precision", "fp16|bf16|fp32", "the low type of autocast; fp32: none"),
      key<&Recipe::preset>("preset", "precision", "default|torch", "the rule set autocast starts from"),
      key<&Recipe::allow>("allow", "precision", "LIST", "operators or node-name patterns that run low"),
      key<&Recipe::deny>("deny", "precision", "LIST", "operators or node-name patterns that run in fp32"),
      key<&Recipe::infer>("infer", "precision", "LIST", "operators or node-name patterns that follow their operands"),
      key<&Recipe::loss_scale>("loss_scale", "precision", "dynamic|fixed|none",
                               "how gradients are kept out of fp16's underflow"),
      key<&Recipe::initial_scale>("initial_scale", "precision", "NUMBER", "the first, or fixed, loss scale"),
      key<&Recipe::growth_factor>("growth_factor", "precision", "NUMBER", "dynamic scaling"),
      key<&Recipe::backoff_factor>("backoff_factor", "precision", "NUMBER", "dynamic scaling"),
      key<&Recipe::growth_interval>("growth_interval", "precision", "NUMBER",
                                    "steps without overflow before the scale grows"),
      key<&Recipe::min_scale>("min_scale", "precision", "NUMBER", "the scale's floor"),
      key<&Recipe::overflow_limit>("overflow_limit", "precision", "NUMBER",
                                   "overflows in a row at the floor before training stops"),

      key<&Recipe::epochs>("epochs", "run", "NUMBER", "passes over the training data"),
      key<&Recipe::max_steps>("max_steps", "run", "NUMBER", "stops earlier; 0: no limit"),
      key<&Recipe::learning_rate>("learning_rate", "run", "NUMBER", "the full rate"),
      key<&Recipe::schedule>("schedule", "run", "constant|step|cosine", "how the rate changes"),
      key<&Recipe::warmup_steps>("warmup_steps", "run", "NUMBER", "steps over which the rate rises"),
      key<&Recipe::step_epochs>("step_epochs", "run", "NUMBER", "schedule step: epochs between changes"),
      key<&Recipe::gamma>("gamma", "run", "NUMBER", "schedule step: factor at each change"),
      key<&Recipe::final_rate>("final_rate", "run", "NUMBER", "schedule cosine: the last rate"),
      key<&Recipe::seed>("seed", "run", "NUMBER", "of data order, dropout and fresh weights"),
      key<&Recipe::device>("device", "run", "auto|cpu|cuda", "where the step runs"),
      key<&Recipe::architecture>("architecture", "run", "NAME",
                                 "sm_80 ..., or an LLVM CPU name; default: the device at hand"),
      key<&Recipe::threads>("threads", "run", "NUMBER", "CPU threads; 0: all cores"),
      key<&Recipe::autotune>("autotune", "run", "NUMBER", "library algorithms timed per shape on CUDA"),
      key<&Recipe::tf32>("tf32", "run", "true|false", "let fp32 contractions use TF32 on CUDA"),
      key<&Recipe::out>("out", "run", "PATH", "directory for checkpoints, metrics and the trained model"),
      key<&Recipe::resume>("resume", "run", "PATH", "a checkpoint, or a directory of them, to continue from"),
      key<&Recipe::checkpoint_every>("checkpoint_every", "run", "NUMBER",
                                     "steps between checkpoints besides one an epoch; 0: none"),
      key<&Recipe::keep>("keep", "run", "NUMBER", "checkpoints that stay; 0: all"),
      key<&Recipe::metrics_every>("metrics_every", "run", "NUMBER", "one step in so many goes to the metrics file"),
  };
  return table;
}

const RecipeKey* find_key(const std::string& name) {
  for (const RecipeKey& k : keys())
    if (k.name == name) return &k;
  return nullptr;
}

std::string unknown_key(const std::string& name) {
  std::vector<std::string> names;
  for (const RecipeKey& k : keys()) names.push_back(k.name);
  const std::string near = nearest(name, names);
  return "no key '" + name + "'" + (near.empty() ? "" : "; did you mean '" + near + "'?");
}

std::string toml_text(const toml::node& node, const std::string& source) {
  if (const auto* s = node.as_string()) return s->get();
  if (const auto* i = node.as_integer()) return std::to_string(i->get());
  if (const auto* d = node.as_floating_point()) return fmt::format("{}", d->get());
  if (const auto* b = node.as_boolean()) return b->get() ? "true" : "false";
  if (const auto* a = node.as_array()) {
    std::string text;
    for (const toml::node& element : *a) text += (text.empty() ? "" : ",") + toml_text(element, source);
    return text;
  }
  throw Error("a number, text, truth value or list expected");
}

bool is_path(const RecipeKey& k) { return k.unit == "PATH" && k.name != "out" && k.name != "resume"; }

// Paths inside name=FILE lists too.
std::string relative_to(const std::filesystem::path& base, const std::string& value) {
  std::string result;
  for (const std::string& part : split(value, ',')) {
    const size_t equals = part.find('=');
    const std::string prefix = equals == std::string::npos ? "" : part.substr(0, equals + 1);
    const std::filesystem::path path = part.substr(prefix.size());
    result += (result.empty() ? "" : ",") + prefix + (path.is_absolute() ? path : base / path).string();
  }
  return result;
}

}  // namespace

std::span<const RecipeKey> recipe_keys() { return keys(); }

void set_key(Recipe& recipe, const std::string& name, const std::string& value) {
  const RecipeKey* k = find_key(name);
  if (!k) throw Error(unknown_key(name));
  try {
    if (k->unit.find('|') != std::string::npos) expect_choice(k->unit, value);
    k->set(recipe, value);
  } catch (const Error& e) {
    throw Error(name + ": " + e.what());
  }
}

void read_recipe(Recipe& recipe, const std::filesystem::path& path) {
  constexpr int64_t kLargestRecipe = 1 << 20;
  const std::string text = read_file(path, kLargestRecipe);
  toml::table table;
  try {
    table = toml::parse(text, path.string());
  } catch (const toml::parse_error& e) {
    throw Error(fmt::format("recipe '{}', line {}: {}", path.string(), e.source().begin.line, e.description()));
  }
  Problems problems;
  for (const auto& [name, node] : table) try {
      const std::string key_name(name.str());
      const RecipeKey* k = find_key(key_name);
      std::string value = k ? toml_text(node, text) : "";
      if (k && is_path(*k) && !value.empty()) value = relative_to(path.parent_path(), value);
      set_key(recipe, key_name, value);
    } catch (const Error& e) {
      problems.add(fmt::format("recipe '{}', line {}: {}", path.string(), node.source().begin.line, e.what()));
    }
  problems.throw_if_any();
}

std::string to_toml(const Recipe& recipe) {
  std::string text;
  for (const RecipeKey& k : keys()) {
    const std::string value = k.get(recipe);
    if (value.empty()) continue;
    const bool bare = k.unit == "NUMBER" || k.unit == "true|false";
    std::string quoted;
    for (char c : value) quoted += (c == '"' || c == '\\') ? std::string("\\") + c : std::string(1, c);
    text += k.name + " = " + (bare ? value : "\"" + quoted + "\"") + "\n";
  }
  return text;
}

}  // namespace halfstep
