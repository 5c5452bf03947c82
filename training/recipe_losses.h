// Several losses as one text: "output=class,labels=y,weight=0.5;kind=mean_squared_error,output=box,labels=b".
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "training/recipe.h"

namespace halfstep {

// Error naming each loss by its number from 1, and all that is unknown or no value of its key.
std::vector<RecipeLoss> read_losses(const std::string& text);
std::string write_losses(const std::vector<RecipeLoss>& losses);
// One loss of read_losses's text. Error where a value holds what separates them.
std::string loss_text(const std::vector<std::pair<std::string, std::string>>& keys);
// The parts of a text; of an empty one none.
std::vector<std::string> split(const std::string& text, char separator);

}  // namespace halfstep
