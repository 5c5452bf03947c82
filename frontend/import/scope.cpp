#include "frontend/import/scope.h"

#include "base/error.h"

namespace halfstep {

const Binding* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope; scope = scope->outer)
    if (const auto found = scope->bindings.find(name); found != scope->bindings.end()) return &found->second;
  return nullptr;
}

const Binding& Scope::at(const std::string& name) const {
  const Binding* found = find(name);
  if (!found) throw Error("value '" + prefix + name + "' is nowhere defined");
  return *found;
}

}  // namespace halfstep
