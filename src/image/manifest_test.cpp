#include "image/manifest.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace sbx::image {
namespace {

ImageManifest example(const std::string& id = "0123456789abcdef", const std::string& created = "2026-01-02T03:04:05Z") {
  return {.id = id,
          .suite = "trixie",
          .kernel_version = "6.12.0-cloud",
          .modules = {"virtio_blk.ko"},
          .disk_bytes = 20ULL << 30U,
          .stored_bytes = 12345,
          .build_ms = 678,
          .created_at = created};
}

void put_image(const std::filesystem::path& images, const ImageManifest& manifest) {
  ASSERT_TRUE(make_folders(images / manifest.id));
  ASSERT_TRUE(write_file_atomically(images / manifest.id / "manifest.json", to_json(manifest)));
}

TEST(ImageManifest, SurvivesTheRoundTripThroughJson) {
  const auto copy = manifest_from_json(to_json(example()));
  ASSERT_TRUE(copy) << copy.error().describe();
  EXPECT_EQ(*copy, example());
}

TEST(ImageManifest, RefusesWhatIsNotAManifest) {
  for (const char* text : {"", "[]", "{}", "{\"id\":3}", "nonsense"}) {
    EXPECT_EQ(manifest_from_json(text).error().code, ErrorCode::kInvalid) << text;
  }
}

TEST(ImageManifest, RefusesAModuleOutsideItsFolder) {
  auto manifest = example();
  for (const char* name : {"../../etc/passwd", "", ".", "a/b.ko"}) {
    manifest.modules = {name};
    EXPECT_FALSE(manifest_from_json(to_json(manifest))) << name;
  }
}

TEST(ImageManifest, AnIdNeverWalksOutOfTheFolder) {
  EXPECT_TRUE(valid_image_id("0123456789abcdef"));
  for (const char* id : {"", "..", "../../../../../..", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0"}) {
    EXPECT_FALSE(valid_image_id(id)) << id;
    EXPECT_EQ(load_image("/", id).error().code, ErrorCode::kInvalid) << id;
    EXPECT_FALSE(remove_image("/", id)) << id;
  }
}

TEST(ImageStore, ListsCompleteImagesOldestFirst) {
  const auto folder = TemporaryFolder::make("images").value();
  put_image(folder.path(), example("bbbbbbbbbbbbbbbb", "2026-01-01T00:00:00Z"));
  put_image(folder.path(), example("aaaaaaaaaaaaaaaa", "2026-01-02T00:00:00Z"));
  ASSERT_TRUE(make_folders(folder.path() / "cccccccccccccccc"));  // no manifest
  ASSERT_TRUE(make_folders(folder.path() / ".building-x"));
  const auto images = list_images(folder.path()).value();
  ASSERT_EQ(images.size(), 2U);
  EXPECT_EQ(images[0].id, "bbbbbbbbbbbbbbbb");
  EXPECT_EQ(images[1].id, "aaaaaaaaaaaaaaaa");
}

TEST(ImageStore, AnAbsentFolderHoldsNoImages) { EXPECT_TRUE(list_images("/nonexistent/images").value().empty()); }

TEST(ImageStore, RemovingTakesTheWholeFolder) {
  const auto folder = TemporaryFolder::make("images").value();
  put_image(folder.path(), example());
  ASSERT_TRUE(remove_image(folder.path(), example().id));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_EQ(remove_image(folder.path(), example().id).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace sbx::image
