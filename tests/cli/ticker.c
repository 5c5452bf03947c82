// Loaded into the executable under test: an empty handler on the interrupted thread's own stack, every millisecond.
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/time.h>

static void nothing(int signal) { (void)signal; }

__attribute__((constructor)) static void start(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = nothing;
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, 0);
  struct itimerval millisecond = {{0, 1000}, {0, 1000}};
  setitimer(ITIMER_REAL, &millisecond, 0);
}
