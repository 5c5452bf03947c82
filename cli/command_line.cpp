#include "cli/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <sstream>

#include "base/error.h"
#include "base/version.h"
#include "cli/app_texts.h"
#include "cli/output.h"
#include "training/grad_scaler.h"
#include "training/recipe_keys.h"
#include "training/run_setup.h"

namespace halfstep {
namespace {

constexpr const char* kAbout = "compiles ONNX models for training in automatic mixed precision, and trains them";
constexpr const char* kFooter = R"(trust:
  A compiled step holds native code: run none that you would not run as a program. One that other users may write is
  refused; --trust checks who signed it. Models, data, checkpoints and recipes may come from anyone.

exit codes:
    0  done
    1  the model, the data, an option or the machine is at fault
    2  the command line is wrong
    3  a bug in halfstep
    4  check or doctor found problems
    5  diff found differences
  130  stopped by SIGINT after writing a checkpoint (129: by SIGHUP, 143: by SIGTERM)
)";

// One row per command: the only place that lists them.
struct Command {
  const char* name;
  const char* help;
  const char* operand;  // nullptr: none
  const char* examples;
  // Groups of the recipe's keys that it reads, and single keys of others; what it does not read it takes all the same,
  // so that one list of options serves several commands.
  const char* groups = "";
  const char* keys = "";
};
constexpr const char* kEveryGroup = "model data step precision target run";
constexpr const char* kOfEvaluation = "seed threads autotune tf32 trust ema_weights measures per_class class_names";
constexpr const char* kShells[] = {"bash", "zsh", "fish"};
constexpr const char* kModel = "an ONNX file or a recipe (.toml)";
constexpr const char* kModelOrStep = "an ONNX file, a recipe (.toml), or a directory that `compile` made";
constexpr const char* kSide =
    "each a preset, a policy file, an ONNX file, a recipe, a compiled step, or what inspect --json wrote (.json)";
constexpr Command kCommands[] = {
    {"info", "devices and library versions", nullptr,
     "  halfstep info\n"
     "  halfstep info --json\n"},
    {"check", "every problem that keeps a model from training, at once", kModel,
     "  halfstep check models/lenet.onnx\n"
     "  halfstep check model.onnx --init                          its weights are not there yet\n",
     "model step precision", "device"},
    {"inspect", "precision of every node, and the reason", kModel,
     "  halfstep inspect models/lenet.onnx\n"
     "  halfstep inspect models/lenet.toml --deny 'node_linear*'  the same with two layers kept in fp32\n",
     "model step precision target", "learning_rate seed"},
    {"diff", "which nodes two assignments of precision give different types, and why", nullptr,
     "  halfstep diff torch halfstep --model models/lenet.onnx    two presets\n"
     "  halfstep diff before.json models/lenet.toml               what inspect --json wrote, and a recipe as it is "
     "now\n",
     "model step precision target"},
    {"compile", "compile the training step into a directory", kModel,
     "  halfstep compile models/lenet.toml -o lenet.step          then: halfstep train lenet.step\n"
     "  halfstep compile models/lenet.onnx --stop-after autocast  print the graph after a pass\n",
     kEveryGroup},
    {"train", "train a model", kModelOrStep,
     "  halfstep train models/lenet.toml --epochs 5               as a recipe says, with one key changed\n"
     "  halfstep train models/lenet.toml --resume halfstep-out/checkpoints\n",
     kEveryGroup},
    {"eval", "loss and accuracy over a data set", kModelOrStep,
     "  halfstep eval models/lenet.toml                           the weights of the model's file\n"
     "  halfstep eval models/lenet.toml --checkpoint halfstep-out/checkpoints\n",
     "model data step precision target", kOfEvaluation},
    {"gradients", "one batch's loss, outputs and gradients, for comparison with another framework", kModel,
     "  halfstep gradients model.onnx --data batch.npz --batch 8 -o gradients.safetensors\n"
     "  halfstep gradients model.onnx --data batch.npz --batch 8 --precision fp32 --dropout 0.1 -o "
     "with_dropout.safetensors\n",
     "model data step precision target", "seed shuffle threads autotune tf32 trust"},
    {"predict", "outputs of a data set as a file: .npz, .npy, .csv or .jsonl", kModelOrStep,
     "  halfstep predict model.onnx --data images=new.npy --precision fp32 -o outputs.npz\n"
     "  halfstep predict recipe.toml --checkpoint DIR --data new.npz --top 5 --probabilities -o top.csv\n",
     "model data step precision target", "seed threads autotune tf32 trust class_names"},
    {"export", "put trained weights back into the ONNX model, write it in mixed precision, or its training step as one",
     kModelOrStep,
     "  halfstep export models/lenet.onnx --checkpoint halfstep-out/checkpoints -o trained.onnx\n"
     "  halfstep export model.onnx --precision fp16 -o mixed.onnx               in mixed precision, with casts\n",
     "model step precision target", "learning_rate seed trust ema_weights class_names"},
    {"doctor", "what precision does to a training, tensor by tensor, and the fewest changes that repair it", kModel,
     "  halfstep doctor models/lenet.toml --steps 20              fp32 and AMP side by side on the recipe's data\n"
     "  halfstep doctor model.onnx --check './evaluate.sh {policy}'   the fewest nodes in fp32 with which it "
     "succeeds\n",
     kEveryGroup},
    {"report", "what a run left, as one HTML page", "the run's output directory",
     "  halfstep report halfstep-out                    writes halfstep-out/report.html\n"
     "  halfstep report run -o report.html              curves, epochs, confusion, precision, configuration\n"},
    {"bench", "step time, throughput, memory and compile time", kModelOrStep,
     "  halfstep bench models/lenet.toml\n"
     "  halfstep bench models/resnet18.toml --batch 32 --calls    with a row for each call of the step\n",
     "model step precision target", "learning_rate seed threads autotune tf32 trust"},
    {"completion", "what a shell completes of these commands, as a script for it", nullptr,
     "  source <(halfstep completion bash)                        in ~/.bashrc, where no package has installed it\n"
     "  halfstep completion fish > ~/.config/fish/completions/halfstep.fish\n"},
    {"man", "the manual page, in troff", nullptr,
     "  halfstep man | man -l -                                   read it\n"
     "  halfstep man > halfstep.1\n"},
};

const Command& command_named(const std::string& name) {
  return *std::ranges::find_if(kCommands, [&](const Command& c) { return c.name == name; });
}

// Puts two examples before everything else.
class ExamplesFirst final : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override {
    std::string text = CLI::Formatter::make_help(app, std::move(name), mode);
    for (size_t at; (at = text.find("\n\n\n")) != std::string::npos;) text.erase(at, 1);
    return text;
  }
  std::string make_description(const CLI::App* app) const override {
    if (!app->get_parent())
      return fmt::format(
          "halfstep {} {}\n\nexamples:\n{}{}\n", version(), kAbout,
          "  halfstep train models/lenet.toml --epochs 5  train as a recipe says, with one key changed\n",
          "  halfstep inspect models/lenet.onnx           which precision each node gets, and why\n");
    return fmt::format("{}\n\nexamples:\n{}\n", app->get_description(), command_named(app->get_name()).examples);
  }
};

