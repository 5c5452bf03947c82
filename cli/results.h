// What training and evaluation found, as text and as JSON.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "training/trainer_events.h"

namespace halfstep {

// "perplexity 3.21, 1.6812 bits a byte"
std::string tokens_text(const TokenMeasures& tokens);
// "class 0.3214 (88.12 %), box 0.0213"; of no losses "".
std::string losses_text(const std::vector<LossRow>& losses);
nlohmann::json tokens_json(const TokenMeasures& tokens, const std::string& prefix);
// "  best        epoch 3, test_accuracy 0.91: run/checkpoints/step-000000300"
std::string best_text(const BestEpoch& best);
nlohmann::json train_json(const TrainReport& report);
// "10,000 samples in 0.7 s: loss 0.3214, accuracy 0.8812", and measures below it in lines of `columns` (0: of 80).
std::string evaluation_text(const Evaluation& evaluation, size_t columns);
nlohmann::json evaluation_json(const Evaluation& evaluation);

}  // namespace halfstep
