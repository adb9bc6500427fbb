// sbx-keeper --spec-fd N: runs one sandbox, or builds one template (docs/development/protocols.md, "Keeper launch").
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <charconv>
#include <cstring>
#include <iostream>

#include "base/file.h"
#include "keeper/keeper.h"
#include "keeper/template_builder.h"

namespace {

using sbx::Result;

void report(const nlohmann::json& line) {
  (void)sbx::write_all(STDOUT_FILENO, line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  // The reader has its one line; what holds stdout open now would keep it waiting.
  ::close(STDOUT_FILENO);
}

void report_result(const Result<std::int64_t>& result) {
  if (result) return report({{"ready", true}, {"ms", *result}});
  report({{"error", {{"code", sbx::to_string(result.error().code)}, {"message", result.error().describe()}}}});
}

Result<sbx::keeper::LaunchSpec> read_spec(int argc, char** argv) {
  int fd = -1;
  if (argc != 3 || std::strcmp(argv[1], "--spec-fd") != 0 ||
      std::from_chars(argv[2], argv[2] + std::strlen(argv[2]), fd).ec != std::errc{} || fd < 0) {
    return sbx::fail(sbx::ErrorCode::kInvalid, "usage: sbx-keeper --spec-fd N (it is started by sbxd)");
  }
  const sbx::UniqueFd owned(fd);
  const auto text =
      SBX_TRY(sbx::read_file("/proc/self/fd/" + std::to_string(fd), 4U << 20U), "reading the launch spec");
  return sbx::keeper::parse_launch_spec(text);
}

}  // namespace

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  ::umask(077);
  spdlog::set_default_logger(spdlog::stderr_logger_mt("keeper"));
  auto spec = read_spec(argc, argv);
  if (!spec) {
    report_result(std::unexpected(spec.error()));
    std::cerr << spec.error().describe() << "\n";
    return 2;
  }
  boost::asio::io_context io(1);
  bool failed = false;
  if (spec->mode == sbx::keeper::LaunchMode::kTemplate) {
    boost::asio::co_spawn(
        io,
        [&]() -> boost::asio::awaitable<void> {
          auto built = co_await sbx::keeper::build_template(*spec);
          failed = !built;
          report_result(built);
          io.stop();
        },
        boost::asio::detached);
    io.run();
    return failed ? 1 : 0;
  }
  sbx::keeper::Keeper keeper(io, std::move(*spec));
  boost::asio::co_spawn(io, keeper.run([&](const Result<std::int64_t>& result) {
    failed = !result;
    report_result(result);
  }),
                        boost::asio::detached);
  io.run();
  return failed ? 1 : 0;
}
