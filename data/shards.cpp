#include "data/shards.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/checked.h"
#include "base/error.h"
#include "base/printable.h"
#include "data/image_files.h"
#include "data/image_folder.h"
#include "data/label_columns.h"
#include "data/npy.h"
#include "data/sample_order.h"
#include "data/tar_files.h"

namespace halfstep {
namespace {

constexpr int64_t kMostLabelBytes = 64;
constexpr int64_t kMostJsonBytes = int64_t{1} << 24;

// What stands before the first dot of a name's last part, and behind it.
std::pair<std::string, std::string> key_and_ending(const std::string& name) {
  const size_t slash = name.rfind('/'), dot = name.find('.', slash == std::string::npos ? 0 : slash + 1);
  if (dot == std::string::npos) return {name, ""};
  return {name.substr(0, dot), name.substr(dot + 1)};
}
std::string in_small_letters(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return text;
}

bool is_image(const std::string& ending) { return ending == "jpg" || ending == "jpeg" || ending == "png"; }
bool is_array(const std::string& ending) { return ending == "npy" || ending.ends_with(".npy"); }

// The bytes of samples in the archives.
class Places {
 public:
  struct Place {
    uint32_t shard = 0;
    int64_t offset = 0, size = 0;
  };
  std::vector<std::shared_ptr<const DataFile>> shards;
  std::vector<Place> of_sample;

  void read(int64_t sample, const char* what, std::span<std::byte> into) const {
    const Place& place = of_sample[static_cast<size_t>(sample)];
    if (shards[place.shard]->read_at(place.offset, into) != into.size())
      throw Error(name(sample, what) + ": the archive became shorter while it was read");
  }
  std::string name(int64_t sample, const char* what) const {
    const Place& place = of_sample[static_cast<size_t>(sample)];
    return fmt::format("{} at byte {} of {}", what, place.offset, shards[place.shard]->name());
  }
};

class TarImages final : public ImageFiles {
 public:
  explicit TarImages(Places places) : places_(std::move(places)) {}

  int64_t size() const override { return std::ssize(places_.of_sample); }
  std::string name(int64_t image) const override { return places_.name(image, "image"); }
  std::vector<std::byte> read(int64_t image) const override {
    std::vector<std::byte> bytes(static_cast<size_t>(places_.of_sample[static_cast<size_t>(image)].size));
    places_.read(image, "image", bytes);
    return bytes;
  }
  int64_t group(int64_t image) const override { return places_.of_sample[static_cast<size_t>(image)].shard; }

 private:
  Places places_;
};

class TarRows final : public SampleRows {
 public:
  TarRows(Places places, int64_t row_bytes) : places_(std::move(places)), row_bytes_(row_bytes) {}

  void read(int64_t first, std::span<std::byte> into) const override {
    for (const auto bytes = static_cast<size_t>(row_bytes_); !into.empty() && bytes > 0; into = into.subspan(bytes))
      places_.read(first++, "array", into.first(bytes));
  }

 private:
  Places places_;
  int64_t row_bytes_;
};

// The value of a field, whose name may be a path of names divided by dots; nullptr: it is not there.
const nlohmann::json* find_field(const nlohmann::json& object, const std::string& name) {
  if (!object.is_object()) return nullptr;
  if (const auto found = object.find(name); found != object.end()) return &*found;
  for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1))
    if (const auto part = object.find(name.substr(0, dot)); part != object.end())
      if (const nlohmann::json* found = find_field(*part, name.substr(dot + 1))) return found;
  return nullptr;
}

// As a table has it; nullopt: it is neither number, text nor truth value.
std::optional<std::string> field_text(const nlohmann::json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "true" : "false";
  if (value.is_number_float()) return fmt::format("{:.17g}", value.get<double>());
  if (value.is_number()) return value.dump();
  return std::nullopt;
}

class ShardReading {
 public:
  explicit ShardReading(const DataRequest& request)
      : request_(request), where_("tar shards '" + request.specification + "'") {
    if (request.options.label_column != std::vector<std::string>{"none"}) fields_ = request.options.label_column;
  }

