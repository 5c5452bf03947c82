// Batches whose samples are mixed in pairs, mixup and cutmix, as timm's Mixup (mode batch) and FastCollateMixup do it:
// sample i of n with sample n - 1 - i, all of a batch by one share.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "data/augment.h"
#include "program/program.h"

namespace halfstep {

struct MixOptions {
  double mixup = 0, cutmix = 0;  // of Beta(alpha, alpha), which the share is drawn from; 0: not done. Of both each
                                 // batch takes one, by equal chances
  bool any() const { return mixup > 0 || cutmix > 0; }
};

// Where the pixels of a sample lie, of `planes` images of height x width x depth elements, one after the other.
struct MixGeometry {
  int64_t planes = 1, height = 1, width = 1, depth = 1;
  int64_t elements() const { return planes * height * width * depth; }
};

struct BatchMix {
  double share = 1;   // of a sample's own label, an f32; 1 - share is its partner's
  bool cuts = false;  // the part of the partner's pixels is put in; else pixels are share * own + rest * partner's
  ImagePart part{};   // inside height x width; may be empty
};

// One number of Beta(a, a).
double draw_beta(double a, AugmentRandom& random);
// A rectangle of sqrt(1 - share) of both sides around (y, x), cut off at the edges (timm's rand_bbox).
ImagePart cut_part(const MixGeometry& geometry, double share, int64_t y, int64_t x);
// By (seed, iteration) alone. The part that cutmix puts in lies anywhere, and the share is what it leaves (timm's
// correct_lam).
BatchMix draw_mix(const MixOptions& options, const MixGeometry& geometry, uint64_t seed, int64_t iteration);
// `batch` samples of the geometry's elements, in place; bytes are rounded to the nearest, halves to even.
void mix_batch(std::span<std::byte> samples, DType dtype, int64_t batch, const MixGeometry& geometry,
               const BatchMix& mix);

// Mixes the inputs of a program in training, and tells it the share.
class BatchMixer {
 public:
  // Problems name keys whose values make no sense, and, of an input, why its samples cannot be mixed.
  BatchMixer(const MixOptions& options, size_t share_input, Problems& problems);
  void add(const Buffer& input, size_t place, Problems& problems);
  // Of a batch that is trained on; BatchMix() leaves one that is looked at as it is.
  BatchMix draw(uint64_t seed, int64_t iteration) const;
  // `staging` is that of all of the program's inputs.
  void apply(const BatchMix& mix, std::span<const std::span<std::byte>> staging) const;

 private:
  struct Input {
    size_t place;
    DType dtype;
    int64_t batch;
    MixGeometry geometry;
  };
  MixOptions options_;
  size_t share_input_;
  std::vector<Input> inputs_;
};

}  // namespace halfstep
