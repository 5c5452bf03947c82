#include "base/processors.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

#include "base/file.h"

namespace halfstep {
namespace {

class Quota : public testing::Test {
 protected:
  void put(const std::string& file, const std::string& text) const {
    const std::filesystem::path path = mount_.path() / file;
    std::filesystem::create_directories(path.parent_path());
    write_file_atomically(path, text);
  }
  std::optional<int> of(const std::string& groups) const { return processor_quota(groups, mount_.path()); }

 private:
  TemporaryDirectory mount_;
};

TEST_F(Quota, IsTheLeastAlongThePath) {
  put("a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(of("0::/a/b\n"), std::nullopt);
  put("a/cpu.max", "150000 100000\n");
  EXPECT_EQ(of("0::/a/b\n"), 2) << "one and a half: a part of one counts";
  put("a/b/cpu.max", "300000 100000\n");
  EXPECT_EQ(of("0::/a/b\n"), 2);
  put("a/b/cpu.max", "10000 100000\n");
  EXPECT_EQ(of("0::/a/b\n"), 1);
  EXPECT_EQ(of("0::/a\n"), 2);
}

TEST_F(Quota, OfAContainerStandsAtTheRoot) {
  put("cpu.max", "400000 100000\n");
  EXPECT_EQ(of("0::/\n"), 4);
  EXPECT_EQ(of("0::/docker/0123\n"), 4) << "the path is the host's";
}

TEST_F(Quota, OfVersion1) {
  put("cpu,cpuacct/box/cpu.cfs_quota_us", "-1\n");
  put("cpu,cpuacct/box/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(of("12:memory:/box\n4:cpu,cpuacct:/box\n"), std::nullopt);
  put("cpu,cpuacct/box/cpu.cfs_quota_us", "250000\n");
  EXPECT_EQ(of("12:memory:/box\n4:cpu,cpuacct:/box\n"), 3);
  EXPECT_EQ(of("4:cpuset:/box\n"), std::nullopt);
}

TEST_F(Quota, OfWhatIsNoListOfGroupsIsNone) {
  put("cpu.max", "junk\n");
  for (const std::string groups : {"", "\n", "0", "0::", "0::/../../..\n", ":::::"})
    EXPECT_EQ(of(groups), std::nullopt);
}

TEST(Processors, AreNoMoreThanTheMaskHas) {
  cpu_set_t mask;
  ASSERT_EQ(::sched_getaffinity(0, sizeof mask, &mask), 0);
  EXPECT_GE(usable_processors(), 1);
  EXPECT_LE(usable_processors(), CPU_COUNT(&mask));
}

}  // namespace
}  // namespace halfstep