  void read(const std::string& path) {
    file_ = std::make_shared<const DataFile>(path);
    const std::vector<TarMember> members = read_tar_index(*file_);
    std::string key;
    Sample sample;
    for (size_t i = 0; i <= members.size(); ++i) {
      const auto [next, written] =
          i < members.size() ? key_and_ending(members[i].name) : std::pair<std::string, std::string>();
      if (i == members.size() || next != key) {
        end_sample(key, sample);
        sample = {}, key = next;
      }
      if (i == members.size()) break;
      const std::string ending = in_small_letters(written);
      if (key.empty() || key.ends_with('/')) {  // "._0001.npy", as macOS writes beside files
        ++others_["." + printable(ending)];
      } else if (is_image(ending)) {
        if (sample.image) fail(key, "has two images");
        sample.image = members[i];
      } else if (is_array(ending)) {
        if (!sample.arrays.emplace(ending == "npy" ? ending : written.substr(0, ending.size() - 4), members[i]).second)
          fail(key, fmt::format("has two '.{}'", printable(ending)));
      } else if (ending == (fields_.empty() ? "cls" : "json") && request_.options.label_column != kNoLabels) {
        if (sample.label) fail(key, fmt::format("has two '.{}'", printable(ending)));
        sample.label = members[i];
      } else {
        ++others_["." + printable(ending)];
      }
    }
    shards_.push_back(std::move(file_));
  }

  Dataset finish() {
    if (samples_ == 0)
      throw Error(where_ + ": no sample has a .jpg, .png or .npy" +
                  (others_.empty() ? "" : "; there are only " + counts(others_)));
    check_counts();
    std::vector<NamedArray> arrays;
    for (auto& [name, array] : arrays_) arrays.push_back({name, values_of(array)});
    DataFacts facts = request_.facts;
    if (labels_ > 0) arrays.push_back({"labels", labels(facts)});
    Dataset dataset;
    if (!arrays.empty()) dataset = make_dataset(std::move(arrays));
    dataset.facts = std::move(facts);
    tell(dataset);
    if (!images_.empty()) {
      ImageSpan images{std::make_shared<const TarImages>(Places{shards_, std::move(images_)}),
                       {},
                       request_.split == Split::train,
                       request_.options};
      images.rows = stored_order(images.files->size());
      dataset.images = std::move(images);
    }
    leave_out_bad_images(dataset);
    return dataset;
  }

 private:
  inline static const std::vector<std::string> kNoLabels{"none"};
  struct Sample {
    std::optional<TarMember> image, label;
    std::map<std::string, TarMember> arrays;
  };
  struct Array {
    TensorType sample;
    std::vector<Places::Place> places;
  };

  [[noreturn]] void fail(const std::string& key, const std::string& what) const {
    throw Error(fmt::format("{}: sample '{}' {}", file_->name(), printable(key), what));
  }
  static std::string counts(const std::map<std::string, int64_t>& of) {
    std::string text;
    for (const auto& [ending, count] : of) text += fmt::format("{}{} '{}'", text.empty() ? "" : ", ", count, ending);
    return text;
  }

  void end_sample(const std::string& key, const Sample& sample) {
    if (!sample.image && sample.arrays.empty()) {
      if (sample.label) ++others_[fields_.empty() ? ".cls" : ".json"];
      return;
    }
    ++samples_;
    const auto place = [&](const TarMember& member, int64_t header = 0) {
      return Places::Place{static_cast<uint32_t>(shards_.size()), member.offset + header, member.size - header};
    };
    if (sample.image) images_.push_back(place(*sample.image));
    for (const auto& [name, member] : sample.arrays) {
      const auto source = open_range(
          file_, fmt::format("{}: sample '{}': its array '{}'", file_->name(), printable(key), printable(name)),
          member.offset, member.size);
      const TensorType type = read_npy_type(*source);
      check_elements(*source, type);
      if (source->most_remaining() != type.byte_count()) refuse_more(*source, type);
      const auto [array, first] = arrays_.try_emplace(name, Array{type, {}});
      if (!first && array->second.sample != type)
        throw Error(fmt::format("{} is {}, and those before it {}: all of one type and shape expected", source->name(),
                                to_string(type), to_string(array->second.sample)));
      array->second.places.push_back(place(member, member.size - source->most_remaining()));
    }
    if (!sample.label) return;
    ++labels_;
    fields_.empty() ? read_class(key, *sample.label) : read_fields(key, *sample.label);
  }

