#include "image/build.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/file.h"

namespace sbx::image {
namespace {

// A recipe whose build.sh makes in no time what the real one makes with mmdebstrap; each run leaves a line in runs.
class BuildTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(make_folders(recipe()));
    for (const char* name : {"customize.sh", "modules.txt", "packages.txt"}) write(name, "");
    write("build.sh", "echo run >>'" + runs().string() + R"('
set -e
while [ $# -gt 0 ]; do case $1 in --out) out=$2 ;; --size) size=$2 ;; esac; shift 2; done
echo 'sbx-step: one'; echo noise; echo 'sbx-step: two'
mkdir "$out/modules"; echo 6.12-test >"$out/kernel-version"
echo elf >"$out/vmlinux"; echo ko >"$out/modules/a.ko"; echo a.ko >"$out/modules.list"
truncate -s "$size" "$out/root.ext4"
)");
    options_.recipe.folder = recipe();
    options_.recipe.disk_bytes = 1U << 20U;
    options_.images_folder = images();
    options_.mirror = "http://mirror.test/debian";
  }
  void write(const std::string& name, std::string_view text) {
    ASSERT_TRUE(write_file_atomically(recipe() / name, text));
  }
  std::filesystem::path recipe() const { return folder_.path() / "recipe"; }
  std::filesystem::path images() const { return folder_.path() / "images"; }
  std::filesystem::path runs() const { return folder_.path() / "runs"; }
  std::size_t entries() const {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(images())) count += entry.path().filename() != ".lock";
    return count;
  }
  TemporaryFolder folder_ = TemporaryFolder::make("build").value();
  BuildOptions options_{};
};

TEST_F(BuildTest, MakesAnImageAndTellsItsSteps) {
  std::vector<std::string> steps;
  const auto manifest = build_image(options_, [&](const std::string& step) { steps.push_back(step); });
  ASSERT_TRUE(manifest) << manifest.error().describe();
  EXPECT_THAT(steps, testing::ElementsAre("one", "two"));
  EXPECT_EQ(manifest->id, image_id(options_.recipe).value());
  EXPECT_EQ(manifest->kernel_version, "6.12-test");
  EXPECT_THAT(manifest->modules, testing::ElementsAre("a.ko"));
  EXPECT_EQ(manifest->disk_bytes, 1U << 20U);
  EXPECT_EQ(load_image(images(), manifest->id).value(), *manifest);
  EXPECT_EQ(entries(), 1U);
}

TEST_F(BuildTest, AnImageThatIsThereIsNotBuiltAgain) {
  ASSERT_TRUE(build_image(options_, {}));
  ASSERT_TRUE(build_image(options_, {}));
  EXPECT_EQ(read_file(runs()).value(), "run\n");
}

TEST_F(BuildTest, BuildersAtTheSameTimeShareOneBuild) {
  std::vector<std::jthread> threads;
  std::atomic<int> succeeded = 0;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { succeeded += build_image(options_, {}).has_value(); });
  threads.clear();
  EXPECT_EQ(succeeded, 4);
  EXPECT_EQ(read_file(runs()).value(), "run\n");
}

TEST_F(BuildTest, AFailedBuildLeavesNothingAndSaysWhy) {
  write("build.sh", "for i in $(seq 100); do echo line $i >&2; done; echo no such package >&2; exit 3");
  const auto manifest = build_image(options_, {});
  ASSERT_FALSE(manifest);
  EXPECT_THAT(manifest.error().message, testing::HasSubstr("no such package"));
  EXPECT_THAT(manifest.error().message, testing::HasSubstr("exit status 3"));
  EXPECT_THAT(manifest.error().message, testing::Not(testing::HasSubstr("line 5\n")));
  EXPECT_EQ(entries(), 0U);
}

TEST_F(BuildTest, AnIncompleteBuildIsRefused) {
  write("build.sh", "exit 0");
  EXPECT_FALSE(build_image(options_, {}));
  EXPECT_EQ(entries(), 0U);
}

TEST_F(BuildTest, WhatAKilledBuildLeftIsRemovedByTheNext) {
  ASSERT_TRUE(make_folders(images() / ".building-dead/image"));
  ASSERT_TRUE(build_image(options_, {}));
  EXPECT_EQ(entries(), 1U);
}

}  // namespace
}  // namespace sbx::image
