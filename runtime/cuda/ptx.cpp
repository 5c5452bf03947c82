#include "runtime/cuda/ptx.h"

#include <algorithm>

namespace halfstep {
namespace {

// Past a comment or a string that starts at `at`, else `at`.
size_t skip_opaque(std::string_view text, size_t at) {
  const auto past = [&](std::string_view end, size_t from) {
    const size_t found = text.find(end, from);
    return found == std::string_view::npos ? text.size() : found + end.size();
  };
  if (text.substr(at, 2) == "//") return past("\n", at);
  if (text.substr(at, 2) == "/*") return past("*/", at + 2);
  if (text[at] == '"') return past("\"", at + 1);
  return at;
}

// Past the block of the kernel whose ".entry" is at `at`; 0 for a declaration without one.
size_t end_of_kernel(std::string_view text, size_t at) {
  int depth = 0;
  while (at < text.size()) {
    if (const size_t next = skip_opaque(text, at); next != at) {
      at = next;
      continue;
    }
    if (text[at] == ';' && depth == 0) return 0;
    if (text[at] == '{') ++depth;
    if (text[at] == '}' && --depth == 0) return at + 1;
    ++at;
  }
  return 0;
}

// A kernel begins with its linkage, ".visible" or ".weak", if it has one.
size_t start_of_kernel(std::string_view text, size_t entry) {
  const size_t last = text.find_last_not_of(" \t\n", entry - 1);
  if (entry == 0 || last == std::string_view::npos) return entry;
  for (const std::string_view linkage : {".visible", ".weak"}) {
    if (text.substr(0, last + 1).ends_with(linkage)) return last + 1 - linkage.size();
  }
  return entry;
}

}  // namespace

std::vector<std::string> split_kernels(std::string_view ptx, size_t parts) {
  const std::vector<std::string> whole = {std::string(ptx)};
  if (parts < 2 || ptx.find(".section") != std::string_view::npos) return whole;
  std::string shared;
  std::vector<std::string_view> kernels;
  size_t kernel_bytes = 0, kept = 0;  // text before `kept` is sorted into one of the two
  for (size_t at = 0; at < ptx.size();) {
    if (const size_t next = skip_opaque(ptx, at); next != at) {
      at = next;
      continue;
    }
    const size_t end = ptx.substr(at).starts_with(".entry") ? end_of_kernel(ptx, at) : 0;
    if (end == 0) {
      ++at;
      continue;
    }
    const size_t start = start_of_kernel(ptx, at);
    shared += ptx.substr(kept, start - kept);
    kernels.push_back(ptx.substr(start, end - start));
    kernel_bytes += end - start;
    at = kept = end;
  }
  shared += ptx.substr(kept);
  if (kernels.size() < 2) return whole;
  parts = std::min(parts, kernels.size());

  std::vector<std::string> modules;
  size_t placed = 0;
  for (const std::string_view kernel : kernels) {
    if (modules.size() < parts && placed >= modules.size() * kernel_bytes / parts) modules.push_back(shared);
    modules.back().append("\n").append(kernel).append("\n");
    placed += kernel.size();
  }
  return modules;
}

}  // namespace halfstep
