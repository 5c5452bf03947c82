#include "cli/output.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/printable.h"

namespace halfstep {
namespace {

int lost_output = 0;  // the first errno of a write to stdout; the streams themselves are the process's

void put(std::FILE* stream, std::string_view text) {
  errno = 0;
  const bool whole = std::fwrite(text.data(), 1, text.size(), stream) == text.size();
  if (!whole && stream == stdout && lost_output == 0) lost_output = errno != 0 ? errno : EIO;
}

}  // namespace

void write_out(std::string_view text) {
  put(stdout, printable(text, Lines::kept));
  errno = 0;
  if (std::fflush(stdout) != 0 && lost_output == 0) lost_output = errno != 0 ? errno : EIO;
}

void write_err(std::string_view text) { put(stderr, printable(text, Lines::kept)); }

void write_controls(std::string_view text) { put(stderr, text); }

std::string json_text(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

size_t output_width() {
  constexpr int kNarrowest = 40, kWidest = 1000;
  int width = 0;
  if (const char* columns = ::getenv("COLUMNS")) width = std::atoi(columns);
  if (winsize size{}; width <= 0 && ::isatty(STDOUT_FILENO) && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
    width = size.ws_col;
  return width <= 0 ? 0 : static_cast<size_t>(std::clamp(width, kNarrowest, kWidest));
}

namespace {

winsize error_size() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0) size = {};
  return size;
}

}  // namespace

size_t error_width() {
  constexpr unsigned short kUsual = 80, kNarrowest = 20;
  const unsigned short width = error_size().ws_col;
  return std::max(kNarrowest, width > 0 ? width : kUsual);
}

size_t error_height() {
  constexpr unsigned short kUsual = 24;
  const unsigned short height = error_size().ws_row;
  return height > 0 ? height : kUsual;
}

bool wants_colour() {
  const char *none = ::getenv("NO_COLOR"), *terminal = ::getenv("TERM");
  const bool is_dumb = terminal == nullptr || std::strcmp(terminal, "dumb") == 0;
  return ::isatty(STDERR_FILENO) != 0 && !is_dumb && (none == nullptr || *none == '\0');
}

void open_standard_descriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    // The lowest free number is this one.
    if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF) (void)::open("/dev/null", O_RDWR);
}

void finish_output() {
  if (lost_output != 0) throw Error(std::string("cannot write to standard output: ") + std::strerror(lost_output));
}

}  // namespace halfstep
