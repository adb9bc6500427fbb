// The sandbox's own Docker. No network: images are FROM scratch with the guest's static busybox. One test per sandbox
// and story, since every `docker` command costs a second or two under software emulation.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <iostream>

#include "instance.h"

namespace sbx::test {
namespace {

// An image "box" that runs busybox applets.
void build_box(const Sandbox& sandbox) {
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "Dockerfile",
                                    "FROM scratch\nCOPY busybox /bin/busybox\nCOPY www /www\n"
                                    "ENTRYPOINT [\"/bin/busybox\"]\n",
                                    0644));
  const auto built =
      sandbox.shell("mkdir -p www && echo served > www/index.html && cp /bin/busybox . && docker build -q -t box .");
  ASSERT_EQ(built.status, 0) << built.err;
}

std::string last_line(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

TEST(Docker, BuildsRunsWithEitherRuntimeAndComposesServicesOnANetwork) {
  Sandbox sandbox;
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "compose.yaml", R"(
services:
  web:
    build: .
    image: box
    command: ["httpd", "-f", "-p", "8080", "-h", "/www"]
    volumes: ["data:/data"]
  client:
    image: box
    depends_on: [web]
    command: ["wget", "-q", "-O", "/data/fetched", "http://web:8080/index.html"]
    volumes: ["data:/data"]
volumes:
  data:
)",
                                    0644));
  build_box(sandbox);
  EXPECT_EQ(sandbox.shell("docker info -f '{{.DefaultRuntime}}'").out, "crun\n");
  EXPECT_EQ(sandbox.shell("docker run --rm --network none box echo default").out, "default\n");
  EXPECT_EQ(sandbox.shell("docker run --rm --network none --runtime runc box echo other").out, "other\n");
  EXPECT_EQ(sandbox.shell("docker run --rm --network none box sh -c 'exit 42'").status, 42);
  const auto composed = sandbox.shell(
      "docker compose --progress plain -p app up --exit-code-from client && "
      "docker run --rm --network none -v app_data:/data box cat /data/fetched");
  EXPECT_EQ(composed.status, 0) << composed.err;
  EXPECT_EQ(last_line(composed.out), "served") << composed.err;
  const auto down = sandbox.shell("docker compose -p app down -v && docker ps -aq && docker volume ls -q");
  EXPECT_EQ(down.status, 0) << down.err;
  EXPECT_EQ(down.out, "");
}

// Both write the time over and over, and take no notice of SIGTERM. What they wrote last is when they were ended. A
// machine that is busy with something else may be late a few times, and a slow one takes as much longer as for a
// command.
TEST(Docker, StopEndsAProcessAndAContainerThatIgnoreSigtermWithinASecond) {
  Sandbox sandbox;
  build_box(sandbox);
  const std::string beat = "trap '' TERM; while :; do echo x > $0; busybox usleep 20000; done";
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "beat", beat, 0755));
  long round_trip = 150;
  for (int i = 0; i < 5; ++i) {
    const auto began = std::chrono::steady_clock::now();
    ASSERT_EQ(sandbox.exec({"true"}).status, 0);
    const auto took = std::chrono::steady_clock::now() - began;
    round_trip = std::max<long>(round_trip, std::chrono::duration_cast<std::chrono::milliseconds>(took).count());
  }
  const long most = 1000 * round_trip / 150;
  long best = 1'000'000;
  for (int attempt = 0; attempt < 5 && best > most; ++attempt) {
    const auto ws = sandbox.workspace().string();
    const auto started =
        sandbox.shell("docker rm -f beating >/dev/null 2>&1; docker run -d --network none --name beating -v " + ws +
                      ":/ws box sh -c \"$(cat beat)\" /ws/container && (setsid bash -c \"$(cat beat)\" " + ws +
                      "/process >/dev/null 2>&1 &) ; while [ ! -s container ] || [ ! -s process ]; do sleep 0.1; done");
    ASSERT_EQ(started.status, 0) << started.err;
    const auto asked = std::chrono::file_clock::now();
    ASSERT_EQ(sbx({"stop", sandbox.name()}).status, 0);
    long first = best;
    long last = 0;
    for (const char* who : {"process", "container"}) {
      const auto written = std::filesystem::last_write_time(sandbox.workspace() / who) - asked;
      const long ms = std::chrono::duration_cast<std::chrono::milliseconds>(written).count();
      first = std::min(first, ms);
      last = std::max(last, ms);
    }
    std::cout << "the last of them ended after " << last << " ms\n";
    if (first > 0) best = std::min(best, last);  // else one of them had ended before it was asked to
  }
  EXPECT_LE(best, most) << "ms from `sbx stop` to the end of the last process";
}

