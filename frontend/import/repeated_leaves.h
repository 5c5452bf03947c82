// Imports of a model for what the wanted one has to know before it.
#pragma once

#include "frontend/import/importer.h"

namespace halfstep {

// What an import at the exported sizes sees.
Recording record(const Importer::Inputs& inputs);

// A weight that the exporter expanded to its batch is one weight at any batch, at the exported one too. What would have
// to repeat is seen by reading the model at another batch.
RepeatedLeaves find_repeated(const Importer::Inputs& inputs);

}  // namespace halfstep
