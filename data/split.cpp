#include "data/split.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "base/error.h"
#include "data/sample_order.h"

namespace halfstep {
namespace {

// Keeps these random numbers apart from those of the epochs' orders.
constexpr uint64_t kSplitKey = 0x74696c7073206568;

using Classes = std::map<int64_t, std::vector<int64_t>>;  // samples of each, ascending

Classes samples_by_class(int64_t samples, std::span<const int64_t> classes) {
  Classes by_class;
  for (int64_t i = 0; i < samples; ++i) by_class[classes.empty() ? 0 : classes[static_cast<size_t>(i)]].push_back(i);
  return by_class;
}

// In an order of its own, which other classes do not change.
void shuffle(std::vector<int64_t>& samples, uint64_t seed, int64_t label) {
  const std::vector<int64_t> order = epoch_order(seed ^ kSplitKey, label, static_cast<int64_t>(samples.size()));
  std::vector<int64_t> shuffled;
  shuffled.reserve(samples.size());
  for (const int64_t i : order) shuffled.push_back(samples[static_cast<size_t>(i)]);
  samples = std::move(shuffled);
}

// How many of each class: its share rounded down, and one more where the remainder is largest, until they are `total`.
std::map<int64_t, int64_t> shares(const Classes& by_class, double fraction, int64_t total) {
  struct Remainder {
    double left;
    int64_t label;
  };
  std::map<int64_t, int64_t> counts;
  std::vector<Remainder> remainders;
  for (const auto& [label, samples] : by_class) {
    const auto size = static_cast<double>(samples.size());
    counts[label] = static_cast<int64_t>(size * fraction);
    total -= counts[label];
    if (samples.size() > 1 || by_class.size() == 1)
      remainders.push_back({size * fraction - static_cast<double>(counts[label]), label});
  }
  std::ranges::stable_sort(remainders, std::ranges::greater{}, &Remainder::left);
  for (size_t i = 0; i < remainders.size() && total > 0; ++i) {
    int64_t& count = counts[remainders[i].label];
    if (count + 1 < static_cast<int64_t>(by_class.at(remainders[i].label).size())) ++count, --total;
  }
  return counts;
}

void check(int64_t samples, const SplitOptions& o) {
  if (o.folds == 0) {
    require(o.fraction > 0 && o.fraction < 1, "a fraction is between 0 and 1");
    return;
  }
  if (o.folds < 2) throw Error(fmt::format("folds: at least 2 expected, found {}", o.folds));
  if (o.fold < 1 || o.fold > o.folds)
    throw Error(fmt::format("fold: 1 to {}, the folds, expected, found {}", o.folds, o.fold));
  if (o.folds > samples)
    throw Error(fmt::format("folds: {} are given, but there are {} samples: give at most that many", o.folds, samples));
}

// "3, 7, 12 and 4 more"
std::string listed(const std::vector<int64_t>& values) {
  constexpr size_t kMost = 5;
  std::string text;
  for (size_t i = 0; i < std::min(values.size(), kMost); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : i + 1 == values.size() ? " and " : ", ", values[i]);
  return values.size() > kMost ? text + fmt::format(" and {} more", values.size() - kMost) : text;
}

void remark_on_classes(const ClassLabels& labels, std::span<const int64_t> out, const SplitOptions& options,
                       std::vector<std::string>& remarks) {
  std::map<int64_t, int64_t> all, held;
  for (const int64_t label : labels.of_sample) ++all[label];
  for (const int64_t row : out) ++held[labels.of_sample[static_cast<size_t>(row)]];
  std::vector<int64_t> single, not_held, not_trained;
  for (const auto& [label, count] : all) {
    const int64_t of_held = held.contains(label) ? held.at(label) : 0;
    if (count == 1) single.push_back(label);
    if (of_held == 0 && count > 1) not_held.push_back(label);
    if (of_held == count) not_trained.push_back(label);
  }
  const auto say = [&](const std::vector<int64_t>& classes, const char* what) {
    if (!classes.empty())
      remarks.push_back(fmt::format("{}: {} {} {}", options.text(), classes.size() == 1 ? "class" : "classes",
                                    listed(classes), what));
  };
  say(single, "of a single sample: it is only in one of the two parts");
  say(not_held, "without a sample in the held-out part");
  say(not_trained, "without a sample in the training part");
}

std::pair<Dataset, Dataset> split_tokens(const Dataset& dataset, const SplitOptions& options) {
  if (options.folds > 0)
    throw Error("folds: a stream of tokens has no samples to deal out: hold its end out with test_fraction");
  const TokenSpan& all = *dataset.tokens;
  const int64_t cut = all.end - static_cast<int64_t>(static_cast<double>(all.size()) * options.fraction);
  std::pair<Dataset, Dataset> parts;
  parts.first.tokens = TokenSpan{all.file, all.begin, cut};
  parts.second.tokens = TokenSpan{all.file, cut, all.end};
  return parts;
}

}  // namespace

std::string SplitOptions::text() const {
  return folds > 0 ? fmt::format("fold {} of {}", fold, folds) : fmt::format("test_fraction {:g}", fraction);
}

std::optional<ClassLabels> class_labels(const Dataset& dataset, std::span<const std::string> names) {
  const auto one_a_sample = [](const NamedArray& array) {
    const TensorType& type = array.values.type;
    return !is_floating(type.dtype) && !type.shape.empty() && type.element_count() == type.shape[0];
  };
  const NamedArray* found = nullptr;
  for (const std::string& name : names)
    for (const NamedArray& array : dataset.arrays)
      if (found == nullptr && array.name == name && one_a_sample(array)) found = &array;
  if (found == nullptr && std::ranges::count_if(dataset.arrays, one_a_sample) == 1)
    found = &*std::ranges::find_if(dataset.arrays, one_a_sample);
  if (found == nullptr) return std::nullopt;
  ClassLabels labels{found->name, {}};
  std::set<int64_t> distinct;
  const int64_t samples = found->values.type.shape[0];
  labels.of_sample.reserve(static_cast<size_t>(samples));
  for (const double label : found->values.values()) {
    labels.of_sample.push_back(static_cast<int64_t>(label));
    if (distinct.insert(labels.of_sample.back()).second && static_cast<int64_t>(distinct.size()) > (samples + 1) / 2)
      return std::nullopt;
  }
  return labels;
}

std::vector<int64_t> held_out(int64_t samples, std::span<const int64_t> classes, const SplitOptions& options) {
  check(samples, options);
  Classes by_class = samples_by_class(samples, classes);
  const auto total = static_cast<int64_t>(std::llround(static_cast<double>(samples) * options.fraction));
  const std::map<int64_t, int64_t> counts =
      options.folds > 0 ? std::map<int64_t, int64_t>() : shares(by_class, options.fraction, total);
  std::vector<int64_t> out;
  int64_t dealt = 0;
  for (auto& [label, members] : by_class) {
    shuffle(members, options.seed, label);
    if (options.folds == 0) out.insert(out.end(), members.begin(), members.begin() + counts.at(label));
    if (options.folds > 0)
      for (const int64_t sample : members)
        if (dealt++ % options.folds == options.fold - 1) out.push_back(sample);
  }
  std::ranges::sort(out);
  if (out.empty() || static_cast<int64_t>(out.size()) == samples)
    throw Error(fmt::format("{}: of {} samples {} would be held out: give a fraction that leaves some in both parts",
                            options.text(), samples, out.empty() ? "none" : "all"));
  return out;
}

std::pair<Dataset, Dataset> split_dataset(Dataset all, const SplitOptions& options) {
  if (all.tokens) return split_tokens(all, options);
  std::optional<ClassLabels> labels;
  if (options.stratified) labels = class_labels(all, options.labels);
  const int64_t samples = all.size();
  const std::vector<int64_t> out =
      held_out(samples, labels ? std::span<const int64_t>(labels->of_sample) : std::span<const int64_t>(), options);
  std::vector<int64_t> kept;
  kept.reserve(static_cast<size_t>(samples) - out.size());
  for (int64_t i = 0, next = 0; i < samples; ++i)
    if (next < static_cast<int64_t>(out.size()) && out[static_cast<size_t>(next)] == i)
      ++next;
    else
      kept.push_back(i);
  all.remarks.push_back(fmt::format("{}: {} of {} samples are held out, {}", options.text(), out.size(), samples,
                                    labels               ? "each class of '" + labels->array + "' alike"
                                    : options.stratified ? "at random: no array holds one class a sample"
                                                         : "at random"));
  if (labels) remark_on_classes(*labels, out, options, all.remarks);
  Dataset test;
  test.facts = all.facts;
  for (const NamedArray& array : all.arrays)
    test.arrays.push_back({array.name, picked_rows(array.values, out), array.columns});
  if (all.images) {
    test.images = ImageSpan{all.images->files, {}, false, all.images->options};
    for (const int64_t row : out) test.images->rows.push_back(all.images->rows[static_cast<size_t>(row)]);
  }
  if (all.texts) {
    test.texts = TextSpan{all.texts->tokens, {}};
    for (const int64_t row : out) test.texts->rows.push_back(all.texts->rows[static_cast<size_t>(row)]);
  }
  keep_rows(all, kept);
  return {std::move(all), std::move(test)};
}

}  // namespace halfstep
