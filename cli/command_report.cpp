#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/page/embed.h"
#include "cli/page/report_page.h"
#include "cli/run_record.h"

namespace halfstep {

ExitCode run_report(const std::string& out, const CommandOptions& options) {
  const RunRecord run = read_run(out);
  const std::string target =
      options.target.empty() ? (std::filesystem::path(out) / "report.html").string() : options.target;
  if (const auto refusal = refusal_of_page(target, "-o")) throw Error(*refusal);
  write_file_atomically(target, report_page(run));
  if (options.format == Format::json)
    print_out("{}\n", json_text({{"report", target}, {"epochs", run.epochs.size()}, {"ended", !run.end.is_null()}}));
  else
    print_err("halfstep: the report is '{}'\n", target);
  return ExitCode::success;
}

}  // namespace halfstep
