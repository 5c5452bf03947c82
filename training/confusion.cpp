#include "training/confusion.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "training/run_directory.h"

namespace halfstep {
namespace {

constexpr int64_t kMostDrawn = 200, kMostNumbered = 30, kMostNamed = 60;

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '&':
        result += "&amp;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

// At most `most` characters of UTF-8.
std::string cut(const std::string& text, size_t most) {
  size_t count = 0;
  for (size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80 && count++ == most) return text.substr(0, i) + "…";
  return text;
}

// From white to a deep blue.
std::string shade(double share) {
  const auto mix = [&](int from, int to) { return from + static_cast<int>(std::trunc((to - from) * share + 0.5)); };
  return fmt::format("#{:02x}{:02x}{:02x}", mix(255, 8), mix(255, 48), mix(255, 107));
}

std::string file_name(const std::string& loss) {
  if (loss.empty()) return "confusion.svg";
  std::string plain;
  for (const char c : loss)
    plain += (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ? c : '_';
  return "confusion." + plain + ".svg";
}

}  // namespace

std::string confusion_svg(const Confusion& confusion, const std::vector<std::string>& class_names) {
  const int64_t n = confusion.classes;
  const bool numbered = n <= kMostNumbered, named = n <= kMostNamed;
  constexpr size_t kLongestName = 18;
  const int64_t cell = numbered ? 40 : named ? 16 : std::max<int64_t>(3, 900 / n);
  size_t longest = 1;
  std::vector<std::string> names;
  for (int64_t c = 0; c < n; ++c) {
    names.push_back(cut(class_name(class_names, c), kLongestName));
    longest = std::max(longest, std::min(names.back().size(), kLongestName + 1));
  }
  const int64_t side = named ? 40 + static_cast<int64_t>(longest) * 7 : 40, size = side + cell * n + 16;
  std::string svg = fmt::format(
      "{1} xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {0}\" width=\"{0}\" height=\"{0}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{0}\" height=\"{0}\" fill=\"#fff\"/>\n",
      size, kConfusionMark);
  svg += fmt::format("<text x=\"{}\" y=\"16\" text-anchor=\"middle\">guess</text>\n", side + cell * n / 2);
  svg += fmt::format("<text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">label</text>\n",
                     side + cell * n / 2);
  for (int64_t row = 0; row < n; ++row) {
    const auto begin = confusion.counts.begin() + static_cast<std::ptrdiff_t>(row * n);
    int64_t labels = 0;
    for (auto at = begin; at != begin + static_cast<std::ptrdiff_t>(n); ++at) labels += *at;
    const int64_t middle = side + row * cell + cell / 2;
    if (named) {
      svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n", side - 6, middle + 4,
                         escaped(names[static_cast<size_t>(row)]));
      svg += fmt::format("<text transform=\"translate({} {}) rotate(-90)\">{}</text>\n", middle + 4, side - 6,
                         escaped(names[static_cast<size_t>(row)]));
    }
    for (int64_t column = 0; column < n; ++column) {
      const int64_t count = begin[static_cast<std::ptrdiff_t>(column)];
      const double share = labels > 0 ? static_cast<double>(count) / static_cast<double>(labels) : 0;
      if (count == 0 && !numbered) continue;
      svg += fmt::format(
          "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"{}><title>{} as {}: {}</title></rect>\n",
          side + column * cell, side + row * cell, cell, cell, shade(share), numbered ? " stroke=\"#ddd\"" : "",
          escaped(class_name(class_names, row)), escaped(class_name(class_names, column)), count);
      if (numbered && count > 0)
        svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" font-size=\"{}\" fill=\"{}\">{}</text>\n",
                           side + column * cell + cell / 2, middle + 4, count > 99999 ? 9 : 11,
                           share > 0.5 ? "#fff" : "#222", count);
    }
  }
  svg += fmt::format("<rect x=\"{0}\" y=\"{0}\" width=\"{1}\" height=\"{1}\" fill=\"none\" stroke=\"#888\"/>\n</svg>\n",
                     side, cell * n);
  return svg;
}

ConfusionFiles write_confusions(const MeasureReport& report, const std::filesystem::path& directory) {
  ConfusionFiles files;
  for (const Confusion& confusion : report.confusions) {
    const std::filesystem::path path = directory / file_name(confusion.loss);
    if (confusion.classes > kMostDrawn) {
      files.remarks.push_back(
          fmt::format("'{}' is not drawn: {} classes, at most {}", path.string(), confusion.classes, kMostDrawn));
      continue;
    }
    if (std::error_code unreadable; std::filesystem::exists(path, unreadable) && !begins_with(path, kConfusionMark)) {
      files.remarks.push_back(fmt::format("'{}' is there and no run drew it: it stays as it is", path.string()));
      continue;
    }
    write_file_atomically(path, confusion_svg(confusion, report.class_names));
    files.written.push_back(path);
  }
  return files;
}

ConfusionFiles confusions_in(const std::filesystem::path& directory, const MeasureReport& report) {
  if (report.confusions.empty()) return {};
  std::error_code failed;
  std::filesystem::create_directories(directory, failed);
  if (failed) throw Error("cannot create output directory '" + directory.string() + "': " + failed.message());
  return write_confusions(report, directory);
}

std::string confusion_files_text(const std::string& program, const ConfusionFiles& files) {
  std::string text;
  for (const std::filesystem::path& path : files.written)
    text += fmt::format("{}: the confusion matrix is drawn in '{}'\n", program, path.string());
  for (const std::string& remark : files.remarks) text += fmt::format("{}: note: {}\n", program, remark);
  return text;
}

}  // namespace halfstep
