// Tables: a record a sample, a column a number. They become an array "table" f32[samples, columns], whose columns keep
// their names, and an array "labels" of the label columns: integers [samples] where all are whole numbers, f32 where
// not, the numbers of their names in sorted order where they are texts; of several label columns [samples, labels].
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "data/readers.h"

namespace halfstep {

// Opens the table's bytes; called more than once.
using OpenTable = std::function<std::unique_ptr<ByteSource>()>;

// Error, all problems at once, naming lines and columns. Rows with a problem are left out where the options say so.
Dataset read_table(const OpenTable& open, const DataRequest& request);

// Mean and deviation (of the population) of the columns that a pattern matches. Error where one matches none.
std::vector<DataFacts::Scaling> learn_scalings(const Dataset& train, const std::vector<std::string>& patterns);
// Columns of a table, all where `picks` is empty, as whole numbers, which are read from it as they are asked for;
// nullopt: they are others, or beyond 2^24. The table must outlive them.
std::optional<SampleValues> integer_columns(const SampleValues& table, const std::vector<int64_t>& picks);
// Standardises the data set's table as its facts say.
void apply_scalings(Dataset& dataset);

}  // namespace halfstep
