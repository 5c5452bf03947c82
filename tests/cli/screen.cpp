#include "tests/cli/screen.h"

#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace halfstep::test {

void Screen::put(const std::string& character) {
  if (column_ == columns_) ++wrapped_, column_ = 0, ++row_;
  while (lines_.size() <= row_) lines_.emplace_back();
  Line& line = lines_[row_];
  if (line.size() <= column_) line.resize(column_ + 1, " ");
  line[column_++] = character;
  widest_ = std::max(widest_, column_);
}

void Screen::sequence(char command, const std::string& parameters) {
  const size_t number = static_cast<size_t>(std::max(0, std::atoi(parameters.c_str())));
  if (command == 'K' && row_ < lines_.size()) lines_[row_].resize(std::min(lines_[row_].size(), column_));
  if (command == 'A') row_ -= std::min({row_, std::max<size_t>(1, number), rows_ - 1});
  if (command == 'J') {
    lines_.resize(std::min(lines_.size(), row_ + 1));
    if (row_ < lines_.size()) lines_[row_].resize(std::min(lines_[row_].size(), column_));
  }
  if (command == 'm') coloured_ = true;
}

void Screen::write(const std::string& bytes) {
  for (size_t i = 0; i < bytes.size();) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    if (byte == '\r') {
      column_ = 0, ++i;
    } else if (byte == '\n') {
      ++row_, ++i;  // the terminal's driver sends the return
      if (lines_.size() <= row_) lines_.resize(row_ + 1);
    } else if (byte == '\033' && i + 1 < bytes.size() && bytes[i + 1] == '[') {
      size_t end = i + 2;
      while (end < bytes.size() && (bytes[end] < '@' || bytes[end] > '~')) ++end;
      if (end < bytes.size()) sequence(bytes[end], bytes.substr(i + 2, end - i - 2));
      i = end + 1;
    } else {
      size_t length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
      length = std::min(length, bytes.size() - i);
      put(bytes.substr(i, length));
      i += length;
    }
  }
}

std::vector<std::string> Screen::lines() const {
  std::vector<std::string> result;
  for (const Line& line : lines_) {
    std::string text;
    for (const std::string& character : line) text += character;
    text.erase(text.find_last_not_of(' ') + 1);
    result.push_back(text);
  }
  return result;
}

OnTerminal run_on_terminal(const std::string& executable, const std::vector<std::string>& arguments,
                           const std::string& directory, unsigned short columns, unsigned short rows,
                           const std::vector<std::string>& environment) {
  std::vector<char*> argv{const_cast<char*>(executable.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  winsize size{};
  size.ws_col = columns, size.ws_row = rows;
  int terminal = -1;
  const pid_t child = ::forkpty(&terminal, nullptr, nullptr, &size);
  if (child == 0) {
    ::unsetenv("COLUMNS"), ::unsetenv("NO_COLOR"), ::setenv("TERM", "xterm", 1),
        ::setenv("CUDA_VISIBLE_DEVICES", "", 1);
    for (const std::string& variable : environment) ::putenv(const_cast<char*>(variable.c_str()));
    if (::chdir(directory.c_str()) == 0) ::execv(executable.c_str(), argv.data());
    ::_exit(127);
  }
  OnTerminal result;
  if (child < 0) return result;
  char buffer[4096];
  for (;;) {
    const ssize_t n = ::read(terminal, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;  // EIO: the last of its holders has gone
    result.bytes.append(buffer, static_cast<size_t>(n));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ::close(terminal);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace halfstep::test
