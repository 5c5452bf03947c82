// What codegen would emit: void kernel(void* const* arguments, int64_t begin, int64_t end).
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>

void affine(void* const* arguments, int64_t begin, int64_t end) {
  const float* from = arguments[0];
  float* to = arguments[1];
  for (int64_t i = begin; i < end; ++i) to[i] = 2 * from[i] + 1;
}

// Counts the visits of every unit and notes in which range it was.
void visit(void* const* arguments, int64_t begin, int64_t end) {
  int64_t* visits = arguments[0];
  int64_t* begins = arguments[1];
  for (int64_t i = begin; i < end; ++i) {
    ++visits[i];
    begins[i] = begin;
  }
}

// Of every unit: how many of the signals that a timer, a terminal or another process sends would interrupt it.
void open_to_signals(void* const* arguments, int64_t begin, int64_t end) {
  const int signals[] = {SIGALRM, SIGPROF, SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGCHLD, SIGWINCH};
  int64_t* open = arguments[0];
  sigset_t blocked;
  pthread_sigmask(SIG_SETMASK, 0, &blocked);
  for (int64_t i = begin; i < end; ++i)
    for (int s = 0; s < 8; ++s) open[i] += !sigismember(&blocked, signals[s]);
}
