// The dynamic loss scale as torch.amp.GradScaler.state_dict() tells it: five keys, in JSON, both ways.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/executor.h"
#include "training/recipe.h"

namespace halfstep {

struct GradScalerState {
  double scale = 65536, growth_factor = 2, backoff_factor = 0.5;
  int64_t growth_interval = 2000;
  int64_t growth_tracker = 0;  // steps without overflow since the scale last moved
  friend bool operator==(const GradScalerState&, const GradScalerState&) = default;
};

// By the losses' names, where each has its own scale; "": that of all. As JSON an object of the five keys, or one such
// object for each name.
using GradScalers = std::map<std::string, GradScalerState>;

// What json.dump(scaler.state_dict(), file) wrote. Error naming the file and all that is missing, unknown or out of
// range.
GradScalers read_grad_scalers(const std::filesystem::path& path);
// scaler.load_state_dict(json.loads(text)) takes it, or one for each loss.
std::string to_json(const GradScalers& states);

bool has_loss_scale(const CompiledModel& model);  // a dynamic one
// The names of the losses with a dynamic scale of their own, or "", where all share one; empty: there is none.
std::vector<std::string> losses_with_scale(const CompiledModel& model);
// Of a step whose slots hold these; nullopt: its loss scale is not dynamic.
std::optional<GradScalers> grad_scalers_of(const CompiledModel& model, const FileTensors& slots);
// Waits for the device. Error where the loss scale is not dynamic.
GradScalers read_grad_scalers(Executor& executor);
GradScalerState read_grad_scaler(Executor& executor);  // Error also where each loss has its own
// Sets scale and tracker. The factors and the interval are part of the step: Error, each line beginning with `where`,
// if they differ, if the scale is below the step's floor, or if the loss scale is not dynamic. One state for all is
// taken by the scale of each loss; states of each go to a step whose losses have these names and a scale each.
void write_grad_scalers(Executor& executor, const GradScalers& states, const std::string& where);

// Gives the keys of the loss scale the values of the file that `grad_scaler` names. Error where one was given and
// differs. A resumed run takes the factors and the interval of its checkpoint's grad_scaler.json, and does not read the
// file. Of a compiled step nothing is changed: there write_grad_scalers compares.
void take_grad_scaler(Recipe& recipe);

}  // namespace halfstep
