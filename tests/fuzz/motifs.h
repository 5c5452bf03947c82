// What networks write in several ops, where the class of a past fault lies: the case classes of docs/fuzzing.md.
#pragma once

#include "tests/fuzz/graph_maker.h"

namespace halfstep::fuzz {

void random_motif(GraphMaker& m);
// Attention as one op, or written out, with every kind of mask, also such that hide all keys of a query.
void attention(GraphMaker& m);

}  // namespace halfstep::fuzz
