// Texts of graphs, whatever compiler built them: in which order the operands of a call of C++ are evaluated, and with
// it nodes are made and numbered, is the compiler's choice. The expected texts are GCC's.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"
#include "ir/builder.h"
#include "ir/text.h"

namespace halfstep::test {

// As the outputs and updates need the nodes, depth first; what is no graph stays.
inline std::string in_order_of_need(const std::string& text) {
#ifndef __clang__
  return text;
#else
  try {
    const Graph graph = parse_graph(text);
    Builder builder(graph.name());
    ValueMap copies(graph);
    std::vector<bool> made(static_cast<size_t>(graph.size()));
    const std::function<void(NodeId)> make = [&](NodeId id) {
      if (made[static_cast<size_t>(id)]) return;
      made[static_cast<size_t>(id)] = true;
      std::vector<Value> operands = graph.node(id).operands;
      for (Value& v : operands) {
        if (v) make(v.node);
        v = copies(v);
      }
      builder.set_origin(graph.node(id).origin);
      const NodeId copy = builder.copy(graph, graph.node(id), operands);
      const std::span<Value> results = copies.at(id);
      for (size_t i = 0; i < results.size(); ++i) results[i] = {copy, static_cast<int32_t>(i)};
    };
    const auto need = [&](Value v) {
      make(v.node);
      return copies(v);
    };
    for (const NamedValue& o : graph.outputs()) builder.output(o.name, need(o.value));
    for (const StateUpdate& u : graph.updates()) {
      const Value state = need(u.state);
      builder.update(state, need(u.value));
    }
    for (NodeId id = 0; id < graph.size(); ++id) make(id);
    return print(std::move(builder).finish());
  } catch (const Error&) {
    return text;
  }
#endif
}

}  // namespace halfstep::test
