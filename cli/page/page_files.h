// The page's parts, embedded by cmake/embed.cmake.
#pragma once

#include <string_view>

namespace halfstep::page_files {

extern const std::string_view css, common_js;                      // of all pages
extern const std::string_view html, model_js, graph_js, panel_js;  // of inspect's
extern const std::string_view doctor_html, doctor_css, doctor_plots_js, doctor_js;
extern const std::string_view report_html, report_css, report_js;

}  // namespace halfstep::page_files
