// What halfstep.h says, as debug information for abidw: both getters' tables and all that these mention, and the
// constants. tests/api/abi/abi.sh compiles it.
#include "halfstep/halfstep.h"

const halfstep_api* halfstep_get_api(uint32_t) { return nullptr; }
const halfstep_compiler_api* halfstep_get_compiler_api(uint32_t) { return nullptr; }

extern "C" void halfstep_constants(decltype(HALFSTEP_OK), decltype(HALFSTEP_F32), decltype(HALFSTEP_TRAIN),
                                   decltype(HALFSTEP_INPUT), decltype(HALFSTEP_CPU)) {}
