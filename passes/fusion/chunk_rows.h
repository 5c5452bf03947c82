// Computes a large matrix product, and all that is made of it, in chunks of rows, one chunk after the other, so that it
// is never there as a whole: the logits of a large vocabulary.
//
//   %3 = matmul(%h, %w)  [R, C]       %3 = matmul(slice(%h), %w)  [R / 2, C]      %5 = matmul(slice(%h), %3)
//   %4 = softmax(%3) ...         ->   %4 = softmax(%3) ...
//   %5 = matmul(%h, %4)               %6 = matmul(slice(after(%h, %5)), %w)       %8 = matmul(slice(%h), %7, %5)
//
// What has a value for each row is put together again; products and sums over the rows go on where the chunk before
// ended, in f32. Runs on the graph of a whole step, last before fuse: there forward and backward of a chunk stand side
// by side whatever the loss is made of. Leaves a product whose rows depend on each other (by more than such sums)
// before its last reader, and one that the graph delivers.
#pragma once

#include <cstdint>

#include "ir/graph.h"

namespace halfstep {

struct ChunkOptions {
  int64_t fewest_bytes = 0;  // of a product that is worth it
  int64_t enough_bytes = 0;  // a chunk of fewer is not cut again
  int64_t fewest_rows = 1024;
  // Sums over rows are read and written again for each chunk: bytes of that at most for each byte that is not kept.
  double most_traffic = 8;
};

struct Chunking {
  int64_t products = 0;                 // in chunks
  int64_t chunks = 0;                   // of all of them
  int64_t bytes_before = 0, bytes = 0;  // of the products, and of a chunk of each
  int64_t more_traffic = 0;             // bytes that sums are read and written again
};

Graph chunk_rows(const Graph& graph, const ChunkOptions& options, Chunking& done);

}  // namespace halfstep
