#include "guest/warm_up.h"

#include <nlohmann/json.hpp>

#include "guest/exec_plan.h"
#include "guest/spawn.h"
#include "guest/users.h"

namespace sbx::guest {

Awaitable<Result<void>> warm_up(Guest& guest, std::string body) {
  const auto request = nlohmann::json::parse(body, nullptr, false);
  SpawnPlan plan;
  try {
    plan.argv = request.at("argv").get<std::vector<std::string>>();
  } catch (const nlohmann::json::exception& error) {
    co_return fail(ErrorCode::kInvalid, std::string("the command is malformed: ") + error.what());
  }
  if (plan.argv.empty()) co_return fail(ErrorCode::kInvalid, "argv is empty");
  auto user = find_user({});
  if (!user) co_return std::unexpected(std::move(user).error());
  plan.user = *std::move(user);
  plan.environment = build_environment(plan.user, false, {}, {}, {});
  plan.candidates = program_candidates(plan.argv.front(), value_of(plan.environment, "PATH"));
  const auto spawned = spawn(plan);
  if (!spawned) co_return std::unexpected(spawned.error());
  const auto child = guest.reaper.adopt(spawned->pid);
  co_await child->ended.wait();
  co_return Result<void>();
}

}  // namespace sbx::guest
