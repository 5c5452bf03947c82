#include "training/recipe.h"

#include <fmt/format.h>

#include "base/error.h"
#include "training/recipe_keys.h"

namespace halfstep {

OutputLoss one_loss(const Recipe& recipe) {
  return {.kind = recipe.loss,
          .output = recipe.output,
          .labels = {},
          .class_axis = recipe.class_axis,
          .ignore_index = recipe.ignore_index,
          .parameters = recipe.loss_parameters};
}

void take_batch_from_shape(Recipe& recipe) {
  // Of several inputs not every first axis is a batch.
  if (recipe.shapes.size() != 1) return;
  const Shape& shape = recipe.shapes.begin()->second;
  if (shape.empty() || shape[0] < 1) return;
  if (recipe.given.contains("batch") && recipe.batch != shape[0])
    throw Error(fmt::format("shape: its first axis, the batch, is {}, but batch is {}: give one of them, or -1 here",
                            shape[0], recipe.batch));
  recipe.batch = shape[0];
}

std::map<std::string, std::string> notes_of(const Recipe& recipe) {
  std::map<std::string, std::string> notes;
  for (const RecipeKey& k : recipe_keys())
    if (const std::string value = k.get(recipe); !value.empty())
      notes[k.name] = from_folder(std::filesystem::current_path(), k, value);
  return notes;
}

Recipe recipe_of_step(const CompiledModel& model, const std::string& step) {
  Recipe compiled;
  Problems problems;
  for (const auto& [key, value] : model.notes.recipe) try {
      set_key(compiled, key, value);
    } catch (const Error& e) {
      problems.add("the recipe in '" + step + "': " + e.what());
    }
  problems.throw_if_any();
  if (compiled.given.empty())
    throw Error("compiled step '" + step + "' does not say what it was compiled with: compile the model again");
  return compiled;
}

Recipe recipe_over_compiled(const Recipe& compiled, const Recipe& given, const std::string& step) {
  Recipe recipe = compiled;
  recipe.given = given.given;
  Problems problems;
  for (const RecipeKey& k : recipe_keys()) {
    if (!given.given.contains(k.name) || k.name == "model") continue;
    const std::string wanted = k.get(given), is = k.get(compiled);
    if (k.scope == RecipeKey::run)
      k.set(recipe, wanted);
    else if (wanted != is && !(k.name == "device" && wanted == "auto"))
      problems.add(
          fmt::format("{}: '{}' was compiled with {}, {} is asked for: compile the model again, or leave it out",
                      k.name, step, is.empty() ? "none" : is, wanted.empty() ? "none" : wanted));
  }
  problems.throw_if_any();
  return recipe;
}

}  // namespace halfstep
