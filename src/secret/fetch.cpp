#include "secret/fetch.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/command.h"
#include "base/file.h"

namespace sbx::secret {
namespace {

constexpr std::size_t kLargestValue = 64U << 10U;
constexpr std::size_t kShownError = 400;

std::vector<std::string> environment_with(const std::map<std::string, std::string>& changes) {
  std::vector<std::string> environment;
  for (char** entry = ::environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (!changes.contains(std::string(text.substr(0, text.find('='))))) environment.emplace_back(text);
  }
  for (const auto& [key, value] : changes) environment.push_back(key + "=" + value);
  return environment;
}

using Time = std::chrono::steady_clock::time_point;

// False when `until` comes before there is something to read.
bool readable_by(int fd, Time until) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    pollfd waiting{fd, POLLIN, 0};
    const int ready = ::poll(&waiting, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
    if (ready < 0 && errno == EINTR) continue;
    return ready > 0;
  }
}

bool ends_by(int pidfd, Time until) { return readable_by(pidfd, until); }

// Everything up to the end of file; kTimeout when `until` comes first.
Result<LockedString> read_until(int fd, Time until) {
  LockedString value;
  for (;;) {
    if (!readable_by(fd, until)) return fail(ErrorCode::kTimeout, "it took too long");
    const auto room = SBX_TRY(value.prepare(4096), "reading the value");
    const ssize_t got = ::read(fd, room.data(), room.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("reading the value", errno);
    if (got == 0) return value;
    value.commit(static_cast<std::size_t>(got));
    if (value.size() > kLargestValue) return fail(ErrorCode::kUnavailable, "it printed more than 64 KiB");
  }
}

// execvp(3) looks along our own PATH; the program is to be found along the one it will be given.
std::string find_program(const std::string& program, const std::map<std::string, std::string>& environment) {
  const auto path = environment.find("PATH");
  if (program.find('/') != std::string::npos || path == environment.end()) return program;
  std::string_view rest = path->second;
  while (!rest.empty()) {
    const auto folder = rest.substr(0, rest.find(':'));
    const std::string candidate = std::string(folder) + "/" + program;
    if (folder.starts_with('/') && ::access(candidate.c_str(), X_OK) == 0) return candidate;
    rest.remove_prefix(std::min(folder.size() + 1, rest.size()));
  }
  return program;
}

void trim(LockedString& value) {
  constexpr std::string_view kBlank = " \t\r\n";
  const auto end = value.reveal().find_last_not_of(kBlank);
  value.shrink_to(end == std::string_view::npos ? 0 : end + 1);
  if (!value.empty()) value.remove_prefix(value.reveal().find_first_not_of(kBlank));
}

}  // namespace

Result<std::vector<std::string>> reference_command(const std::string& reference) {
  const bool plain = std::ranges::all_of(reference, [](unsigned char c) { return c >= ' ' && c != 0x7f; });
  if (reference.starts_with("op://") && plain) return std::vector<std::string>{"op", "read", "--no-newline", reference};
  // arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME
  if (reference.starts_with("arn:aws") && reference.find(":secretsmanager:") != std::string::npos && plain) {
    std::vector<std::string> argv = {"aws",     "secretsmanager", "get-secret-value", "--secret-id", reference,
                                     "--query", "SecretString",   "--output",         "text"};
    const auto region = reference.find(":secretsmanager:") + std::string_view(":secretsmanager:").size();
    const std::string name = reference.substr(region, reference.find(':', region) - region);
    if (!name.empty()) argv.insert(argv.end(), {"--region", name});
    return argv;
  }
  return fail(ErrorCode::kInvalid,
              "--ref takes op://VAULT/ITEM/FIELD (1Password) or the ARN of an AWS Secrets Manager secret");
}

std::vector<std::string> shell_command(const std::string& command) { return {"/bin/sh", "-c", command}; }

Result<LockedString> fetch(const std::vector<std::string>& argv, const FetchOptions& options) {
  const auto folder = SBX_TRY(TemporaryFolder::make("sbx-secret"), "making a folder to run in");
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("making a pipe", errno);
  const UniqueFd output(ends[0]);
  UniqueFd write_end(ends[1]);
  // Beside the folder that the program runs in, so that it starts with an empty one.
  std::string error_path = folder.path().string() + ".XXXXXX";
  UniqueFd errors(::mkostemp(error_path.data(), O_CLOEXEC));
  if (!errors.valid()) return fail_errno("making a file for messages", errno);
  ::unlink(error_path.c_str());

  std::vector<std::string> found = argv;
  found[0] = find_program(argv[0], options.environment);
  auto child = Command(found)
                   .environment(environment_with(options.environment))
                   .working_folder(folder.path().native())
                   .stdout_to(write_end.get())
                   .stderr_to(errors.get())
                   .new_session()
                   .start();
  if (!child)
    return fail(ErrorCode::kUnavailable,
                argv[0] + " cannot be started" +
                    (child.error().code == ErrorCode::kNotFound ? ": it is not installed, or not on the PATH" : ""));
  write_end.reset();
  const auto until = std::chrono::steady_clock::now() + options.patience;
  auto value = read_until(output.get(), until);
  if (value && !ends_by(child->pidfd(), until)) value = fail(ErrorCode::kTimeout, "it took too long");
  if (!value) {
    ::kill(-child->pid(), SIGKILL);  // the whole session: a pipeline's other programs too
    return fail(value.error().code, argv[0] + " gave no secret: " + value.error().message);
  }
  const auto status = SBX_TRY(child->wait(), "waiting for " + argv[0]);
  if (!status.success()) {
    std::string message = argv[0] + " gave no secret: it ended with " + status.describe();
    if (options.show_error) {
      std::string text(kShownError, '\0');
      const ssize_t got = ::pread(errors.get(), text.data(), text.size(), 0);
      text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
      message += "\n" + text;
    } else {
      message += " (--show-error shows what it said)";
    }
    return fail(ErrorCode::kUnavailable, message);
  }
  trim(*value);
  if (value->empty()) return fail(ErrorCode::kUnavailable, argv[0] + " gave no secret: it printed nothing");
  return value;
}

}  // namespace sbx::secret
