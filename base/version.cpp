#include "base/version.h"

namespace halfstep {

const char* version() { return HALFSTEP_VERSION; }
const char* version_and_commit() { return HALFSTEP_VERSION HALFSTEP_COMMIT; }

}  // namespace halfstep
