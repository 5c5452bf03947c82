#include "program/initial_state.h"

#include <algorithm>

namespace halfstep {

std::optional<Name> base_of_low_copy(const CompiledModel& model, const Name& arena) {
  for (const std::string_view suffix : {".f16", ".bf16"})
    if (arena.is(Role::slot) && arena.text.ends_with(suffix)) {
      const Name base(Role::slot, arena.text.substr(0, arena.text.size() - suffix.size()));
      if (std::ranges::find(model.arenas, base) != model.arenas.end()) return base;
    }
  return std::nullopt;
}

void read_initial_state(const CompiledModel& model, const Name& name, DType dtype,
                        const std::function<void(Piece)>& take) {
  if (const auto given = model.state.find(name); given != model.state.end()) return take(given->second.data);
  const std::optional<Name> base = base_of_low_copy(model, name);
  const auto arena = base ? model.state.find(*base) : model.state.end();
  if (arena == model.state.end()) return;
  constexpr int64_t kElements = int64_t{1} << 20;
  const Tensor& values = arena->second;
  const int64_t count = values.type.element_count(), size = size_of(values.type.dtype);
  for (int64_t begin = 0; begin < count; begin += kElements) {
    Tensor piece(TensorType{values.type.dtype, {std::min(kElements, count - begin)}});
    std::ranges::copy(Piece(values.data).subspan(static_cast<size_t>(begin * size), piece.data.size()),
                      piece.data.begin());
    take(piece.cast(dtype).data);
  }
}

}  // namespace halfstep
