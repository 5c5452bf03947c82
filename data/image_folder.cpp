#include "data/image_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/error.h"
#include "base/printable.h"
#include "data/sample_order.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

constexpr std::array<const char*, 4> kHeldOut{"val", "validation", "valid", "test"};

bool is_folder(const fs::path& path) {
  std::error_code unreadable;
  return fs::is_directory(path, unreadable);
}

bool is_image_name(const fs::path& path) {
  constexpr std::array<std::string_view, 4> kEnds{".jpg", ".jpeg", ".jpe", ".png"};
  std::string extension = path.extension().string();
  std::ranges::transform(extension, extension.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return std::ranges::find(kEnds, extension) != kEnds.end();
}

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

struct Listing {
  std::vector<std::string> folders, images;  // sorted by their bytes
  std::vector<std::string> others;           // files that are no images by their names
};

Listing list(const fs::path& directory) {
  Listing listing;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error)) {
    if (is_hidden(entry.path())) continue;
    const std::string name = entry.path().filename().string();
    (is_folder(entry.path())       ? listing.folders
     : is_image_name(entry.path()) ? listing.images
                                   : listing.others)
        .push_back(name);
  }
  if (error) throw Error("data folder '" + directory.string() + "': " + error.message());
  for (std::vector<std::string>* names : {&listing.folders, &listing.images, &listing.others})
    std::ranges::sort(*names);
  return listing;
}

// All images below a folder, relative to `root`.
void collect(const fs::path& root, const std::string& folder, std::vector<std::string>& paths,
             std::vector<std::string>& others, int depth = 0) {
  constexpr int kDeepest = 32;  // links may go round in circles
  if (depth > kDeepest) throw Error("data folder '" + (root / folder).string() + "': folders are too deep");
  const Listing listing = list(root / folder);
  for (const std::string& name : listing.images) paths.push_back(folder + "/" + name);
  for (const std::string& name : listing.others) others.push_back(folder + "/" + name);
  for (const std::string& name : listing.folders) collect(root, folder + "/" + name, paths, others, depth + 1);
}

std::string held_out_folder(const std::string& directory) {
  if (!is_folder(fs::path(directory) / "train")) return "";
  for (const char* name : kHeldOut)
    if (is_folder(fs::path(directory) / name)) return name;
  return "";
}

class FolderReading {
 public:
  explicit FolderReading(const DataRequest& request) : request_(request), root_(request.specification) {
    if (is_folder(root_ / "train")) {
      part_ = request.split == Split::train ? "train" : held_out_folder(request.specification);
      if (!part_.empty()) root_ /= part_;
    }
  }

  Dataset read() {
    Listing listing = list(root_);
    others_ = listing.others;
    Dataset dataset;
    dataset.facts = request_.facts;
    std::vector<int64_t> labels;
    if (listing.folders.empty()) {
      paths_ = listing.images;
    } else {
      if (!listing.images.empty())
        throw Error(fmt::format("data folder '{}': '{}' stands beside the folders of the classes: give it a class",
                                root_.string(), listing.images[0]));
      labels = read_classes(listing.folders, dataset.facts.classes);
    }
    if (paths_.empty())
      throw Error(fmt::format("data folder '{}': it holds no PNG or JPEG file{}", root_.string(), others_text(": ")));
    if (!labels.empty()) {
      Tensor array({DType::i64, {static_cast<int64_t>(labels.size())}});
      std::ranges::copy(labels, array.as<int64_t>().begin());
      dataset.arrays.push_back({"labels", std::move(array)});
    }
    describe(dataset, listing.folders.size());
    ImageSpan images{
        image_files(root_.string(), std::move(paths_)), {}, request_.split == Split::train, request_.options};
    images.rows = stored_order(images.files->size());
    dataset.images = std::move(images);
    leave_out_bad_images(dataset);
    return dataset;
  }