// Of an optimizer, by its recipe key; nullptr: it is none.
const HyperParameter* find_parameter(std::string_view name) {
  for (const OptimizerRow& row : optimizers())
    if (const HyperParameter* found = row.find(name)) return found;
  return nullptr;
}

const RecipeKey* recipe_key(std::string name) {
  std::ranges::replace(name, '-', '_');
  const auto found = std::ranges::find(recipe_keys(), name, &RecipeKey::name);
  return found == recipe_keys().end() ? nullptr : &*found;
}

// Keys may be written with dashes, and some as the field has them: --learning-rate, --lr.
std::string canonical_argument(const std::string& argument) {
  if (!argument.starts_with("--")) return argument;
  const size_t end = std::min(argument.find('='), argument.size());
  std::string name = argument.substr(2, end - 2);
  std::ranges::replace(name, '-', '_');
  const RecipeKey* key = recipe_key(key_of_option(name));
  return key ? "--" + key->name + argument.substr(end) : argument;
}

// What an option means without a value; what follows it may be the model.
std::string value_if_alone(const std::string& option, const std::string& next) {
  // A value that is misspelt is none that stands behind it.
  if (option == "--init") return nearest(next, {"from_file", "absent", "fresh"}).empty() ? "absent" : "";
  const RecipeKey* key = option.starts_with("--") ? recipe_key(option.substr(2)) : nullptr;
  if (!key || key->unit != "true|false") return "";
  static const std::vector<std::string> kMeant{"true", "false", "True", "False", "yes", "no", "on", "off", "1", "0"};
  return std::ranges::find(kMeant, next) == kMeant.end() ? "true" : "";
}