TEST(Docker, ComesBackWhenItIsKilledAndContainersOnAUserNetworkFindEachOther) {
  Sandbox sandbox;
  build_box(sandbox);
  const auto started = sandbox.shell(
      "docker network create own && "
      "docker run -d --restart always --name server --network own box httpd -f -p 80 -h /www");
  ASSERT_EQ(started.status, 0) << started.err;
  const auto dockerd = sandbox.root("pgrep -x dockerd").out;
  ASSERT_EQ(sandbox.root("kill -9 " + dockerd).status, 0);
  ASSERT_TRUE(eventually([&] {
    const auto now = sandbox.root("pgrep -x dockerd");
    return now.status == 0 && now.out != dockerd;
  })) << "nobody starts dockerd again";
  ASSERT_TRUE(eventually([&] { return sandbox.exec({"docker", "ps"}).status == 0; }, 120));
  ASSERT_TRUE(
      eventually([&] { return sandbox.shell("docker ps -q -f name=server -f status=running").out.size() > 1; }, 120));
  const auto fetched = sandbox.shell("docker run --rm --network own box wget -qO- http://server/index.html");
  EXPECT_EQ(fetched.out, "served\n") << fetched.err;
}

TEST(Docker, WhatItHoldsOutlivesStopAndContainersEndInOrder) {
  Sandbox sandbox;
  build_box(sandbox);
  // `polite` leaves a mark when it is asked to end, `stubborn` does not listen, `loyal` is to come back.
  const auto started = sandbox.shell(
      "docker volume create kept && "
      "docker run -d --network none --name polite -v kept:/kept box sh -c "
      "'trap \"echo bye > /kept/mark; exit 0\" TERM; echo up > /kept/up; while :; do sleep 0.1; done' && "
      "docker run -d --network none --name stubborn box sh -c 'trap \"\" TERM; while :; do sleep 1; done' && "
      "docker run -d --network none --name loyal --restart always -v $PWD:/workspace box sleep 100000 && "
      "until [ \"$(docker run --rm --network none -v kept:/kept box cat /kept/up)\" = up ]; do sleep 0.2; done");
  ASSERT_EQ(started.status, 0) << started.err;
  const auto stopped = sbx({"stop", sandbox.name()});
  ASSERT_EQ(stopped.status, 0) << stopped.err;
  EXPECT_EQ(sandbox.status(), "stopped");
  const auto after = sandbox.shell(
      "docker run --rm --network none -v kept:/kept box cat /kept/mark; docker images -q box | wc -l; "
      "docker ps -a --format '{{.Names}}' | sort");
  EXPECT_EQ(after.out, "bye\n1\nloyal\npolite\nstubborn\n") << after.err;
  EXPECT_TRUE(eventually([&] { return sandbox.shell("docker ps --format '{{.Names}}'").out == "loyal\n"; }, 120))
      << sandbox.shell("docker ps -a").out;
  // It was started after the workspace was mounted anew, not before.
  EXPECT_EQ(sandbox.shell("docker exec loyal /bin/busybox cat /workspace/www/index.html").out, "served\n");
}

}  // namespace
}  // namespace sbx::test