 private:
  std::vector<int64_t> read_classes(const std::vector<std::string>& folders, std::vector<std::string>& classes) {
    Problems problems;
    for (const std::string& name : folders)
      if (printable(name) != name)
        problems.add(fmt::format("data folder '{}': the name '{}' is no UTF-8, or holds control characters",
                                 root_.string(), printable(name)));
    problems.throw_if_any();
    if (classes.empty()) classes = folders;
    std::vector<int64_t> labels;
    for (const std::string& name : folders) {
      const auto known = std::ranges::find(classes, name);
      if (known == classes.end()) {
        problems.add(fmt::format("data folder '{}': '{}' is none of the {} classes that the model was trained on",
                                 root_.string(), name, classes.size()));
        continue;
      }
      const size_t before = paths_.size();
      collect(root_, name, paths_, others_);
      if (paths_.size() == before)
        problems.add(fmt::format("data folder '{}': class '{}' has no PNG or JPEG file: remove it, or fill it",
                                 root_.string(), name));
      labels.resize(paths_.size(), known - classes.begin());
    }
    problems.throw_if_any();
    return labels;
  }

  std::string others_text(const char* before) const {
    if (others_.empty()) return "";
    return fmt::format("{}{} of other names, such as '{}'", before,
                       others_.size() == 1 ? "a file" : fmt::format("{} files", others_.size()), printable(others_[0]));
  }

  void describe(Dataset& dataset, size_t folders) const {
    constexpr size_t kMost = 10;
    std::string text = fmt::format("data folder '{}': {} images", root_.string(), paths_.size());
    const std::vector<std::string>& classes = dataset.facts.classes;
    if (folders == 0) text += ", without labels";
    for (size_t i = 0; folders > 0 && i < std::min(classes.size(), kMost); ++i)
      text += fmt::format("{}{} '{}'", i == 0 ? ", classes " : ", ", i, classes[i]);
    if (folders > 0 && classes.size() > kMost) text += fmt::format(" and {} more", classes.size() - kMost);
    dataset.remarks.push_back(text);
    if (!others_.empty())
      dataset.remarks.push_back(fmt::format("data folder '{}': passed over{}", root_.string(), others_text(": ")));
    if (folders > 0 && folders < classes.size())
      dataset.remarks.push_back(
          fmt::format("data folder '{}': it has {} of the {} classes", root_.string(), folders, classes.size()));
  }

  const DataRequest& request_;
  fs::path root_;
  std::string part_;
  std::vector<std::string> paths_, others_;
};

}  // namespace

bool is_image_folder(const std::string& directory) {
  if (!is_folder(directory)) return false;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error)) {
    if (is_hidden(entry.path())) continue;
    if (is_folder(entry.path()) || is_image_name(entry.path())) return true;
  }
  return false;
}

bool has_held_out_folder(const std::string& directory) { return !held_out_folder(directory).empty(); }

Dataset open_image_folder(const DataRequest& request) { return FolderReading(request).read(); }

void leave_out_bad_images(Dataset& dataset) {
  if (!dataset.images || dataset.images->options.bad_images != "skip") return;
  const std::vector<BadImage> bad = find_bad_images(*dataset.images);
  if (bad.empty()) return;
  constexpr size_t kMost = 5;
  for (size_t i = 0; i < std::min(bad.size(), kMost); ++i) dataset.remarks.push_back("left out: " + bad[i].problem);
  if (bad.size() > kMost)
    dataset.remarks.push_back(fmt::format("left out: {} images more (bad_images skip)", bad.size() - kMost));
  std::vector<int64_t> kept;
  size_t next = 0;
  for (int64_t row = 0; row < dataset.images->size(); ++row)
    if (next < bad.size() && bad[next].row == row)
      ++next;
    else
      kept.push_back(row);
  if (kept.empty()) throw Error("no image is left: none can be decoded; the first: " + bad[0].problem);
  keep_rows(dataset, kept);
}

}  // namespace halfstep
