// Which Halfstep this is.
#pragma once

namespace halfstep {

// "0.1.0"
const char* version();
// The commit it was built from, where that is known: "0.1.0 (80ae7a70b6dc)"
const char* version_and_commit();

}  // namespace halfstep