  std::string text_of(const TarMember& member, int64_t most) const {
    std::string text(static_cast<size_t>(std::min(member.size, most)), '\0');
    if (file_->read_at(member.offset, std::as_writable_bytes(std::span(text))) != text.size())
      throw Error(file_->name() + ": the archive became shorter while it was read");
    return text;
  }

  void read_class(const std::string& key, const TarMember& member) {
    std::string text = text_of(member, kMostLabelBytes);
    int64_t value = 0;
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ' || text.back() == '\r')) text.pop_back();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
      throw Error(fmt::format("{}: sample '{}': its .cls holds '{}', a whole number expected", file_->name(),
                              printable(key), printable(text)));
    classes_.push_back(value);
  }

  void read_fields(const std::string& key, const TarMember& member) {
    if (member.size > kMostJsonBytes)
      fail(key, fmt::format("has a .json of {} bytes, at most {} expected", member.size, kMostJsonBytes));
    constexpr int kDeepest = 64;  // what goes through values calls itself
    bool is_deep = false;
    const auto within = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
      is_deep = is_deep || depth > kDeepest;
      return depth <= kDeepest;
    };
    const nlohmann::json object = nlohmann::json::parse(text_of(member, kMostJsonBytes), within, false);
    if (is_deep) fail(key, fmt::format("has a .json that is nested more than {} deep", kDeepest));
    if (object.is_discarded()) fail(key, "has a .json that is none: it is corrupt");
    size_t found = 0;
    for (const std::string& name : fields_) {
      const nlohmann::json* field = find_field(object, name);
      if (field == nullptr) fail(key, missing(name, object));
      // Of one name several values make several columns.
      const bool is_list = field->is_array() && fields_.size() == 1 && !field->empty();
      const nlohmann::json one = nlohmann::json::array({*field});
      for (const nlohmann::json& value : is_list ? *field : one) {
        std::optional<std::string> text = field_text(value);
        if (!text || (is_list && !value.is_number() && !value.is_boolean()))
          fail(key,
               fmt::format("has {} in field '{}' of its .json: a number, a text or a list of numbers expected",
                           shown_field(value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)), name));
        texts_.push_back(std::move(*text)), ++found;
      }
    }
    if (columns_ == 0) columns_ = found;
    if (found != columns_)
      fail(key, fmt::format("has {} values in field '{}' of its .json, and those before it {}", found, fields_[0],
                            columns_));
  }
  static std::string missing(const std::string& name, const nlohmann::json& object) {
    std::vector<std::string> names;
    if (object.is_object())
      for (const auto& [other, value] : object.items()) names.push_back(other);
    const std::string near = nearest(name, names);
    constexpr size_t kMost = 10;
    const size_t all = names.size();
    names.resize(std::min(all, kMost));
    for (std::string& other : names) other = shown_field(other);
    return fmt::format("has no field '{}' in its .json{}", name,
                       !near.empty() ? "; did you mean " + shown_field(near) + "?"
                       : all == 0
                           ? ", which has none at all"
                           : fmt::format(", which has {}{}", fmt::join(names, ", "), all > kMost ? ", ..." : ""));
  }

  void check_counts() const {
    Problems problems;
    const auto all_have = [&](size_t count, const std::string& what) {
      if (count > 0 && static_cast<int64_t>(count) != samples_)
        problems.add(fmt::format("{}: {} of {} samples have {}: all or none expected", where_, count, samples_, what));
    };
    all_have(images_.size(), "an image");
    for (const auto& [name, array] : arrays_)
      all_have(array.places.size(), "an array '" + printable(name) + "' (.npy)");
    all_have(static_cast<size_t>(labels_), fields_.empty() ? "a label (.cls)" : "a .json");
    if (!fields_.empty() && labels_ == 0)
      problems.add(fmt::format("{}: label_column names a field of .json, and no sample has one", where_));
    problems.throw_if_any();
  }

  SampleValues values_of(Array& array) {
    TensorType type = array.sample;
    type.shape.insert(type.shape.begin(), samples_);
    const int64_t row_bytes = array.sample.byte_count();
    const int64_t bytes = checked_mul(row_bytes, samples_, where_);
    auto rows = std::make_shared<const TarRows>(Places{shards_, std::move(array.places)}, row_bytes);
    if (bytes > request_.options.data_memory.bytes) return {std::move(type), std::move(rows)};
    Tensor all(std::move(type));
    rows->read(0, all.data);
    return all;
  }

  Tensor labels(DataFacts& facts) {
    if (fields_.empty()) {
      Tensor array({DType::i64, {samples_}});
      std::ranges::copy(classes_, array.as<int64_t>().begin());
      return array;
    }
    if (facts.labels.empty()) facts.labels = fields_;
    for (bool texts = !facts.classes.empty();; texts = true) {
      LabelColumns columns(columns_, facts, texts);
      bool text_found = false;
      for (size_t i = 0; i < texts_.size() && !text_found; ++i) {
        const std::string problem = columns.take(texts_[i], text_found);
        if (!text_found && !problem.empty())
          throw Error(fmt::format("{}: field '{}' of sample {}: {}", where_, fields_[i % fields_.size()],
                                  i / columns_ + 1, problem));
        if ((i + 1) % columns_ == 0) columns.end_row(true);
      }
      if (text_found) continue;
      std::vector<std::string> classes;
      Tensor array = columns.finish(samples_, classes);
      if (texts && facts.classes.empty()) facts.classes = std::move(classes);
      return array;
    }
  }

  void tell(Dataset& dataset) const {
    std::string what = images_.empty() ? fmt::format("{} samples", samples_) : fmt::format("{} images", samples_);
    std::string names;
    for (const auto& [name, array] : arrays_)
      names += fmt::format("{}'{}' {}", names.empty() ? ", arrays " : ", ", printable(name), to_string(array.sample));
    const std::string labelled = labels_ == 0      ? ", without labels"
                                 : fields_.empty() ? ""
                                                   : fmt::format(", labels from '{}'", fmt::join(fields_, "', '"));
    dataset.remarks.push_back(fmt::format("{}: {} in {} {}{}{}", where_, what, shards_.size(),
                                          shards_.size() == 1 ? "archive" : "archives", names, labelled));
    if (others_.empty()) return;
    const bool hint = labels_ == 0 && others_.contains(".json") && request_.options.label_column != kNoLabels;
    dataset.remarks.push_back(fmt::format("{}: passed over: {}{}", where_, counts(others_),
                                          hint ? "; label_column names a field of .json that is the label" : ""));
  }

  const DataRequest& request_;
  const std::string where_;
  std::vector<std::string> fields_;  // of .json
  std::shared_ptr<const DataFile> file_;
  std::vector<std::shared_ptr<const DataFile>> shards_;
  int64_t samples_ = 0, labels_ = 0;
  std::vector<Places::Place> images_;
  std::map<std::string, Array> arrays_;
  std::vector<int64_t> classes_;
  std::vector<std::string> texts_;  // of the fields, sample after sample
  size_t columns_ = 0;              // of a sample
  std::map<std::string, int64_t> others_;
};

}  // namespace

Dataset open_tar_shards(const DataRequest& request) {
  ShardReading reading(request);
  for (const std::string& path : expand_braces(request.specification)) reading.read(path);
  return reading.finish();
}

}  // namespace halfstep
