// A folder of images: a folder a class, or images alone, which have no labels.
#pragma once

#include "data/readers.h"

namespace halfstep {

// Above the folders of the classes there may be "train", and one of "val", "validation", "valid" and "test" for what is
// held out.
bool is_image_folder(const std::string& directory);
bool has_held_out_folder(const std::string& directory);
// Images, and "labels" i64[samples]: the classes in sorted order, or those of the facts. Error where a class has no
// image, or is none of the facts'.
Dataset open_image_folder(const DataRequest& request);

// The data set without the images that cannot be decoded, where the options say so: each of them is read for it.
void leave_out_bad_images(Dataset& dataset);

}  // namespace halfstep