std::vector<std::string> canonical_arguments(int argc, const char* const* argv) {
  std::vector<std::string> arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string option = canonical_argument(argv[i]);
    const std::string value = value_if_alone(option, i + 1 < argc ? argv[i + 1] : "");
    arguments.push_back(value.empty() ? option : option + "=" + value);
  }
  return arguments;
}

bool names(std::string_view list, std::string_view word) {
  return (" " + std::string(list) + " ").find(" " + std::string(word) + " ") != std::string::npos;
}

void add_recipe_keys(CLI::App& command, CommandLine& line, const Command& row) {
  static const Recipe usual;
  for (const RecipeKey& key : recipe_keys()) {
    if (key.name == "model") continue;
    std::string spellings = "--" + key.name;
    for (const auto& [alias, name] : key_aliases())
      if (name == key.name && alias != "batch_size") spellings += ",--" + std::string(alias);
    // Of an optimizer's parameters each row has its own.
    const std::string value = find_parameter(key.name) == nullptr ? key.get(usual) : "";
    CLI::Option* option = command.add_option_function<std::string>(
        spellings, [&line, name = key.name](const std::string& given) { line.keys.emplace_back(name, given); },
        key.help + (value.empty() ? "" : " [" + value + "]"));
    const bool is_read = names(row.groups, key.group) || names(row.keys, key.name);
    option->type_name(key.unit)->group(!is_read ? ""
                                       : key.scope == RecipeKey::compiled
                                           ? key.group + " (fixed when a step is compiled)"
                                           : key.group);
    key.unit.ends_with(",...") ? option->join(',') : option->take_last();  // a list may be given piece by piece
  }
}

std::string positive(const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  if (whole && value > 0) return "";
  return whole ? fmt::format("at least 1 expected, found {}", value)
               : fmt::format("a whole number expected, found '{}'", text);
}

void add_compiler_options(CLI::App& command, CommandOptions& options) {
  command
      .add_option("--dump", options.compile.dump,
                  "write what each pass changed, the kernels and the programs into this directory")
      ->type_name("DIR")
      ->group("compiler");
  command
      .add_flag_callback(
          "--time-passes", [&options] { options.timing = CommandOptions::time_passes; }, "print each pass's time")
      ->group("compiler");
}

void add_inspect_options(CLI::App& command, CommandOptions& options) {
  InspectOptions& inspect = options.inspect;
  command.add_flag_callback(
      "--all", [&options] { options.detail = CommandOptions::all; }, "a row for each node of the IR");
  command.add_flag_callback(
      "--parameters", [&inspect] { inspect.subject = InspectOptions::parameters; },
      "a row for each parameter: shape, whether it is trained and decayed, where it starts");
  command.add_option("--nodes", inspect.nodes, "only rows of nodes whose names match this (* ? [])")
      ->type_name("PATTERN");
  command
      .add_option("--only", inspect.only,
                  "only these rows: of nodes that write the low type, or f32; that were folded; every cast; the "
                  "backward and the optimizer; weights beyond the type's range")
      ->type_name("low|fp32|folded|casts|backward|weights,...")
      ->delimiter(',')
      ->check(CLI::IsMember({"low", "fp32", "folded", "casts", "backward", "weights"}));
}

