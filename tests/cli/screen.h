// What a person sees: a program on a terminal of its own, and its screen.
#pragma once

#include <string>
#include <vector>

namespace halfstep::test {

// The little of a terminal that programs of ours use: lines, returns, erasing, moving up, colours.
class Screen {
 public:
  Screen(size_t columns, size_t rows) : columns_(columns), rows_(rows), lines_(1) {}
  void write(const std::string& bytes);  // of whole characters and sequences
  // All lines from the first one on, also those that have gone up, without blanks at their ends.
  std::vector<std::string> lines() const;
  // Lines that came to the next one because the screen ended.
  int wrapped() const { return wrapped_; }
  // Columns of the longest line ever shown.
  size_t widest() const { return widest_; }
  bool coloured() const { return coloured_; }

 private:
  using Line = std::vector<std::string>;  // a character a column
  void put(const std::string& character);
  void sequence(char command, const std::string& parameters);

  size_t columns_, rows_;
  std::vector<Line> lines_;
  size_t row_ = 0, column_ = 0;
  int wrapped_ = 0;
  size_t widest_ = 0;
  bool coloured_ = false;
};

struct OnTerminal {
  int exit_code = -1;
  std::string bytes;  // all that it wrote
};
// Runs an executable in `directory` on a terminal of this size until it ends.
OnTerminal run_on_terminal(const std::string& executable, const std::vector<std::string>& arguments,
                           const std::string& directory, unsigned short columns, unsigned short rows,
                           const std::vector<std::string>& environment = {});

}  // namespace halfstep::test
