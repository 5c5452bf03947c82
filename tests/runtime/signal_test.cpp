#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <thread>

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

TEST(SignalGuard, AClosingTerminalMayTellTwice) {
  const SignalGuard guard;
  raise(SIGHUP);
  raise(SIGHUP);
  EXPECT_EQ(guard.received(), SIGHUP);
}

TEST(SignalGuard, WhatNohupIgnoresStaysIgnored) {
  ::signal(SIGHUP, SIG_IGN);
  {
    const SignalGuard guard;
    raise(SIGHUP);
    EXPECT_EQ(guard.received(), 0);
  }
  ::signal(SIGHUP, SIG_DFL);
}

pthread_t handled_in;
std::atomic<bool> handled{false};  // after handled_in
void note_thread(int) {
  handled_in = pthread_self();
  handled = true;
}

TEST(SignalThread, TakesTheSignalsOfAllThreads) {
  struct sigaction action{}, original{};
  action.sa_handler = note_thread;
  sigaction(SIGUSR1, &action, &original);
  sigset_t before, after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  {
    const SignalThread signals;
    bool taken_here = false;
    std::thread other([&] {
      kill(getpid(), SIGUSR1);
      while (!handled) std::this_thread::yield();
      taken_here = pthread_equal(handled_in, pthread_self()) != 0;
    });
    other.join();
    EXPECT_FALSE(taken_here);
    EXPECT_FALSE(pthread_equal(handled_in, pthread_self()));
  }
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  EXPECT_EQ(sigismember(&before, SIGUSR1), sigismember(&after, SIGUSR1));
  sigaction(SIGUSR1, &original, nullptr);
}

}  // namespace
}  // namespace halfstep
