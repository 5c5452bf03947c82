#include "cli/predict_report.h"

#include <nlohmann/json.hpp>

#include "cli/output.h"
#include "cli/table.h"

namespace halfstep {

void report_prediction(const Predicted& predicted, const std::string& program, const std::string& file,
                       const std::string& precision, Format format) {
  if (format == Format::json) {
    nlohmann::json json{{"file", file}, {"samples", predicted.samples}, {"precision", precision}};
    for (const RowArray& array : predicted.arrays)
      json["arrays"].push_back(
          {{"name", array.name}, {"type", name(array.row.dtype)}, {"shape_of_sample", array.row.shape}});
    if (!predicted.remarks.empty()) json["remarks"] = predicted.remarks;
    print_out("{}\n", json_text(json));
    return;
  }
  for (const std::string& remark : predicted.remarks) print_err("{}: note: {}\n", program, remark);
  for (const RowArray& array : predicted.arrays) {
    TensorType all = array.row;
    all.shape.insert(all.shape.begin(), predicted.samples);
    print_err("{}: {} {}\n", program, array.name, to_string(all));
  }
  print_err("{}: {} samples in '{}', computed in {}\n", program, count_text(predicted.samples), file, precision);
}

}  // namespace halfstep
