// The keys of losses, and several losses as one text:
// "output=class,labels=y,weight=0.5;kind=mean_squared_error,output=box,labels=b".
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "training/recipe.h"

namespace halfstep {

// Error naming each loss by its number from 1, and all that is unknown or no value of its key.
std::vector<LossTerm> read_losses(const std::string& text);
std::string write_losses(const std::vector<LossTerm>& losses);
// One key of a loss; `separator` stands between the values of a list. "": it is not given. Error "<what was expected
// and found>".
void set_loss_key(OutputLoss& loss, const LossKey& key, const std::string& text, char separator);
std::string get_loss_key(const OutputLoss& loss, const LossKey& key, char separator);
// Between the values of a list of one of several losses: "class_weights=1:2:3".
inline constexpr char kListSeparator = ':';
// One of `several` ("losses", "groups") in such a text. Error where a value holds what separates them.
std::string keys_text(const std::vector<std::pair<std::string, std::string>>& keys, std::string_view several);
// The parts of a text; of an empty one none.
std::vector<std::string> split(const std::string& text, char separator);

}  // namespace halfstep
