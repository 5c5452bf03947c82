// The confusion matrix as a picture.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "training/trainer_events.h"

namespace halfstep {

// A row for each label, darker the larger its share of guesses; with counts where they have room.
std::string confusion_svg(const Confusion& confusion, const std::vector<std::string>& class_names);

// `confusion.svg` in `directory`, of several losses `confusion.LOSS.svg`; what was written, and remarks of what is too
// large for a picture or would be written over a file of the user's.
struct ConfusionFiles {
  std::vector<std::filesystem::path> written{};
  std::vector<std::string> remarks{};
};
ConfusionFiles write_confusions(const MeasureReport& report, const std::filesystem::path& directory);
// The same into a directory that is made where it is not there.
ConfusionFiles confusions_in(const std::filesystem::path& directory, const MeasureReport& report);
// A line for each, behind the program's name.
std::string confusion_files_text(const std::string& program, const ConfusionFiles& files);

// Writes them after each epoch, those of the one before over.
class ConfusionPictures final : public TrainObserver {
 public:
  explicit ConfusionPictures(std::filesystem::path directory) : directory_(std::move(directory)) {}
  void epoch_finished(const EpochRow& row) override {
    if (row.test) write_confusions(row.test->measures, directory_);
  }

 private:
  std::filesystem::path directory_;
};

}  // namespace halfstep
