// Extended attributes: only user.*, and only where Linux has them (regular files and folders). Everything else that
// lives in extended attributes (capabilities, ACLs, labels) would mean something to the host.
#include <linux/limits.h>
#include <sys/xattr.h>

#include <cerrno>

#include "files/dispatcher.h"

namespace sbx::files {
namespace {
constexpr std::string_view kUser = "user.";
}

Outcome<Dispatcher::Target> Dispatcher::xattr_target(NodeId id, std::string_view name, Intent intent) {
  if (!name.starts_with(kUser)) return std::unexpected(EOPNOTSUPP);
  if (name.size() == kUser.size()) return std::unexpected(EINVAL);
  if (name.size() > XATTR_NAME_MAX) return std::unexpected(ERANGE);
  auto node = target(id, intent);
  if (node && !node->node->is_file() && !node->node->is_folder()) {
    return std::unexpected(intent == Intent::kChange ? EPERM : ENODATA);
  }
  return node;
}

int Dispatcher::op_setxattr(const Request& request, Reply&) {
  Body body(request.body);
  struct {
    std::uint32_t size;
    std::uint32_t flags;
  } in{};  // fuse_setxattr_in without FUSE_SETXATTR_EXT
  static_assert(sizeof(in) == FUSE_COMPAT_SETXATTR_IN_SIZE);
  std::string_view name;
  if (!body.take(in) || !body.take_string(name) || body.rest().size() != in.size) return EINVAL;
  if (in.size > XATTR_SIZE_MAX) return E2BIG;
  if ((in.flags & ~static_cast<std::uint32_t>(XATTR_CREATE | XATTR_REPLACE)) != 0) return EINVAL;
  const auto node = xattr_target(request.header.nodeid, name, Intent::kChange);
  if (!node) return node.error();
  if (const int error = check_change(*node, "attributes")) return error;
  const int status = ::setxattr(descriptor_path(node->get()).c_str(), std::string(name).c_str(), body.rest().data(),
                                in.size, static_cast<int>(in.flags));
  return status == 0 ? 0 : errno;
}

int Dispatcher::op_getxattr(const Request& request, Reply& reply) {
  Body body(request.body);
  fuse_getxattr_in in{};
  std::string_view name;
  if (!body.take(in) || !body.take_string(name) || !body.rest().empty()) return EINVAL;
  const auto node = xattr_target(request.header.nodeid, name, Intent::kLook);
  if (!node) return node.error();
  const auto room = std::min<std::size_t>(in.size, XATTR_SIZE_MAX);
  const ssize_t size = ::getxattr(descriptor_path(node->get()).c_str(), std::string(name).c_str(),
                                  room == 0 ? nullptr : reply.extend(room), room);
  if (size < 0) return errno;
  reply.shrink(room == 0 ? 0 : static_cast<std::size_t>(size));
  if (room == 0) reply.add(fuse_getxattr_out{static_cast<std::uint32_t>(size), 0});
  return 0;
}

int Dispatcher::op_listxattr(const Request& request, Reply& reply) {
  fuse_getxattr_in in{};
  Body(request.body).take(in);
  if (request.header.nodeid == kSyntheticRoot) return EOPNOTSUPP;
  const auto node = target(request.header.nodeid, Intent::kLook);
  if (!node) return node.error();
  std::string names;
  if (node->node->is_file() || node->node->is_folder()) {
    std::string all(XATTR_LIST_MAX, '\0');
    const ssize_t size = ::listxattr(descriptor_path(node->get()).c_str(), all.data(), all.size());
    if (size < 0) return errno;
    Body list(std::string_view(all).substr(0, static_cast<std::size_t>(size)));
    std::string_view name;
    while (list.take_string(name)) {
      if (name.starts_with(kUser)) names.append(name).push_back('\0');
    }
  }
  if (in.size == 0) {
    reply.add(fuse_getxattr_out{static_cast<std::uint32_t>(names.size()), 0});
    return 0;
  }
  if (names.size() > in.size) return ERANGE;
  reply.add_bytes(names);
  return 0;
}

int Dispatcher::op_removexattr(const Request& request, Reply&) {
  Body body(request.body);
  std::string_view name;
  if (!body.take_string(name) || !body.rest().empty()) return EINVAL;
  const auto node = xattr_target(request.header.nodeid, name, Intent::kChange);
  if (!node) return node.error();
  if (const int error = check_change(*node, "attributes")) return error;
  return ::removexattr(descriptor_path(node->get()).c_str(), std::string(name).c_str()) == 0 ? 0 : errno;
}

}  // namespace sbx::files
