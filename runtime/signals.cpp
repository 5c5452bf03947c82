#include "runtime/signals.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "base/error.h"

namespace halfstep {
namespace {

// A handler can reach nothing but an object of static storage.
std::atomic<int> received_signal = 0;
static_assert(std::atomic<int>::is_always_lock_free);

extern "C" void note_signal(int signal) { received_signal = signal; }

// All but those that the interrupted instruction itself raises.
sigset_t asynchronous_signals() {
  sigset_t set;
  sigfillset(&set);
  for (const int synchronous : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT})
    sigdelset(&set, synchronous);
  return set;
}

}  // namespace

SignalsBlocked::SignalsBlocked() {
  const sigset_t set = asynchronous_signals();
  require(::pthread_sigmask(SIG_BLOCK, &set, &former_) == 0, "signals can be blocked");
}

SignalsBlocked::~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &former_, nullptr); }

SignalThread::SignalThread() : end_(::eventfd(0, EFD_CLOEXEC)) {
  require(end_ >= 0, "an event can be made");
  thread_ = std::thread([this] {
    const sigset_t set = asynchronous_signals();
    ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    uint64_t ended = 0;
    while (::read(end_, &ended, sizeof ended) < 0 && errno == EINTR) {
    }
  });
}

SignalThread::~SignalThread() {
  const uint64_t ended = 1;
  [[maybe_unused]] const ssize_t written = ::write(end_, &ended, sizeof ended);
  thread_.join();
  ::close(end_);
}

SignalGuard::SignalGuard() {
  received_signal = 0;
  for (size_t i = 0; i < kSignals.size(); ++i) {
    require(::sigaction(kSignals[i], nullptr, &former_[i]) == 0, "the signal can be handled");
    if (kSignals[i] == SIGHUP && former_[i].sa_handler == SIG_IGN) continue;
    struct sigaction action{};
    action.sa_handler = note_signal;
    action.sa_flags = SA_RESTART | (kSignals[i] == SIGHUP ? 0 : static_cast<int>(SA_RESETHAND));
    sigemptyset(&action.sa_mask);
    require(::sigaction(kSignals[i], &action, nullptr) == 0, "the signal can be handled");
  }
}

SignalGuard::~SignalGuard() {
  for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &former_[i], nullptr);
}

int SignalGuard::received() const { return received_signal; }

}  // namespace halfstep
