#include "cli/page/report_page.h"

#include "cli/page/embed.h"
#include "cli/page/page_files.h"

namespace halfstep {

std::string report_page(const RunRecord& run) {
  const auto joined = [](std::string_view a, std::string_view b) { return std::string(a) + std::string(b); };
  return page_of(page_files::report_html, joined(page_files::css, page_files::report_css),
                 joined(page_files::common_js, page_files::report_js), json_of(run));
}

}  // namespace halfstep
