// What a sandbox finds in its image, and `sbx image` and `sbx template`.
#include <gtest/gtest.h>

#include <algorithm>

#include "instance.h"

namespace sbx::test {
namespace {

TEST(Image, HoldsTheToolsThatAnAgentNeeds) {
  Sandbox sandbox;
  const auto outcome = sandbox.shell(
      "for tool in bash git gh docker dockerd containerd runc crun node npm python3 pip gcc g++ make curl jq rg tini "
      "socat ssh sudo ps ip nft iptables less vi sqlite3 unzip zip xz zstd rsync tree file patch; do "
      "PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null || echo missing $tool; done; "
      "python3 -m venv --help >/dev/null || echo missing venv; "
      "docker compose version >/dev/null || echo missing compose; docker buildx version >/dev/null || echo missing "
      "buildx");
  EXPECT_EQ(outcome.out, "") << outcome.err;
  const auto facts = sandbox.shell(
      ". /etc/os-release; echo $VERSION_CODENAME; uname -r | cut -d. -f1,2; locale charmap; id -u; id -g; echo $HOME; "
      "sudo -n id -u; stat -c %F /run/docker.sock; cat /proc/1/comm");
  EXPECT_EQ(facts.out, "trixie\n6.12\nUTF-8\n1000\n1000\n/home/agent\n0\nsocket\ninit\n") << facts.err;
  // Nothing but docker and the kernel's own threads runs before somebody starts something.
  EXPECT_EQ(
      sandbox.shell("ps -eo ppid=,comm= | awk '$1 != 2 && $2 !~ /^(init|kthreadd|dockerd|containerd|ps|awk|bash)$/'")
          .out,
      "");
}

TEST(Image, OnesInUseStayAndUnknownOnesAreNotFound) {
  Sandbox sandbox;
  const auto images = sbx_json({"image", "ls", "--json"})["images"];
  const std::string image = sandbox.inspected()["image"];
  // Others may be there: of recipes before this one.
  const auto listed = std::ranges::find_if(images, [&](const auto& each) { return each["id"] == image; });
  ASSERT_NE(listed, images.end()) << images.dump();
  EXPECT_EQ((*listed)["suite"], "trixie");
  EXPECT_GT((*listed)["size"].get<std::int64_t>(), 0);
  EXPECT_NE(sbx({"image", "ls", "-q"}).out.find(image + "\n"), std::string::npos);
  EXPECT_NE(sbx({"image", "ls"}).out.find(image), std::string::npos);
  const auto refused = sbx({"image", "rm", image});
  EXPECT_EQ(refused.status, 1);
  EXPECT_NE(refused.err.find("is used by"), std::string::npos) << refused.err;
  EXPECT_EQ(sbx({"image", "rm", "0123456789ab"}).status, 1);

  const auto templates = sbx_json({"template", "ls", "--json"})["templates"];
  ASSERT_GE(templates.size(), 1U);
  const std::string id = sandbox.inspected()["template"];
  const auto in_use = sbx({"template", "rm", id});
  EXPECT_EQ(in_use.status, 1);
  EXPECT_NE(in_use.err.find("is used by"), std::string::npos) << in_use.err;
  EXPECT_NE(sbx({"template", "ls", "-q"}).out.find(id + "\n"), std::string::npos);
  EXPECT_NE(sbx({"template", "ls"}).out.find("TEMPLATE"), std::string::npos);
  // Built before: nothing to do.
  EXPECT_EQ(sbx_json({"image", "build", "--json"})["id"], image);
}

}  // namespace
}  // namespace sbx::test
