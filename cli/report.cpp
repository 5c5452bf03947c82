#include "cli/report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/bytes_text.h"
#include "cli/output.h"
#include "cli/table.h"

namespace halfstep {

std::string precision_table(const std::vector<NodeRow>& rows, size_t columns) {
  Table table({"node", "operator", "reads", "sums", "writes", "why"});
  for (const NodeRow& row : rows)
    if (row.fate != Fate::constant)
      table.add({row.origin.name, row.op, row.typed ? std::string(name(row.operand)) : "-",
                 row.accumulator ? std::string(name(*row.accumulator)) : "-",
                 row.typed ? std::string(name(row.result)) : "-", row.reason});
  return table.text("  ", columns);
}

nlohmann::json precision_json(const std::vector<NodeRow>& rows) {
  nlohmann::json list = nlohmann::json::array();
  for (const NodeRow& row : rows)
    list.push_back({{"node", row.origin.name},
                    {"phase", name(row.origin.phase)},
                    {"operator", row.op},
                    {"operand", row.typed ? nlohmann::json(name(row.operand)) : nlohmann::json()},
                    {"accumulator", row.accumulator ? nlohmann::json(name(*row.accumulator)) : nlohmann::json()},
                    {"result", row.typed ? nlohmann::json(name(row.result)) : nlohmann::json()},
                    {"reason", row.reason},
                    {"rule", row.rule}});
  return list;
}

std::string pass_times_table(const CompileReport& report) {
  Table table({"pass", "ms", "share"});
  double total = 0;
  for (const PassTime& t : report.times) total += t.seconds;
  for (const PassTime& t : report.times)
    table.add({t.pass, fmt::format("{:.2f}", t.seconds * 1e3), fmt::format("{:.1f}%", 100 * t.seconds / total)});
  table.add({"total", fmt::format("{:.2f}", total * 1e3), "100.0%"});
  return table.text();
}

std::string compile_summary(const CompileReport& r) {
  std::string again;
  if (r.chunking.products > 0)
    again = fmt::format(
        "computed in {} chunks of rows for the memory budget: {} at once instead of {} for {} more "
        "traffic a step\n",
        r.chunking.chunks, bytes_text(r.chunking.bytes), bytes_text(r.chunking.bytes_before),
        bytes_text(r.chunking.more_traffic));
  if (r.recomputation && r.recomputation->values > 0)
    again +=
        fmt::format("computed again for the memory budget: {} values, {} less at once for {} more traffic a step\n",
                    r.recomputation->values, bytes_text(r.recomputation->bytes_before - r.recomputation->bytes),
                    bytes_text(r.recomputation->more_traffic));
  return fmt::format(
      "compiled by preset {} in {:.2f} s to {} calls: {} trainable values, {} of state, {} of scratch (no plan is "
      "below "
      "{})\n{}",
      r.preset, r.seconds, r.steps, count_text(r.parameters), bytes_text(r.state_bytes), bytes_text(r.scratch_bytes),
      bytes_text(r.scratch_floor), again);
}

nlohmann::json compile_json(const CompileReport& r) {
  nlohmann::json passes = nlohmann::json::array();
  for (const PassTime& t : r.times) passes.push_back({{"pass", t.pass}, {"seconds", t.seconds}});
  nlohmann::json again;
  if (r.recomputation)
    again = {{"values", r.recomputation->values},
             {"bytes_before", r.recomputation->bytes_before},
             {"bytes", r.recomputation->bytes},
             {"more_traffic", r.recomputation->more_traffic},
             {"more_flops", r.recomputation->more_flops}};
  nlohmann::json chunks;
  if (r.chunking.products > 0)
    chunks = {{"products", r.chunking.products},
              {"chunks", r.chunking.chunks},
              {"bytes_before", r.chunking.bytes_before},
              {"bytes", r.chunking.bytes},
              {"more_traffic", r.chunking.more_traffic}};
  return {{"preset", r.preset},
          {"seconds", r.seconds},
          {"recomputation", again},
          {"chunking", chunks},
          {"parameters", r.parameters},
          {"calls", r.steps},
          {"scratch_bytes", r.scratch_bytes},
          {"scratch_floor", r.scratch_floor},
          {"state_bytes", r.state_bytes},
          {"remarks", r.remarks},
          {"passes", passes}};
}

void print_remarks(const Executor& executor) {
  for (const std::string& remark : executor.remarks()) print_err("halfstep: note: {}\n", remark);
}

void print_remarks(const DataFeed& feed) {
  for (const std::string& remark : feed.remarks()) print_err("halfstep: note: {}\n", remark);
}

}  // namespace halfstep
