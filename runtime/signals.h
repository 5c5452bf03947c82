// SIGINT and SIGTERM as a flag, so that a run can end in order.
#pragma once

#include <signal.h>

namespace halfstep {

// While it lives, the first SIGINT or SIGTERM only sets a flag; a second one has its usual effect. One at a time: the
// flag is the process's. The former handlers return with its end.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;

  // The signal that arrived, or 0.
  int received() const;

 private:
  struct sigaction former_interrupt_{};
  struct sigaction former_terminate_{};
};

}  // namespace halfstep
