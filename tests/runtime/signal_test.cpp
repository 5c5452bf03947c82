#include <gtest/gtest.h>

#include "runtime/signals.h"

namespace halfstep {
namespace {

int former_calls = 0;
void count_call(int) { ++former_calls; }

TEST(SignalGuard, NotesTheFirstSignalAndGivesTheHandlersBack) {
  struct sigaction mine{}, original{};
  mine.sa_handler = count_call;
  sigaction(SIGINT, &mine, &original);
  {
    SignalGuard guard;
    EXPECT_EQ(guard.received(), 0);
    raise(SIGINT);
    EXPECT_EQ(guard.received(), SIGINT);
    struct sigaction now{};
    sigaction(SIGINT, nullptr, &now);
    EXPECT_EQ(now.sa_handler, SIG_DFL) << "a second Ctrl-C must end the process";
    raise(SIGTERM);
    EXPECT_EQ(guard.received(), SIGTERM);
  }
  EXPECT_EQ(former_calls, 0);
  raise(SIGINT);
  EXPECT_EQ(former_calls, 1);
  sigaction(SIGINT, &original, nullptr);
  EXPECT_EQ(SignalGuard().received(), 0) << "a new guard starts without a signal";
}

}  // namespace
}  // namespace halfstep
