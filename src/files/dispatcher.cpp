#include "files/dispatcher.h"

#include <array>
#include <cerrno>

namespace sbx::files {
namespace {

// fuse_init_in before 7.36.
constexpr std::size_t kOldInit = 16;
constexpr std::uint32_t kOldestMinor = 31;
// No writeback cache: the host writes these files too, and the guest's copy must not win. No remote locks. The host's
// kernel clears setuid bits on writes, so the guest need not ask for capabilities before each (HANDLE_KILLPRIV_V2). Not
// ATOMIC_O_TRUNC, since the truncation would be OPEN's. AUTO_INVAL_DATA beside our own invalidations: a file that no
// watch covers is compared by its time of modification at each read.
constexpr std::uint32_t kWanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA | FUSE_PARALLEL_DIROPS |
                                  FUSE_MAX_PAGES | FUSE_HANDLE_KILLPRIV_V2 | FUSE_DO_READDIRPLUS |
                                  FUSE_READDIRPLUS_AUTO | FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT |
                                  FUSE_CACHE_SYMLINKS;
constexpr std::uint32_t kPage = 4096;
// The first whose kernel (Linux 6.18) keeps a name that it takes for missing although it is told otherwise.
constexpr std::uint32_t kKeepsMissingNames = 45;

}  // namespace

const Dispatcher::Row* Dispatcher::row_of(std::uint32_t opcode) {
  using D = Dispatcher;
  // Not here, hence ENOSYS: OPEN, OPENDIR, ACCESS and FLUSH (nothing to do, and the guest then stops asking), locks,
  // IOCTL, POLL, BMAP, SYNCFS, TMPFILE, DAX mappings.
  static const auto rows = [] {
    std::array<Row, FUSE_TMPFILE + 1> table{};
    table[FUSE_INIT] = {&D::op_init, kOldInit};
    table[FUSE_DESTROY] = {&D::op_destroy, 0};
    table[FUSE_FORGET] = {&D::op_forget, sizeof(fuse_forget_in), false};
    table[FUSE_BATCH_FORGET] = {&D::op_batch_forget, sizeof(fuse_batch_forget_in), false};
    table[FUSE_INTERRUPT] = {&D::op_ignore, 0, false};
    table[FUSE_NOTIFY_REPLY] = {&D::op_ignore, 0, false};
    table[FUSE_LOOKUP] = {&D::op_lookup, 2};
    table[FUSE_SYMLINK] = {&D::op_symlink, 4};
    table[FUSE_MKNOD] = {&D::op_mknod, sizeof(fuse_mknod_in) + 2};
    table[FUSE_MKDIR] = {&D::op_mkdir, sizeof(fuse_mkdir_in) + 2};
    table[FUSE_UNLINK] = {&D::op_unlink, 2};
    table[FUSE_RMDIR] = {&D::op_rmdir, 2};
    table[FUSE_RENAME] = {&D::op_rename, sizeof(fuse_rename_in) + 4};
    table[FUSE_RENAME2] = {&D::op_rename2, sizeof(fuse_rename2_in) + 4};
    table[FUSE_LINK] = {&D::op_link, sizeof(fuse_link_in) + 2};
    table[FUSE_GETATTR] = {&D::op_getattr, sizeof(fuse_getattr_in)};
    table[FUSE_SETATTR] = {&D::op_setattr, sizeof(fuse_setattr_in)};
    table[FUSE_READLINK] = {&D::op_readlink, 0};
    table[FUSE_STATFS] = {&D::op_statfs, 0};
    table[FUSE_SETXATTR] = {&D::op_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE + 2};
    table[FUSE_GETXATTR] = {&D::op_getxattr, sizeof(fuse_getxattr_in) + 2};
    table[FUSE_LISTXATTR] = {&D::op_listxattr, sizeof(fuse_getxattr_in)};
    table[FUSE_REMOVEXATTR] = {&D::op_removexattr, 2};
    table[FUSE_CREATE] = {&D::op_create, sizeof(fuse_create_in) + 2};
    table[FUSE_READ] = {&D::op_read, sizeof(fuse_read_in)};
    table[FUSE_WRITE] = {&D::op_write, sizeof(fuse_write_in)};
    table[FUSE_RELEASE] = {&D::op_ignore, sizeof(fuse_release_in)};
    table[FUSE_FSYNC] = {&D::op_fsync, sizeof(fuse_fsync_in)};
    table[FUSE_FALLOCATE] = {&D::op_fallocate, sizeof(fuse_fallocate_in)};
    table[FUSE_LSEEK] = {&D::op_lseek, sizeof(fuse_lseek_in)};
    table[FUSE_COPY_FILE_RANGE] = {&D::op_copy_file_range, sizeof(fuse_copy_file_range_in)};
    table[FUSE_READDIR] = {&D::op_readdir, sizeof(fuse_read_in)};
    table[FUSE_READDIRPLUS] = {&D::op_readdirplus, sizeof(fuse_read_in)};
    table[FUSE_FSYNCDIR] = {&D::op_fsyncdir, sizeof(fuse_fsync_in)};
    return table;
  }();
  return opcode < rows.size() && rows[opcode].operation != nullptr ? &rows[opcode] : nullptr;
}

Dispatcher::Dispatcher(std::vector<Workspace> workspaces, Limits limits, std::optional<HostWatch> watch, Rules rules,
                       std::optional<Journal> journal, UniqueFd late)
    : limits_(limits),
      late_(std::move(late)),
      nodes_(std::move(workspaces), limits.nodes),
      files_(limits.open_files),
      guard_(std::move(rules), std::move(journal)),
      coherence_(nodes_, std::move(watch), {.lifetime = limits.cache, .watches = limits.watches},
                 [this](const Node& node) { files_.forget(node.id); }) {
  coherence_.hide([this](std::string_view place) { return guard_.hides(place); });
  nodes_.observe(
      [this](Node& node) {
        files_.forget(node.id);
        listings_.forget(node.id);
        coherence_.forgotten(node);
      },
      [this](Node& folder, const std::string& name) { coherence_.left(folder, name); });
}

std::size_t Dispatcher::notifications(std::string& messages) {
  coherence_.drain();
  return ready_ ? coherence_.flush(messages) : 0;
}

bool Dispatcher::sweep() {
  files_.sweep(OpenFiles::Clock::now());
  return files_.has_writers();
}

Result<std::string_view> Dispatcher::handle(std::string_view message, std::optional<Job>* later) {
  Request request{};
  if (message.size() < sizeof(request.header) || message.size() > kMaxMessage) {
    return fail(ErrorCode::kInvalid, "FUSE message of " + std::to_string(message.size()) + " bytes");
  }
  std::memcpy(&request.header, message.data(), sizeof(request.header));
  if (request.header.len != message.size()) {
    return fail(ErrorCode::kInvalid, "FUSE message whose length field is not its length");
  }
  request.body = message.substr(sizeof(request.header));
  const auto* row = row_of(request.header.opcode);
  reply_.clear();
  later_ = later;
  unique_ = request.header.unique;
  int error = 0;
  if (row == nullptr) {
    error = ENOSYS;
  } else if (!ready_ && request.header.opcode != FUSE_INIT) {
    error = EIO;
  } else if (request.body.size() < row->minimum_body || request.header.total_extlen != 0) {
    error = EINVAL;
  } else {
    error = (this->*row->operation)(request, reply_);
  }
  if (row != nullptr && !row->answered) return std::string_view();
  if (later != nullptr && later->has_value()) return std::string_view();
  return reply_.finish(request.header.unique, error);
}

Outcome<Dispatcher::Target> Dispatcher::target(NodeId id, Intent intent) {
  if (id == kSyntheticRoot) return std::unexpected(intent == Intent::kChange ? EROFS : EPERM);
  Node* node = nodes_.find(id);
  if (node == nullptr) return std::unexpected(ESTALE);
  node->met = true;
  if (intent == Intent::kChange) {
    if (nodes_.workspace_of(*node).readonly) return std::unexpected(EROFS);
    node->acted = std::chrono::steady_clock::now();
  }
  auto fd = nodes_.descriptor(*node);
  if (!fd) return std::unexpected(fd.error());
  if (guard_.hides_anything()) {  // the host may have moved it
    const auto place = place_of(*node, (*fd)->get());
    if (!place || guard_.hides(*place)) return std::unexpected(ESTALE);
  }
  return Target{node, std::move(*fd)};
}

Outcome<Dispatcher::Target> Dispatcher::folder(NodeId id, Intent intent) {
  auto found = target(id, intent);
  if (found && !found->node->is_folder()) return std::unexpected(ENOTDIR);
  return found;
}

int Dispatcher::op_init(const Request& request, Reply& reply) {
  std::array<std::uint32_t, 4> in{};  // major, minor, max_readahead, flags
  std::memcpy(in.data(), request.body.data(), kOldInit);
  if (ready_) return EINVAL;
  if (in[0] < FUSE_KERNEL_VERSION || (in[0] == FUSE_KERNEL_VERSION && in[1] < kOldestMinor)) return EPROTO;
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = FUSE_KERNEL_MINOR_VERSION;
  if (in[0] > FUSE_KERNEL_VERSION) {  // it asks again with ours
    reply.add(out);
    return 0;
  }
  out.max_readahead = std::min(in[2], kMaxWrite);
  out.flags = kWanted & in[3];
  out.max_background = 64;
  out.congestion_threshold = 48;
  out.max_write = kMaxWrite;
  out.time_gran = 1;
  out.max_pages = kMaxWrite / kPage;
  reply.add(out);
  coherence_.allow_missing(in[0] == FUSE_KERNEL_VERSION && in[1] < kKeepsMissingNames);
  ready_ = true;
  return 0;
}

int Dispatcher::op_destroy(const Request&, Reply&) {
  nodes_.reset();
  files_.reset();
  listings_.reset();
  coherence_.reset();
  guard_.own_links().reset();
  ready_ = false;
  return 0;
}

int Dispatcher::op_forget(const Request& request, Reply&) {
  fuse_forget_in in{};
  Body(request.body).take(in);
  nodes_.forget(request.header.nodeid, in.nlookup);
  return 0;
}

int Dispatcher::op_batch_forget(const Request& request, Reply&) {
  Body body(request.body);
  fuse_batch_forget_in in{};
  body.take(in);
  fuse_forget_one one{};
  for (std::uint32_t i = 0; i < in.count && body.take(one); ++i) nodes_.forget(one.nodeid, one.nlookup);
  return 0;
}

int Dispatcher::op_ignore(const Request&, Reply&) { return 0; }

}  // namespace sbx::files
