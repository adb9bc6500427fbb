#include "guest/network.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "guest/console.h"
#include "guest/exec_plan.h"
#include "guest/spawn.h"

namespace sbx::guest {
namespace {

constexpr std::uint16_t kRedirectPort = 61'443;  // above the ports that the kernel gives out (32768 to 60999)
constexpr std::uint16_t kDnsPort = 53;
constexpr std::string_view kToolPath = "/usr/sbin:/usr/bin:/sbin:/bin";

std::string own_address() { return boost::asio::ip::address_v4(NameMap::kOwnAddress).to_string(); }

// Not write_file_atomically(): no fsync at boot for what the next boot writes again.
Result<void> put(const char* path, std::string_view text) {
  const auto file = SBX_TRY(open_file(path, O_WRONLY | O_CREAT | O_TRUNC, 0644), "writing " + std::string(path));
  return write_all(file.get(), text);
}

void complain(const Result<void>& result) {
  if (!result) console_line("network: " + result.error().describe());
}

}  // namespace

std::string interface_commands() {
  return "link add sbx0 type dummy\n"
         "link set sbx0 mtu 65535 up\n"
         "address add " +
         own_address() +
         "/32 dev sbx0\n"
         "route add default dev sbx0 src " +
         own_address() + "\n";
}

std::string netfilter_rules() {
  const std::string port = std::to_string(kRedirectPort);
  // Ahead of Docker's chains (-100 for nat, 0 for filter), whose forward policy drops in silence.
  return "table ip sbx {\n"
         "  chain output {\n"
         "    type nat hook output priority -110;\n"
         "    oifname \"sbx0\" meta l4proto tcp redirect to :" +
         port +
         "\n"
         "  }\n"
         "  chain prerouting {\n"
         "    type nat hook prerouting priority -110;\n"
         "    meta l4proto tcp fib daddr oifname \"sbx0\" redirect to :" +
         port +
         "\n"
         "  }\n"
         "  chain refuse_output {\n"
         "    type filter hook output priority -10;\n"
         "    oifname \"sbx0\" meta l4proto != tcp reject with icmp type port-unreachable\n"
         "  }\n"
         "  chain refuse_forward {\n"
         "    type filter hook forward priority -10;\n"
         "    oifname \"sbx0\" reject with icmp type port-unreachable\n"
         "  }\n"
         "}\n";
}

Network::Network(boost::asio::any_io_executor executor, Reaper& reaper)
    : executor_(executor),
      reaper_(reaper),
      gateway_(executor),
      resolver_(executor, names_, [this](std::string query) { return gateway_.dns_query(std::move(query)); }),
      redirect_(executor, gateway_, names_, original_destination) {}

Awaitable<Result<void>> Network::run_tool(std::vector<std::string> argv, std::string input) {
  const std::string name = argv.front();
  const UniqueFd text(::memfd_create(name.c_str(), MFD_CLOEXEC));
  if (!text.valid()) co_return fail_errno("memfd_create", errno);
  SBX_CO_CHECK(write_all(text.get(), input), "preparing " + name);
  ::lseek(text.get(), 0, SEEK_SET);
  const UniqueFd output(::memfd_create("output", MFD_CLOEXEC));
  SpawnPlan plan;
  plan.candidates = program_candidates(name, kToolPath);
  plan.argv = std::move(argv);
  plan.standard[0] = text.get();
  plan.standard[1] = plan.standard[2] = output.get();
  SBX_CO_TRY(const auto spawned, spawn(plan), "running " + name);
  const auto child = reaper_.adopt(spawned.pid);
  co_await child->ended.wait();
  if (child->wait_status == 0) co_return Result<void>{};
  const auto said = read_file("/proc/self/fd/" + std::to_string(output.get()), 4096);
  co_return fail(ErrorCode::kInternal, name + " failed: " + said.value_or("(nothing said)"));
}

Awaitable<void> Network::set_up() {
  std::vector<std::string> ip = {"ip", "-batch", "-"};
  const auto made = co_await run_tool(std::move(ip), interface_commands());
  complain(made);
  // Addresses of IPv6 lead nowhere: no route, so that programs try IPv4 at once.
  complain(put("/proc/sys/net/ipv6/conf/sbx0/disable_ipv6", "1"));
  std::vector<std::string> nft = {"nft", "-f", "-"};
  const auto ruled = co_await run_tool(std::move(nft), netfilter_rules());
  complain(ruled);
  const auto resolving = resolver_.listen(boost::asio::ip::address_v4(NameMap::kOwnAddress), kDnsPort);
  if (!resolving) console_line("network: " + resolving.error().describe());
  const auto redirecting = redirect_.listen(kRedirectPort);
  if (!redirecting) console_line("network: " + redirecting.error().describe());
  complain(
      put("/etc/resolv.conf", "# sbx-guest answers here, through the gateway.\nnameserver " + own_address() + "\n"));
}

}  // namespace sbx::guest
