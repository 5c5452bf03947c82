#include "runtime/signals.h"

#include "base/error.h"

namespace halfstep {
namespace {

// A handler can reach nothing but an object of static storage.
volatile sig_atomic_t received_signal = 0;

extern "C" void note_signal(int signal) { received_signal = signal; }

}  // namespace

SignalGuard::SignalGuard() {
  received_signal = 0;
  struct sigaction action{};
  action.sa_handler = note_signal;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  sigemptyset(&action.sa_mask);
  require(sigaction(SIGINT, &action, &former_interrupt_) == 0, "SIGINT can be handled");
  require(sigaction(SIGTERM, &action, &former_terminate_) == 0, "SIGTERM can be handled");
}

SignalGuard::~SignalGuard() {
  sigaction(SIGINT, &former_interrupt_, nullptr);
  sigaction(SIGTERM, &former_terminate_, nullptr);
}

int SignalGuard::received() const { return received_signal; }

}  // namespace halfstep
