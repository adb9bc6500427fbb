#include "api/views.h"

#include <gtest/gtest.h>

namespace sbx::api {
namespace {

TEST(SandboxView, LeavesOutWhatIsEmpty) {
  store::Sandbox s;
  s.id = "1";
  s.name = "box";
  s.state = store::State::kStopped;
  s.workspaces = {{"/a", false, false}, {"/b", true, false}};
  const auto view = sandbox_view(s);
  EXPECT_EQ(view["status"], "stopped");
  EXPECT_EQ(view["workspaces"], (nlohmann::json{"/a", "/b"}));
  EXPECT_EQ(view["readonly_workspaces"], nlohmann::json{"/b"});
  EXPECT_FALSE(view.contains("labels"));
  EXPECT_FALSE(view.contains("reason"));
}

TEST(Labels, FilterByKeyOrByKeyAndValue) {
  store::Sandbox s;
  s.labels = {{"role", "db"}};
  EXPECT_TRUE(has_label(s, "role"));
  EXPECT_TRUE(has_label(s, "role=db"));
  EXPECT_FALSE(has_label(s, "role=web"));
  EXPECT_FALSE(has_label(s, "other"));
}

}  // namespace
}  // namespace sbx::api
