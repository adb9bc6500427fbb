// Operations on names: lookup, creation, removal, rename, link.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdio>

#include "files/dispatcher.h"

namespace sbx::files {
namespace {

// The one name that a body (or what is left of it) consists of.
Outcome<std::string> only_name(Body body) {
  std::string_view name;
  if (!body.take_string(name) || !body.rest().empty()) return std::unexpected(EINVAL);
  if (const int error = check_name(name)) return std::unexpected(error);
  return std::string(name);
}

}  // namespace

void Dispatcher::add_entry(Reply& reply, Node* folder, Node& node, const struct statx& status) {
  const auto entry = folder == nullptr ? limits_.cache : coherence_.entry_lifetime(*folder);
  const auto attributes = coherence_.attribute_lifetime(node, status);
  fuse_entry_out out{};
  out.nodeid = node.id;
  out.entry_valid = static_cast<std::uint64_t>(entry.count() / 1000);
  out.entry_valid_nsec = static_cast<std::uint32_t>(entry.count() % 1000 * 1'000'000);
  out.attr_valid = static_cast<std::uint64_t>(attributes.count() / 1000);
  out.attr_valid_nsec = static_cast<std::uint32_t>(attributes.count() % 1000 * 1'000'000);
  out.attr = attributes_.of(status);
  reply.add(out);
}

Outcome<Node*> Dispatcher::adopt_child(const Target& parent, const std::string& name, struct statx& status) {
  auto fd = open_child(parent.get(), name);
  if (!fd) return std::unexpected(fd.error());
  auto seen = status_of(fd->get());
  if (!seen) return std::unexpected(seen.error());
  const auto node = nodes_.adopt(*parent.node, name, std::move(*fd), *seen);
  if (!node) return node;
  if ((*node)->is_folder() && (*node)->watch < 0 && coherence_.cover(**node)) {
    // Only what is seen from now on is sure to be followed by an event.
    const auto again = nodes_.descriptor(**node);
    seen = again ? status_of((*again)->get()) : std::unexpected(again.error());
    if (!seen) {
      nodes_.forget((*node)->id, 1);
      return std::unexpected(seen.error());
    }
  }
  status = *seen;
  return node;
}

int Dispatcher::reply_with_entry(const Target& parent, const std::string& name, Reply& reply) {
  struct statx status {};
  const auto node = adopt_child(parent, name, status);
  if (!node) return node.error();
  add_entry(reply, parent.node, **node, status);
  return 0;
}

int Dispatcher::reply_with_new(const Target& parent, const std::string& name, Reply& reply) {
  coherence_.made(*parent.node, name);
  tell_made(parent, name);
  return reply_with_entry(parent, name, reply);
}

int Dispatcher::reply_with_missing(Node& parent, const std::string& name, Reply& reply) {
  const auto lifetime = coherence_.missing_lifetime(parent, name);
  if (lifetime == std::chrono::milliseconds(0)) return ENOENT;
  fuse_entry_out out{};  // node 0
  out.entry_valid = static_cast<std::uint64_t>(lifetime.count() / 1000);
  out.entry_valid_nsec = static_cast<std::uint32_t>(lifetime.count() % 1000 * 1'000'000);
  reply.add(out);
  return 0;
}

int Dispatcher::lookup_workspace(std::string_view name, Reply& reply) {
  for (std::size_t i = 0; i < nodes_.workspaces().size(); ++i) {
    const auto& workspace = nodes_.workspaces()[i];
    if (std::to_string(workspace.index) == name && workspace.attached()) return reply_with_workspace(i, reply);
  }
  // One that has come since? Its number is a new one.
  unsigned index = 0;
  const auto [end, failed] = std::from_chars(name.data(), name.data() + name.size(), index);
  if (!late_.valid() || failed != std::errc() || std::to_string(index) != name) return ENOENT;
  for (const auto& workspace : nodes_.workspaces()) {
    if (workspace.index == index) return ENOENT;
  }
  auto workspace = open_late_workspace(late_.get(), index);
  if (!workspace) return ENOENT;
  const auto added = nodes_.add_workspace(*std::move(workspace));
  if (!added) return added.error();
  return reply_with_workspace(nodes_.workspaces().size() - 1, reply);
}

int Dispatcher::reply_with_workspace(std::size_t number, Reply& reply) {
  Node& root = nodes_.root_of(number);
  coherence_.cover(root);
  const auto status = status_of(nodes_.workspaces()[number].root->get());
  if (!status) return status.error();
  nodes_.count_lookup(root);
  add_entry(reply, nullptr, root, *status);
  return 0;
}

int Dispatcher::op_lookup(const Request& request, Reply& reply) {
  const auto name = only_name(Body(request.body));
  if (!name) return name.error();
  if (request.header.nodeid == kSyntheticRoot) return lookup_workspace(*name, reply);
  const auto parent = folder(request.header.nodeid, Intent::kLook);
  if (!parent) return parent.error();
  if (guard_.hides_anything() && hidden_in(*parent, *name)) return ENOENT;
  coherence_.cover(*parent->node);
  const int error = reply_with_entry(*parent, *name, reply);
  return error == ENOENT ? reply_with_missing(*parent->node, *name, reply) : error;
}

int Dispatcher::op_symlink(const Request& request, Reply& reply) {
  Body body(request.body);
  std::string_view name;
  std::string_view text;
  if (!body.take_string(name) || !body.take_string(text) || !body.rest().empty()) return EINVAL;
  if (const int error = check_name(name)) return error;
  if (text.empty()) return ENOENT;
  if (text.size() >= PATH_MAX) return ENAMETOOLONG;
  const auto parent = folder(request.header.nodeid, Intent::kChange);
  if (!parent) return parent.error();
  if (const int error = check_make(*parent, std::string(name), S_IFLNK)) return error;
  // The text is data to us: nothing here ever follows it.
  if (::symlinkat(std::string(text).c_str(), parent->get(), std::string(name).c_str()) != 0) return errno;
  return reply_with_new(*parent, std::string(name), reply);
}

int Dispatcher::op_mknod(const Request& request, Reply& reply) {
  Body body(request.body);
  fuse_mknod_in in{};
  body.take(in);
  const auto name = only_name(body);
  if (!name) return name.error();
  const mode_t type = (in.mode & S_IFMT) == 0 ? S_IFREG : in.mode & S_IFMT;
  // FIFOs and sockets are only names here: the guest's kernel gives them life in the guest, op_open opens neither.
  if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK) return EPERM;
  const auto parent = folder(request.header.nodeid, Intent::kChange);
  if (!parent) return parent.error();
  if (const int error = check_make(*parent, *name, type)) return error;
  if (::mknodat(parent->get(), name->c_str(), type | (in.mode & 0777U), 0) != 0) return errno;
  return reply_with_new(*parent, *name, reply);
}

