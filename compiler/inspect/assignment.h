// The precision of a model's nodes as one of two sides that are compared.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "compiler/inspect/inspection.h"

namespace halfstep {

struct AssignedNode {
  std::string name, op;
  std::string operand, accumulator, result;  // names of types; empty: it computes nothing
  std::string reason, rule;
  std::map<std::string, std::string> slots = {};  // PrecisionRow::slots

  // The type of one that neither has as a slot is the node's own.
  const std::string& of_slot(const std::string& slot) const;
};

struct Assignment {
  std::string title;  // "fp16, preset torch 2.11"
  std::string model;
  std::vector<AssignedNode> nodes;  // the file's in its order, and the loss
};

Assignment assignment_of(const Inspection& inspection);
// What `inspect --json` wrote. Error naming the file and the key that is missing or of another kind.
Assignment read_assignment(const std::filesystem::path& path);

struct AssignmentDiff {
  std::vector<std::pair<const AssignedNode*, const AssignedNode*>> changed;  // in the first side's order
  size_t same = 0;
  std::vector<const AssignedNode*> only_first, only_second;  // nodes that the other lacks, or has as another operator
  bool is_empty() const { return changed.empty() && only_first.empty() && only_second.empty(); }
};
// Of assignments that outlive it. Nodes are the same where names and operators are; changed where they read, compute or
// write another type, of one operand too.
AssignmentDiff diff(const Assignment& first, const Assignment& second);

}  // namespace halfstep
