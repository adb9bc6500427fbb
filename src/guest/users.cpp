#include "guest/users.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/file.h"

namespace sbx::guest {
namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::optional<unsigned> number(std::string_view text) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// passwd(5): name:password:uid:gid:gecos:home:shell. A name is looked up before a number, as Docker does.
std::optional<User> in_passwd(std::string_view wanted, std::string_view passwd) {
  const auto wanted_uid = number(wanted);
  std::optional<User> by_number;
  for (const auto line : split(passwd, '\n')) {
    const auto fields = split(line, ':');
    if (fields.size() < 7) continue;
    const auto uid = number(fields[2]);
    const auto gid = number(fields[3]);
    if (!uid || !gid) continue;
    User user{*uid, *gid, {}, std::string(fields[0]), std::string(fields[5]), std::string(fields[6])};
    if (user.home.empty()) user.home = "/";
    if (user.shell.empty()) user.shell = "/bin/sh";
    if (fields[0] == wanted) return user;
    if (wanted_uid == uid && !by_number) by_number = std::move(user);
  }
  return by_number;
}

struct Group {
  std::string_view name;
  gid_t gid;
  std::vector<std::string_view> members;
};

// group(5): name:password:gid:member,member
std::vector<Group> parse_groups(std::string_view text) {
  std::vector<Group> groups;
  for (const auto line : split(text, '\n')) {
    const auto fields = split(line, ':');
    if (fields.size() < 4) continue;
    if (const auto gid = number(fields[2])) groups.push_back({fields[0], *gid, split(fields[3], ',')});
  }
  return groups;
}

}  // namespace

Result<User> resolve_user(std::string_view wanted, std::string_view passwd, std::string_view group) {
  const auto colon = wanted.find(':');
  std::string_view user_part = wanted.substr(0, colon);
  const std::string_view group_part = colon == std::string_view::npos ? std::string_view() : wanted.substr(colon + 1);
  if (user_part.empty()) user_part = in_passwd("agent", passwd) ? "agent" : "root";

  auto user = in_passwd(user_part, passwd);
  if (!user) {
    const auto uid = number(user_part);
    if (!uid && user_part == "root") {
      user = User{0, 0, {}, "root", "/root", "/bin/sh"};  // an image without a passwd still has a root
    } else if (!uid) {
      return fail(ErrorCode::kNotFound,
                  "unable to find user " + std::string(user_part) + ": no matching entries in passwd file");
    } else {
      user = User{*uid, 0, {}, std::string(user_part), "/", "/bin/sh"};
    }
  }
  const auto groups = parse_groups(group);
  if (!group_part.empty()) {
    const auto found = std::ranges::find(groups, group_part, &Group::name);
    if (found != groups.end()) {
      user->gid = found->gid;
    } else if (const auto gid = number(group_part)) {
      user->gid = *gid;
    } else {
      return fail(ErrorCode::kNotFound,
                  "unable to find group " + std::string(group_part) + ": no matching entries in group file");
    }
    return *user;
  }
  for (const auto& entry : groups) {
    if (std::ranges::find(entry.members, std::string_view(user->name)) != entry.members.end()) {
      user->groups.push_back(entry.gid);
    }
  }
  return *user;
}

Result<User> find_user(std::string_view wanted) {
  const auto passwd = read_file("/etc/passwd");
  const auto group = read_file("/etc/group");
  return resolve_user(wanted, passwd ? std::string_view(*passwd) : "", group ? std::string_view(*group) : "");
}

}  // namespace sbx::guest
