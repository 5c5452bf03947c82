// Signals that end a run in order, and which threads may be interrupted by any.
#pragma once

#include <signal.h>

#include <array>
#include <thread>

namespace halfstep {

// Blocks every asynchronous signal in the calling thread and in those it starts, and gives the former mask back. Code
// that uses the stack pointer for its own ends, such as oneDNN's generated products, must not be interrupted.
class SignalsBlocked {
 public:
  SignalsBlocked();
  ~SignalsBlocked();
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t former_;
};

// For the start of a program: from here on all signals of the process, whoever handles them, run in this thread, since
// every other one blocks them.
class SignalThread {
 public:
  SignalThread();
  ~SignalThread();
  SignalThread(const SignalThread&) = delete;
  SignalThread& operator=(const SignalThread&) = delete;

 private:
  SignalsBlocked blocked_;
  int end_ = -1;  // an eventfd
  std::thread thread_;
};

// While it lives, the first SIGINT, SIGTERM or SIGHUP only sets a flag. A second SIGINT or SIGTERM has its usual
// effect; SIGHUP comes twice where a terminal closes. A SIGHUP that was ignored (nohup) stays so. One at a time: the
// flag is the process's. The former handlers return with its end.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;

  // The signal that arrived last, or 0.
  int received() const;

 private:
  static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP};
  std::array<struct sigaction, kSignals.size()> former_{};
};

}  // namespace halfstep
