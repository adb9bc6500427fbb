#include "vm/memory_image.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "base/file.h"
#include "vm/jail.h"
#include "vm/memory_filter.h"

namespace sbx::vm {
namespace {

namespace fs = std::filesystem;

Result<std::size_t> read_some(int fd, std::span<char> buffer) {
  while (true) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno != EINTR) return fail_errno("reading", errno);
  }
}

// Read-only view of a file, unmapped at the end.
class Mapping {
 public:
  static Result<Mapping> of(int fd, std::uint64_t size) {
    if (fd < 0) return Mapping(nullptr, 0);
    if (static_cast<std::uint64_t>(::lseek(fd, 0, SEEK_END)) != size) {
      return fail(ErrorCode::kInvalid, "the template's RAM file is not as large as the machine's memory");
    }
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) return fail_errno("mapping the template's RAM", errno);
    return Mapping(static_cast<const char*>(address), size);
  }
  Mapping(Mapping&& other) noexcept : address_(std::exchange(other.address_, nullptr)), size_(other.size_) {}
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (address_ != nullptr) ::munmap(const_cast<char*>(address_), size_);
  }
  std::span<const char> bytes() const {
    return address_ == nullptr ? std::span<const char>() : std::span<const char>(address_, size_);
  }

 private:
  Mapping(const char* address, std::size_t size) : address_(address), size_(size) {}
  const char* address_;
  std::size_t size_;
};

// Which pages of a sparse file have data; empty if the file system cannot tell.
std::vector<bool> pages_with_data(int fd, std::uint64_t size) {
  constexpr std::uint64_t kPage = 4096;
  if (fd < 0) return {};
  std::vector<bool> pages(size / kPage);
  off_t at = 0;
  while ((at = ::lseek(fd, at, SEEK_DATA)) >= 0) {
    const off_t end = ::lseek(fd, at, SEEK_HOLE);
    if (end < 0) return {};
    for (std::uint64_t page = static_cast<std::uint64_t>(at) / kPage;
         page < pages.size() && page * kPage < static_cast<std::uint64_t>(end); ++page) {
      pages[page] = true;
    }
    at = end;
  }
  return errno == ENXIO ? pages : std::vector<bool>();
}

// QEMU reads all of the machine's memory, so all of the template's file, and faulting its holes into the page cache
// page by page takes seconds per GiB. Read ahead in large pieces it is a fraction of that, and nothing the second time.
void read_ahead(int fd, std::uint64_t size) {
  constexpr std::uint64_t kPiece = 2U << 20U;
  for (std::uint64_t at = 0; fd >= 0 && at < size; at += kPiece) {
    ::posix_fadvise(fd, static_cast<off_t>(at), kPiece, POSIX_FADV_WILLNEED);
  }
}

class Compressor {
 public:
  explicit Compressor(int output) : output_(output), context_(ZSTD_createCCtx(), &ZSTD_freeCCtx) {
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, 1);
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_checksumFlag, 1);
  }
  Result<void> add(std::string_view bytes, bool last) {
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    while (true) {
      ZSTD_outBuffer out{buffer_.data(), buffer_.size(), 0};
      const std::size_t left = ZSTD_compressStream2(context_.get(), &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
      if (ZSTD_isError(left) != 0) return fail(ErrorCode::kInternal, ZSTD_getErrorName(left));
      SBX_CHECK(write_all(output_, {buffer_.data(), out.pos}), "writing the memory image");
      if (last ? left == 0 : in.pos == in.size) return {};
    }
  }

 private:
  int output_;
  std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context_;
  std::vector<char> buffer_ = std::vector<char>(ZSTD_CStreamOutSize());
};

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};
Result<Pipe> make_pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return fail_errno("making a pipe", errno);
  ::fcntl(fds[1], F_SETPIPE_SZ, 1 << 20);  // fewer switches between QEMU and the filter
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// Beside the running program, or where packages put helpers.
Result<fs::path> filter_program() {
  std::error_code ignored;
  const fs::path folder = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const fs::path& path : {folder / "sbx-memory-filter", folder / "../libexec/sbx/sbx-memory-filter"}) {
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return fail(ErrorCode::kNotFound, "sbx-memory-filter is not beside " + folder.string() + "; install it there");
}

Result<Subprocess> start_filter(std::vector<std::string> arguments, const std::vector<int>& fds,
                                const std::optional<unsigned>& uid) {
  const auto program = SBX_TRY(filter_program(), "starting the memory filter");
  JailSpec jail;
  jail.uid = uid;
  jail.binds = {{program, "/sbx-memory-filter"}};
  jail.argv = {"/sbx-memory-filter"};
  for (std::string& argument : arguments) jail.argv.push_back(std::move(argument));
  Command command = jailed(jail);
  for (const int fd : fds) command.keep_fd(fd);
  return command.start();
}