void add_inspect_files(CLI::App& command, InspectOptions& inspect) {
  command.add_option("--html", inspect.html, "write the report as one HTML page with the graph")->type_name("FILE");
  command.add_option("--evidence", inspect.evidence, "with ranges that doctor measured, for the page")
      ->type_name("FILE");
  command.add_option("--model-explorer", inspect.model_explorer, "write node data for Model Explorer")
      ->type_name("FILE");
  command.add_option("--annotate", inspect.annotate, "write the model with precision and reason beside its nodes")
      ->type_name("FILE");
}

void add_doctor_options(CLI::App& command, CommandOptions& options) {
  command.add_option("--steps", options.steps, "steps that are compared; default 20")
      ->type_name("NUMBER")
      ->check(positive);
  command.add_option("--random", options.random_steps, "so many steps on random inputs, without data")
      ->type_name("NUMBER")
      ->check(positive);
  command.add_option("-o,--target", options.target, "the policy file to write; default doctor.policy.toml")
      ->type_name("FILE");
  command
      .add_option("--check", options.check,
                  "find the fewest nodes in fp32 with which this command succeeds; it gets the policy file as {policy} "
                  "and in HALFSTEP_POLICY")
      ->type_name("COMMAND");
  command.add_flag_callback("--all", [&options] { options.detail = CommandOptions::all; }, "a row for each tensor");
  command.add_option("--html", options.inspect.html, "write the report as one HTML page with pictures")
      ->type_name("FILE");
}