int Dispatcher::op_mkdir(const Request& request, Reply& reply) {
  Body body(request.body);
  fuse_mkdir_in in{};
  body.take(in);
  const auto name = only_name(body);
  if (!name) return name.error();
  const auto parent = folder(request.header.nodeid, Intent::kChange);
  if (!parent) return parent.error();
  if (const int error = check_make(*parent, *name, S_IFDIR)) return error;
  if (::mkdirat(parent->get(), name->c_str(), in.mode & 01777U) != 0) return errno;
  return reply_with_new(*parent, *name, reply);
}

int Dispatcher::op_unlink(const Request& request, Reply&) { return remove_entry(request, 0); }

int Dispatcher::op_rmdir(const Request& request, Reply&) { return remove_entry(request, AT_REMOVEDIR); }

int Dispatcher::remove_entry(const Request& request, int flags) {
  const auto name = only_name(Body(request.body));
  if (!name) return name.error();
  const auto parent = folder(request.header.nodeid, Intent::kChange);
  if (!parent) return parent.error();
  const auto entry = entry_at(*parent, *name);
  if (!entry) return entry.error();
  if (!entry->fd.valid()) return ENOENT;
  if (const int error = guard_.may_remove(index_of(*parent->node), entry->place, entry->status.stx_mode)) return error;
  Node* known = nodes_.known_child(*parent->node, parent->get(), *name);
  if (::unlinkat(parent->get(), name->c_str(), flags) != 0) return errno;
  guard_.own_links().removed(entry->status);
  tell_changed(*parent->node, *entry);
  nodes_.lost_name(known, *parent->node, *name);
  return 0;
}

int Dispatcher::op_rename(const Request& request, Reply&) {
  Body body(request.body);
  fuse_rename_in in{};
  body.take(in);
  return rename_entry(request, in.newdir, 0, body);
}

