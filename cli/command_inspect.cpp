#include <fmt/format.h>
#include <fnmatch.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/inspect_report.h"
#include "cli/output.h"
#include "cli/page/embed.h"
#include "cli/page/page.h"
#include "cli/parameters_report.h"
#include "cli/report.h"
#include "compiler/inspect/inspection_json.h"
#include "compiler/inspect/overlays.h"

namespace halfstep {
namespace {

void check_pattern(const Inspection& inspection, const std::string& pattern) {
  std::vector<std::string> names;
  for (const InspectedNode& node : inspection.nodes) {
    if (fnmatch(pattern.c_str(), node.origin.name->c_str(), 0) == 0) return;
    names.push_back(node.origin.name);
  }
  const std::string near = nearest(pattern, names);
  throw Error(fmt::format("--nodes: no node is called '{}'{}", pattern,
                          near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
}

// What would end it only after all its work.
void check_files(const InspectOptions& options) {
  if (!options.evidence.empty() && options.html.empty())
    throw UsageError("--evidence is for the page: name it with --html");
  if (const auto refusal = options.html.empty() ? std::nullopt : refusal_of_page(options.html)) throw Error(*refusal);
}

void write_files(const Inspection& inspection, const InspectOptions& options) {
  if (!options.html.empty()) {
    const nlohmann::json evidence =
        options.evidence.empty() ? nlohmann::json::object() : read_evidence(options.evidence);
    write_file_atomically(options.html, inspection_page(inspection, evidence));
  }
  if (!options.model_explorer.empty())
    write_file_atomically(options.model_explorer, json_text(model_explorer_data(inspection)) + "\n");
  if (!options.annotate.empty()) write_annotated(inspection, options.annotate);
}

}  // namespace

ExitCode run_inspect(const Recipe& recipe, const CommandOptions& options) {
  if (options.inspect.subject == InspectOptions::parameters) {
    const ParameterReport report = parameter_report(recipe);
    if (options.format == Format::json)
      print_out("{}\n", json_text(parameters_json(recipe, report)));
    else
      print_out("{}", parameters_text(report, output_width()));
    return ExitCode::success;
  }
  check_files(options.inspect);
  const Inspection inspection = inspect(recipe, options.compile);
  if (options.timing == CommandOptions::time_passes) print_err("{}", pass_times_table(inspection.report));
  write_files(inspection, options.inspect);
  if (options.format == Format::json) {
    print_out("{}\n", json_text(inspection_json(inspection)));
    return ExitCode::success;
  }
  if (options.detail == CommandOptions::all) {
    const AutocastReport& rows = inspection.report.precision;
    print_out("{}\n", precision_table({rows.begin(), rows.end()}, output_width()));
  }
  if (!options.inspect.nodes.empty()) check_pattern(inspection, options.inspect.nodes);
  print_out("{}", inspection_text(inspection, options.inspect, output_width()));
  return ExitCode::success;
}

}  // namespace halfstep