void add_command(CLI::App& app, CommandLine& line, const Command& row) {
  CommandOptions& options = line.options;
  const std::string name = row.name;
  CLI::App* command = app.add_subcommand(name, row.help);
  command->add_flag_callback("--json", [&options] { options.format = Format::json; }, "print JSON, also for errors");
  if (row.operand) {
    command->add_option("model", line.model_or_recipe, row.operand)->required()->type_name("PATH");
    if (name != "report")
      command->add_flag_callback(
          "--print-config", [&options] { options.config = CommandOptions::printed; },
          "print the keys that hold, as a recipe, and do nothing else");
  }
  if (name == "completion")
    command->add_option("shell", options.shell, "bash, zsh or fish")
        ->required()
        ->check(CLI::IsMember(std::vector<std::string>(std::begin(kShells), std::end(kShells))));
  if (name == "train") {
    command->add_flag_callback(
        "--quiet", [&options] { options.verbosity = CommandOptions::quiet_run; }, "print only what the run ends with");
    command->add_flag_callback(
        "--verbose", [&options] { options.verbosity = CommandOptions::verbose_run; }, "a line for each step");
  }
  if (name == "compile") {
    command->add_option("-o,--target", options.target, "the directory to write")->type_name("DIR");
    command->add_option("--sign", options.sign, "sign it with this private key (Ed25519, PEM), for runs with --trust")
        ->type_name("FILE");
    command
        ->add_option("--cubins", options.cubins,
                     "with machine code for these GPUs by ptxas, such as sm_80,sm_90; others compile the PTX")
        ->type_name("LIST");
    command->add_option("--stop-after", options.compile.stop_after, "stop after this pass and print its graphs")
        ->type_name("PASS")
        ->group("compiler");
  }
  if (name == "export")
    command->add_option("-o,--target", options.target, "the ONNX file to write")->required()->type_name("FILE");
  if (name == "export") {
    command->add_flag_callback(
        "--training-graph", [&options] { options.exported = CommandOptions::training_graph; },
        "write the training step, with the weights of the model or the checkpoint, for other engines");
    command->add_flag_callback(
        "--training-info", [&options] { options.exported = CommandOptions::training_info; },
        "write an inference model that carries its training step as TrainingInfoProto");
    command->add_flag_callback(
        "--training-operators", [&options] { options.exported = CommandOptions::training_operators; },
        "write the model with loss, Gradient and optimizer as operators (ai.onnx.preview.training): train reads them");
    command
        ->add_option("--outputs", options.outputs,
                     "only these values as outputs, without what leads to none of them: a loss in the graph and its "
                     "labels; without a checkpoint the file's own weights")
        ->delimiter(',')
        ->type_name("NAME,...");
  }
  if (name == "gradients")
    command->add_option("-o,--target", options.target, "the safetensors file to write")->required()->type_name("FILE");
  if (name == "predict") {
    command->add_option("-o,--target", options.target, "the file to write: " + row_format_endings())
        ->required()
        ->type_name("FILE");
    command
        ->add_option("--top", options.top,
                     "of each sample so many classes with the highest scores, in place of all outputs")
        ->type_name("NUMBER")
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
    command->add_flag_callback(
        "--probabilities", [&options] { options.scores = PredictOptions::probabilities; },
        "the softmax, or sigmoid, of outputs that are logits, by the loss");
  }
  if (name == "eval" || name == "predict" || name == "export" || name == "gradients")
    command->add_option("--checkpoint", options.checkpoint, "a checkpoint, or a directory of them: its newest")
        ->type_name("PATH");
  if (name == "train")
    command->add_flag_callback(
        "--trace", [&options] { options.trace = CommandOptions::traced; },
        "also print each stage layer by layer (import, autocast, casts and backward, compile, run) and a loss curve");
  if (name == "inspect") {
    add_inspect_options(*command, options);
    add_inspect_files(*command, options.inspect);
  }
  if (name == "doctor") add_doctor_options(*command, options);
  if (name == "bench" || name == "doctor")
    command
        ->add_option("--tap-elements", options.tap_elements,
                     "count at most so many elements of a tensor by exponent, evenly spread; 0: all; default 1048576")
        ->type_name("NUMBER")
        ->check(CLI::NonNegativeNumber);
  if (name == "bench")
    command->add_flag_callback(
        "--taps", [&options] { options.compile.taps = TapOptions(); },
        "also time the step with the taps that doctor reads");
  if (name == "bench") {
    command->add_option("--repeats", options.repeats, "steps that are timed; default: some seconds' worth")
        ->type_name("NUMBER")
        ->check(positive);
    command->add_flag_callback(
        "--calls", [&options] { options.detail = CommandOptions::all; }, "a row for each call of the step");
    command->add_flag_callback(
        "--explain", [&options] { options.detail = CommandOptions::explained; },
        "calls beside what their bytes, operations and launches should take; what loses most first");
    command->add_option("--trace", options.trace_file, "write the calls' times as a trace for Perfetto")
        ->type_name("FILE");
  }
  if (name == "diff") {
    command->add_option("sides", options.sides, kSide)->required()->expected(2)->type_name("A B");
    command->add_option("--model", options.diff_model, "the model that presets and policies are looked at with")
        ->type_name("PATH");
  }
  if (name == "report")
    command->add_option("-o,--target", options.target, "the page to write; default report.html there")
        ->type_name("FILE");
  if ((!row.operand && name != "diff") || name == "report") return;
  add_recipe_keys(*command, line, row);
  add_compiler_options(*command, options);
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates) {
  const std::string near = nearest(word, candidates);
  return near.empty() ? "" : fmt::format("; did you mean '{}'?", near);
}

// Before CLI11 reads on: its message for a wrong command does not name it.
void check_command(const std::vector<std::string>& arguments) {
  std::vector<std::string> names;
  for (const Command& command : kCommands) names.emplace_back(command.name);
  if (arguments.empty()) throw UsageError(fmt::format("a command is missing: {}", fmt::join(names, ", ")));
  const std::string& first = arguments.front();
  if (!first.starts_with('-') && std::ranges::find(names, first) == names.end())
    throw UsageError(
        fmt::format("no command '{}'{} There are: {}", first, did_you_mean(first, names), fmt::join(names, ", ")));
}

