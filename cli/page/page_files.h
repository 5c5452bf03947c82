// The page's parts, embedded by cmake/embed.cmake.
#pragma once

#include <string_view>

namespace halfstep::page_files {

extern const std::string_view html, css, model_js, graph_js, panel_js;

}  // namespace halfstep::page_files