int Dispatcher::op_rename2(const Request& request, Reply&) {
  Body body(request.body);
  fuse_rename2_in in{};
  body.take(in);
  return rename_entry(request, in.newdir, in.flags, body);
}

int Dispatcher::rename_entry(const Request& request, NodeId new_parent, std::uint32_t flags, Body body) {
  std::string_view old_text;
  if (!body.take_string(old_text)) return EINVAL;
  if (const int error = check_name(old_text)) return error;
  const std::string old_name(old_text);
  const auto new_name = only_name(body);
  if (!new_name) return new_name.error();
  // Not RENAME_WHITEOUT: that makes a device node.
  if (flags != 0 && flags != RENAME_NOREPLACE && flags != RENAME_EXCHANGE) return EINVAL;
  const auto from = folder(request.header.nodeid, Intent::kChange);
  if (!from) return from.error();
  const auto to = folder(new_parent, Intent::kChange);
  if (!to) return to.error();
  if (from->node->workspace != to->node->workspace) return EXDEV;
  const auto source = entry_at(*from, old_name);
  if (!source) return source.error();
  if (!source->fd.valid()) return ENOENT;
  const auto other = entry_at(*to, *new_name);
  if (!other) return other.error();
  const auto index = index_of(*from->node);
  if (const int error = check_arrival(index, *source, other->place)) return error;
  if (const int error =
          guard_.may_move(index, source->place, other->place, source->status.stx_mode, source->status.stx_nlink)) {
    return error;
  }
  if (flags == RENAME_EXCHANGE && other->fd.valid()) {
    if (const int error = check_arrival(index, *other, source->place)) return error;
    if (const int error =
            guard_.may_move(index, other->place, source->place, other->status.stx_mode, other->status.stx_nlink)) {
      return error;
    }
  }
  Node* moved = nodes_.known_child(*from->node, from->get(), old_name);
  Node* replaced = nodes_.known_child(*to->node, to->get(), *new_name);
  if (::renameat2(from->get(), old_name.c_str(), to->get(), new_name->c_str(), flags) != 0) return errno;
  if (moved == replaced && moved != nullptr) return 0;  // two links of one file: rename(2) does nothing
  tell_changed(*from->node, *source);
  if (!other->fd.valid()) {
    tell_made(*to, *new_name);
  } else {
    tell_changed(*to->node, *other);
    if (flags != RENAME_EXCHANGE && !S_ISDIR(other->status.stx_mode)) guard_.own_links().removed(other->status);
  }
  nodes_.moved(moved, *to->node, *new_name);
  coherence_.made(*to->node, *new_name);
  if (flags == RENAME_EXCHANGE) {
    nodes_.moved(replaced, *from->node, old_name);
    coherence_.made(*from->node, old_name);
  } else {
    nodes_.lost_name(replaced, *to->node, *new_name);
  }
  return 0;
}

int Dispatcher::op_link(const Request& request, Reply& reply) {
  Body body(request.body);
  fuse_link_in in{};
  body.take(in);
  const auto name = only_name(body);
  if (!name) return name.error();
  const auto parent = folder(request.header.nodeid, Intent::kChange);
  if (!parent) return parent.error();
  const auto existing = target(in.oldnodeid, Intent::kChange);
  if (!existing) return existing.error();
  if (existing->node->workspace != parent->node->workspace) return EXDEV;
  if (existing->node->is_folder()) return EPERM;
  const auto before = status_of(existing->get());
  if (!before) return before.error();
  const auto named = is_named(*existing);
  if (!named) return named.error();
  if (guard_.needs_paths()) {
    const auto from = place_of(*existing->node, existing->get());
    const auto to = place_in(*parent, *name);
    if (!from || !to) return ESTALE;
    if (const int error = guard_.may_link(index_of(*parent->node), *from, *to, before->stx_mode)) return error;
  }
  // AT_SYMLINK_FOLLOW follows the magic link to our own fd, and no further: a symlink is linked itself.
  if (::linkat(AT_FDCWD, descriptor_path(existing->get()).c_str(), parent->get(), name->c_str(), AT_SYMLINK_FOLLOW) !=
      0) {
    return errno;
  }
  guard_.own_links().added(*before, *named);
  return reply_with_new(*parent, *name, reply);
}

}  // namespace sbx::files
