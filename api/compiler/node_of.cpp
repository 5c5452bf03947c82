#include "api/status.h"
#include "ir/op.h"

namespace halfstep {

// "node Gemm 'fc1': ..." of the import, "matmul 'fc1': ..." of the graph.
std::string node_of(const std::string& message) {
  const size_t quote = message.find(" '"), end = message.find("': ");
  if (quote == std::string::npos || end == std::string::npos || end < quote + 2) return "";
  const std::string place = message.substr(0, quote);
  const bool of_import = place.starts_with("node ") && place.find(' ', 5) == std::string::npos;
  return of_import || find_op(place) != nullptr ? message.substr(quote + 2, end - quote - 2) : "";
}

}  // namespace halfstep
