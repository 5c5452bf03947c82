// ONNX file → Graph. Shapes are static: the batch and every open dimension are chosen here.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/tensor.h"
#include "frontend/import/budget.h"
#include "frontend/import/initial_scheme.h"
#include "frontend/onnx/onnx_model.h"
#include "ir/graph.h"

namespace halfstep {

enum class InitialWeights : uint8_t {
  from_file,           // missing data is an Error
  fresh_where_absent,  // each operator's default initialisation where the file has no data
  fresh,               // the same for every parameter and statistic
  none,                // ImportedModel::weights stays empty: only the graph is wanted
};

enum class ImportMode : uint8_t {
  training,     // batch norms use and update batch statistics and dropout drops, whatever the export says
  as_exported,  // batch norm and dropout do what the file says
};

// What becomes of constants whose external data is missing where weights are fresh: no fresh value stands for one, and
// a trained model cannot be written without them.
enum class MissingConstants : uint8_t {
  refused,
  zeros,  // booleans true, with a remark: for times, not for results
};

struct ImportOptions {
  std::optional<int64_t> batch = {};         // default: the one the model was exported at
  std::map<std::string, Shape> shapes = {};  // of an input, by its name; "": of the only one; -1: as the rest says
  std::map<std::string, int64_t> dimensions = {};  // of an open dimension, by its symbol
  std::map<std::string, double> values = {};       // of an input that is a constant: every element of it
  // Where the other outputs cannot be read, this one is read alone.
  std::string output = {};
  ImportMode mode = ImportMode::training;
  // Whether the graph is run with its batch norms' own statistics alone: then one value a channel is enough.
  enum Statistics : uint8_t { of_batches, running_alone } statistics = of_batches;
  InitialWeights weights = InitialWeights::from_file;
  // Whether the weights are read by the import, or one after the other by whoever wants them: a large model is then
  // never held as a whole.
  enum Reading : uint8_t { at_once, on_demand } reading = at_once;
  MissingConstants constants = MissingConstants::refused;
  // Plain layers as one `recurrent` each, for a target that has it as a call of a library; other forms are unrolled.
  enum RecurrentLayers : uint8_t { unrolled, as_calls } recurrent = unrolled;
  ImportBudget budget = {};
  uint64_t seed = 0;                    // of fresh weights
  std::optional<double> dropout = {};   // replaces the ratio of every dropout
  std::vector<std::string> train = {};  // of those that would else be taken for no weights, or be frozen
  // Patterns (* ? []) of initializer names that training leaves as they are; `train` wins.
  std::vector<std::string> freeze = {};
  std::vector<std::string> fresh = {};  // of weights that start fresh whatever `weights` says
  InitialScheme scheme = {};            // of fresh weights
};

struct OnnxNode {
  std::string name;  // as origins in the graph bear it
  std::string op;    // "Conv"
  // Of a node without values of its own, since it gives on another's or computes the same: that node's index.
  std::optional<size_t> same_as = {};
  std::vector<size_t> readers = {};  // indices of the nodes that read its values, later than its own
  std::optional<DType> folded = {};  // of a node whose results are constants: their type
  std::optional<DType> drawn = {};   // of one that draws random numbers: the type that it names
  std::string result = {};           // the first value it gives, of a node of the main graph
  std::optional<Shape> shape = {};   // of its first value, as ONNX has it
};

struct ImportedModel {
  // Inputs and outputs have their ONNX names; parameters and states those of their initializers.
  Graph graph;
  // Every parameter and state leaf of the graph, in stored layout: a parameter's axes are permuted as its leaf says.
  FileTensors weights;
  // on_demand: in the place of `weights`, what reads each. Throws Error naming the tensor.
  std::map<std::string, std::function<Tensor()>> weight_readers;
  std::map<std::string, Initializer> fresh;  // of those that start fresh: how they are drawn
  std::vector<std::string> inputs;           // the data inputs, in the file's order
  std::vector<std::string> outputs;          // in the file's order
  std::vector<OnnxNode> nodes;               // in the order of computation, those of inlined functions too
  std::vector<FileNode> file_nodes;          // of the main graph as the file has it
  std::string graph_name;
  int64_t dropouts_left_out = 0;  // by the export that wrote the file
  // What the import decided or noticed and its user should know, one sentence each.
  std::vector<std::string> remarks;
};

// Throws Error with every problem of the model at once, each naming its node and what to do.
ImportedModel import_model(const OnnxFile& file, const ImportOptions& options = {});

// Of the nodes that are none of the graph's, neither themselves nor as constants: the name of the node that gives their
// values, or else of the first behind them that is one of the graph's.
std::map<std::string, std::string> parts_at_import(const ImportedModel& model);

// Of a leaf, whose axes may be permuted, as its initializer has it.
Shape shape_in_file(const Node& leaf);
// Stored tensors of `graph` in the layout of their ONNX initializers, for export.
FileTensors in_onnx_layout(const Graph& graph, const FileTensors& stored);

}  // namespace halfstep
