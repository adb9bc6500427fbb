#include "image/recipe.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace sbx::image {
namespace {

class RecipeTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"build.sh", "customize.sh", "modules.txt", "packages.txt"}) write(name, name);
    recipe_.folder = folder_.path();
  }
  void write(const std::string& name, std::string_view text) {
    ASSERT_TRUE(write_file_atomically(folder_.path() / name, text));
  }
  TemporaryFolder folder_ = TemporaryFolder::make("recipe").value();
  Recipe recipe_;
};

TEST_F(RecipeTest, TheIdIsSixteenHexDigitsAndStable) {
  const auto id = image_id(recipe_).value();
  EXPECT_EQ(id.size(), 16U);
  EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(image_id(recipe_).value(), id);
}

TEST_F(RecipeTest, EveryFileAndSettingChangesTheId) {
  const auto id = image_id(recipe_).value();
  for (const char* name : {"build.sh", "customize.sh", "modules.txt", "packages.txt"}) {
    write(name, "other");
    EXPECT_NE(image_id(recipe_).value(), id) << name;
    write(name, name);
  }
  EXPECT_EQ(image_id(recipe_).value(), id);
  recipe_.suite = "forky";
  EXPECT_NE(image_id(recipe_).value(), id);
  recipe_.suite = "trixie";
  recipe_.disk_bytes += 1;
  EXPECT_NE(image_id(recipe_).value(), id);
}

TEST_F(RecipeTest, AMissingFileIsNotFound) {
  std::filesystem::remove(folder_.path() / "packages.txt");
  EXPECT_EQ(image_id(recipe_).error().code, ErrorCode::kNotFound);
}

TEST(Recipe, TheProjectsOwnRecipeIsFound) {
  const auto recipe = find_recipe();
  ASSERT_TRUE(recipe) << recipe.error().describe();
  EXPECT_TRUE(image_id(*recipe));
}

}  // namespace
}  // namespace sbx::image