// What CLI11 could not place, with the nearest option of the command.
std::string unexpected(const CLI::App& command, const std::string& argument) {
  if (!argument.starts_with('-')) return fmt::format("'{}' is one argument too many", argument);
  const std::string option = argument.substr(0, argument.find('='));
  std::vector<std::string> names;
  for (const CLI::Option* o : command.get_options()) names.push_back(o->get_name());
  return fmt::format("no option '{}'{}", option, did_you_mean(option, names));
}

std::string usage_message(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<CLI::App*> commands = app.get_subcommands();
  const CLI::App& command = commands.empty() ? app : *commands.front();
  const std::string place = commands.empty() ? "halfstep" : "halfstep " + command.get_name();
  std::string text = error.what();
  if (const auto* extras = dynamic_cast<const CLI::ExtrasError*>(&error); extras && !command.remaining().empty())
    text = unexpected(command, command.remaining().front());
  else if (dynamic_cast<const CLI::RequiredError*>(&error) && text.starts_with("model"))
    text += std::string(": ") + command_named(command.get_name()).operand;
  else if (text.starts_with("sides"))
    text = std::string("two sides are compared: ") + kSide;
  else if (dynamic_cast<const CLI::RequiredError*>(&error) && text.starts_with("--target"))
    text = "the file to write is missing: name it with -o";
  return fmt::format("{}\nsee {} --help", text, place);
}

}  // namespace

std::optional<CommandLine> parse_command_line(int argc, const char* const* argv) {
  std::vector<std::string> arguments = canonical_arguments(argc, argv);
  check_command(arguments);
  CLI::App app{kAbout, "halfstep"};
  app.formatter(std::make_shared<ExamplesFirst>());
  app.get_formatter()->column_width(35);
  app.footer(kFooter);
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("halfstep ") + version_and_commit());
  CommandLine line;
  for (const Command& command : kCommands) add_command(app, line, command);
  try {
    std::ranges::reverse(arguments);
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) throw UsageError(usage_message(app, error));
    std::ostringstream text;
    app.exit(error, text, text);
    write_out(text.str());
    return std::nullopt;
  }
  line.command = app.get_subcommands().front()->get_name();
  if (line.command == "completion" || line.command == "man") {
    write_out(line.command == "man" ? manual_page(text_of(app, kFooter))
                                    : completion_script(text_of(app, kFooter), line.options.shell));
    return std::nullopt;
  }
  if (line.model_or_recipe.ends_with(".toml")) line.options.recipe_file = line.model_or_recipe;
  // The weights of a run go back into the model as it was, unless a type is asked for.
  const bool has_type = std::ranges::any_of(line.keys, [](const auto& key) { return key.first == "precision"; });
  if (line.command == "export" && line.options.exported == CommandOptions::model && has_type)
    line.options.exported = CommandOptions::mixed_model;
  return line;
}

Recipe recipe_of(const CommandLine& line) {
  Recipe recipe;
  if (line.model_or_recipe.ends_with(".toml"))
    read_recipe(recipe, line.model_or_recipe);
  else
    recipe.model = line.model_or_recipe;
  Problems problems;
  for (const auto& [key, value] : line.keys) try {
      set_key(recipe, key, value);
    } catch (const Error& e) {
      problems.add(std::string("--") + e.what());
    }
  problems.throw_if_any();
  // The data of the command line, not what a recipe held out.
  const auto is_given = [&](const char* key) {
    return std::ranges::any_of(line.keys, [&](const auto& k) { return k.first == key; });
  };
  if (line.command == "predict" && is_given("data") && !is_given("test_data")) predict_given_data(recipe);
  take_batch_from_shape(recipe);
  take_grad_scaler(recipe);
  return recipe;
}

}  // namespace halfstep
