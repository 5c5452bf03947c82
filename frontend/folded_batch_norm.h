// Batch norms that an exporter folded into the convolutions before them: which they were, and how they come back.
#pragma once

#include "frontend/onnx_file.h"

namespace halfstep {

// `file` with a batch norm behind every convolution that took one in at export, which gives up its bias to it. Scale 1,
// mean 0, variance 1: inference is what it was. Names: "<convolution>.bn" and its initializers ".scale", ".bias",
// ".mean", ".variance". Throws Error if there is no such convolution.
OnnxFile insert_batch_norms(const OnnxFile& file);

}  // namespace halfstep
