// The one place that writes to stdout and stderr.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace halfstep {

// Lines that may hold names from files: control characters other than newlines are escaped. What cannot be written is
// remembered instead of thrown, so that no work is lost over it.
void write_out(std::string_view text);
void write_err(std::string_view text);
// Our own control sequences, to stderr as they are.
void write_controls(std::string_view text);

template <typename... T>
void print_out(fmt::format_string<T...> format, T&&... arguments) {
  write_out(fmt::format(format, std::forward<T>(arguments)...));
}
template <typename... T>
void print_err(fmt::format_string<T...> format, T&&... arguments) {
  write_err(fmt::format(format, std::forward<T>(arguments)...));
}

// On one line; bytes that are no UTF-8 are replaced.
std::string json_text(const nlohmann::json& json);

// Opens /dev/null where a standard descriptor is closed, so that no file of ours takes its number and its output.
void open_standard_descriptors();

// Columns of the terminal that stdout is, or of COLUMNS where that is set; 0: as many as a line has.
size_t output_width();

// Columns and lines of the terminal that stderr is; 80 and 24 where it does not say.
size_t error_width();
size_t error_height();
// Whether colours help: stderr is a terminal that has them, and NO_COLOR (no-color.org) is not set.
bool wants_colour();

// Writes out what is buffered. Error where anything for stdout was lost: a full disk, a reader that has gone.
void finish_output();

}  // namespace halfstep
