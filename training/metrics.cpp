#include "training/metrics.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "program/json_text.h"
#include "training/measure_json.h"

namespace halfstep {
namespace {

using Json = nlohmann::ordered_json;

void put(Json& object, const char* key, const std::optional<double>& value) {
  if (value) object[key] = *value;
}

void put(Json& object, const std::string& prefix, const std::optional<TokenMeasures>& tokens) {
  if (!tokens) return;
  object[prefix + "perplexity"] = tokens->perplexity;
  if (tokens->bits_per_byte) object[prefix + "bits_per_byte"] = *tokens->bits_per_byte;
}

void put(Json& object, const char* key, const std::vector<LossRow>& losses) {
  for (const LossRow& row : losses) {
    object[key][row.name]["loss"] = row.loss;
    put(object[key][row.name], "accuracy", row.accuracy);
    put(object[key][row.name], "loss_scale", row.loss_scale);
    if (row.overflowed) object[key][row.name]["overflow"] = true;
  }
}

constexpr std::string_view kEndMark = R"({"kind":"end")";

// Whether a run that goes on after `step` will tell this again.
bool is_later(const std::string& line, int64_t step) {
  const nlohmann::json json = parse_json(line);
  return json.is_object() && json.contains("step") && json["step"].is_number_integer() &&
         json["step"].get<int64_t>() > step;
}

}  // namespace

MetricsFile::MetricsFile(const std::filesystem::path& path, int64_t every_steps)
    : path_(path.string()), every_steps_(every_steps) {
  open();
}

void MetricsFile::open() {
  // A pipe without a reader must not hang.
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
  struct stat info{};
  if (fd_ >= 0 && ::fstat(fd_, &info) == 0 && (S_ISREG(info.st_mode) || S_ISCHR(info.st_mode))) return;
  const std::string reason = fd_ < 0 && errno != ENXIO ? std::strerror(errno) : "it is not a file";
  if (fd_ >= 0) ::close(fd_);
  throw Error("cannot open metrics file '" + path_ + "': " + reason);
}

MetricsFile::~MetricsFile() { ::close(fd_); }

// What another run ended with stays; only what a dead one told beyond its checkpoint is told again.
void MetricsFile::run_begun(int64_t step) {
  std::error_code unreadable;
  if (!std::filesystem::is_regular_file(path_, unreadable)) return;
  bool stale = false, ended = false;
  const auto each_line = [&](const auto& take) {
    std::ifstream file(path_, std::ios::binary);
    for (std::string line; std::getline(file, line);)
      if (file.eof() || is_later(line, step))
        stale = true, ended |= line.starts_with(kEndMark);
      else
        take(line);
  };
  each_line([](const std::string&) {});
  if (!stale || ended) return;
  write_file_atomically(path_,
                        [&](FileSink& sink) { each_line([&](const std::string& line) { sink.write(line + "\n"); }); });
  ::close(fd_);
  open();
}

void MetricsFile::step_finished(const StepRow& row) {
  if (every_steps_ <= 0 || row.step % every_steps_ != 0) return;
  Json line{{"kind", "step"}, {"step", row.step}, {"epoch", row.epoch}, {"loss", row.loss}};
  put(line, "accuracy", row.accuracy);
  put(line, "losses", row.losses);
  put(line, "", row.tokens);
  put(line, "loss_scale", row.loss_scale);
  line["skipped"] = row.skipped;
  line["learning_rate"] = row.learning_rate;
  line["samples_per_second"] = row.samples_per_second;
  if (row.tokens) line["tokens_per_second"] = row.tokens->per_second;
  write_line(line.dump());
}

void MetricsFile::epoch_finished(const EpochRow& row) {
  Json line{{"kind", "epoch"}, {"step", row.step}, {"epoch", row.epoch}, {"loss", row.loss}};
  put(line, "accuracy", row.accuracy);
  put(line, "losses", row.losses);
  put(line, "", row.tokens);
  if (row.test) {
    line["test_loss"] = row.test->loss;
    put(line, "test_accuracy", row.test->accuracy);
    put(line, "test_losses", row.test->losses);
    put(line, "test_", row.test->tokens);
    put_measures(line, row.test->measures, "test_");
  }
  put(line, "loss_scale", row.loss_scale);
  line["skipped"] = row.skipped;
  line["samples_per_second"] = row.samples_per_second;
  if (row.tokens) line["tokens_per_second"] = row.tokens->per_second;
  line["seconds"] = row.seconds;
  put(line, "data_wait", row.data_wait);
  write_line(line.dump());
}

void MetricsFile::finished(const TrainReport& report) {
  const ExecutorCounters& c = report.counters;
  const MemoryReport& m = report.memory;
  Json line{{"kind", "end"}, {"reason", name(report.reason)}, {"step", report.steps}, {"seconds", report.seconds}};
  line["counters"] = {{"steps", c.steps},
                      {"graph_launches", c.graph_launches},
                      {"stream_synchronisations", c.stream_synchronisations},
                      {"slot_waits", c.slot_waits},
                      {"result_waits", c.result_waits}};
  line["memory"] = {{"state_bytes", m.state_bytes},
                    {"scratch_bytes", m.scratch_bytes},
                    {"workspace_bytes", m.workspace_bytes},
                    {"measured_bytes", m.measured_bytes}};
  write_line(line.dump());
}

void MetricsFile::write_line(std::string line) {
  line += '\n';
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(fd_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error("cannot write metrics file '" + path_ + "': " + std::strerror(errno));
    done += static_cast<size_t>(n);
  }
}

}  // namespace halfstep