Result<void> filter_done(Subprocess& filter, std::chrono::milliseconds deadline) {
  pollfd ended{filter.pidfd(), POLLIN, 0};
  if (::poll(&ended, 1, static_cast<int>(deadline.count())) <= 0) {
    filter = Subprocess();  // kills it
    return fail(ErrorCode::kTimeout, "the memory filter did not end in time");
  }
  const auto status = SBX_TRY(filter.wait(), "waiting for the memory filter");
  if (!status.success()) return fail(ErrorCode::kInternal, "the memory filter ended with " + status.describe());
  return {};
}

}  // namespace

Result<MemoryFilterStatistics> write_memory_image(int input, int template_ram_fd, std::uint64_t memory_size,
                                                  int output) {
  const auto ram = SBX_TRY(Mapping::of(template_ram_fd, memory_size), "comparing with the template");
  const TemplateRam compared{ram.bytes(), pages_with_data(template_ram_fd, memory_size)};
  read_ahead(template_ram_fd, memory_size);
  Compressor compressor(output);
  const ByteSource source = [input](std::span<char> buffer) { return read_some(input, buffer); };
  const ByteSink sink = [&compressor](std::string_view bytes) { return compressor.add(bytes, false); };
  const auto statistics = SBX_TRY(filter_memory(source, compared, memory_size, sink), "filtering memory");
  SBX_CHECK(compressor.add({}, true), "ending the memory image");
  return statistics;
}

Result<void> expand_memory_image(int input, int output) {
  const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(), &ZSTD_freeDCtx);
  std::vector<char> in_buffer(ZSTD_DStreamInSize());
  std::vector<char> out_buffer(ZSTD_DStreamOutSize());
  std::size_t left = 1;  // 0 at the end of a frame
  while (true) {
    const std::size_t n = SBX_TRY(read_some(input, in_buffer), "reading the memory image");
    if (n == 0) break;
    ZSTD_inBuffer in{in_buffer.data(), n, 0};
    while (in.pos < in.size) {
      ZSTD_outBuffer out{out_buffer.data(), out_buffer.size(), 0};
      left = ZSTD_decompressStream(context.get(), &out, &in);
      if (ZSTD_isError(left) != 0) {
        return fail(ErrorCode::kInvalid, std::string("the memory image is damaged: ") + ZSTD_getErrorName(left));
      }
      SBX_CHECK(write_all(output, {out_buffer.data(), out.pos}), "handing the memory image to QEMU");
    }
  }
  if (left != 0) return fail(ErrorCode::kInvalid, "the memory image is cut short");
  return {};
}

SavingMemory::~SavingMemory() {
  if (!path.empty()) ::unlink(path.c_str());
}

Result<SavingMemory> start_saving_memory(const StartSpec& machine, const fs::path& image) {
  auto pipe = SBX_TRY(make_pipe(), "saving memory");
  SavingMemory saving;
  saving.image = SBX_TRY(open_file(image, O_WRONLY | O_CREAT | O_EXCL), "creating the memory image");
  saving.path = image;
  UniqueFd ram;
  if (machine.machine.purpose == Purpose::kClone) {
    ram = SBX_TRY(open_file(machine.ram, O_RDONLY), "opening the template's RAM");
  }
  std::vector<int> fds = {pipe.read_end.get(), saving.image.get()};
  if (ram.valid()) fds.push_back(ram.get());
  std::vector<std::string> arguments = {"save", std::to_string(pipe.read_end.get()), std::to_string(ram.get()),
                                        std::to_string(static_cast<std::uint64_t>(machine.machine.memory_mib) << 20U),
                                        std::to_string(saving.image.get())};
  saving.filter = SBX_TRY(start_filter(std::move(arguments), fds, machine.uid), "saving memory");
  saving.stream = std::move(pipe.write_end);
  return saving;
}

Result<void> finish_saving_memory(SavingMemory& saving, std::chrono::milliseconds deadline) {
  saving.stream.reset();
  SBX_CHECK(filter_done(saving.filter, deadline), "saving memory");
  if (::fsync(saving.image.get()) != 0) return fail_errno("syncing the memory image", errno);
  saving.path.clear();
  return {};
}

Result<LoadingMemory> start_loading_memory(const fs::path& image, const std::optional<unsigned>& uid) {
  const auto input = SBX_TRY(open_file(image, O_RDONLY), "opening the memory image");
  auto pipe = SBX_TRY(make_pipe(), "loading memory");
  const std::vector<int> fds = {input.get(), pipe.write_end.get()};
  std::vector<std::string> arguments = {"load", std::to_string(input.get()), std::to_string(pipe.write_end.get())};
  LoadingMemory loading;
  loading.filter = SBX_TRY(start_filter(std::move(arguments), fds, uid), "loading memory");
  loading.stream = std::move(pipe.read_end);
  return loading;
}

Result<void> finish_loading_memory(LoadingMemory& loading, std::chrono::milliseconds deadline) {
  loading.stream.reset();
  return filter_done(loading.filter, deadline);
}

}  // namespace sbx::vm
