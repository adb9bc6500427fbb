#include "vm/memory_filter.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "base/file.h"

namespace sbx::vm {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::uint64_t kMemory = 8 * kPage;

std::string u32(std::uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8), static_cast<char>(v)};
}
std::string u64(std::uint64_t v) {
  return u32(static_cast<std::uint32_t>(v >> 32)) + u32(static_cast<std::uint32_t>(v));
}
std::string name(const std::string& text) { return static_cast<char>(text.size()) + text; }
std::string footer(std::uint32_t id = 2) { return "\x7e" + u32(id); }

std::string head(std::uint64_t ram = kMemory) {
  return "QEVM" + u32(3) + "\x07" + u32(4) + "q35x" + "\x01" + u32(2) + name("ram") + u32(0) + u32(4) +
         u64((ram + kPage) | 0x04) + name("ram") + u64(ram) + name("rom") + u64(kPage) + u64(0x10) + footer();
}
std::string page(std::uint64_t address, char fill, const std::string& block) {
  return u64(address | 0x08 | (block.empty() ? 0x20 : 0)) + (block.empty() ? "" : name(block)) +
         std::string(kPage, fill);
}
std::string zero(std::uint64_t address, const std::string& block) {
  return u64(address | 0x02 | (block.empty() ? 0x20 : 0)) + (block.empty() ? "" : name(block)) + std::string(1, '\0');
}
std::string part(const std::string& pages, char type = 2) { return type + u32(2) + pages + u64(0x10) + footer(); }
const std::string kDevices = "\x04 the devices and all that";

std::string template_ram() {
  std::string ram;
  for (std::size_t i = 0; i < kMemory / kPage; ++i)
    ram += std::string(kPage, i == 7 ? '\0' : static_cast<char>('a' + i));
  return ram;
}

struct Outcome {
  Result<MemoryFilterStatistics> statistics;
  std::string bytes;
};
Outcome filter(const std::string& stream, const std::string& ram, std::size_t chunk = 100) {
  std::string_view rest = stream;
  std::string out;
  auto statistics = filter_memory(
      [&](std::span<char> buffer) -> Result<std::size_t> {
        const std::size_t n = std::min({buffer.size(), rest.size(), chunk});
        std::memcpy(buffer.data(), rest.data(), n);
        rest.remove_prefix(n);
        return n;
      },
      TemplateRam{ram, {}}, kMemory,
      [&](std::string_view bytes) -> Result<void> {
        out += bytes;
        return {};
      });
  return {std::move(statistics), std::move(out)};
}

TEST(MemoryFilter, DropsPagesThatTheTemplateHasAndKeepsTheRest) {
  const std::string stream = head() +
                             part(page(0, 'a', "ram") + page(kPage, 'X', "") + zero(2 * kPage, "") +
                                  zero(7 * kPage, "") + page(0, 'r', "rom") + u64(0x200)) +
                             part(page(0, 's', ""), 3) + kDevices;
  const auto got = filter(stream, template_ram());
  ASSERT_TRUE(got.statistics) << got.statistics.error().describe();
  EXPECT_EQ(got.bytes, head() +
                           part(page(kPage, 'X', "ram") + zero(2 * kPage, "ram") + page(0, 'r', "rom") + u64(0x200)) +
                           part(page(0, 's', "rom"), 3) + kDevices);
  EXPECT_EQ(got.statistics->pages, 2U);
  EXPECT_EQ(got.statistics->pages_kept, 1U);
  EXPECT_EQ(got.statistics->zero_pages_kept, 1U);
}

TEST(MemoryFilter, WithoutATemplateDropsZeroPagesOnly) {
  const auto got = filter(head() + part(zero(0, "ram") + page(kPage, 'b', "")) + kDevices, "");
  ASSERT_TRUE(got.statistics);
  EXPECT_EQ(got.bytes, head() + part(page(kPage, 'b', "ram")) + kDevices);
}

TEST(MemoryFilter, AHoleInTheTemplateIsZero) {
  TemplateRam ram{{}, std::vector<bool>(kMemory / kPage, false)};
  const std::string bytes(kMemory, 'z');  // never looked at
  ram.bytes = bytes;
  ram.has_data[1] = true;
  const std::string stream = head() + part(zero(0, "ram") + page(kPage, 'z', "") + page(2 * kPage, 'z', ""));
  std::string_view rest = stream;
  std::string out;
  const auto statistics = filter_memory(
      [&](std::span<char> buffer) -> Result<std::size_t> {
        const std::size_t n = rest.copy(buffer.data(), buffer.size());
        rest.remove_prefix(n);
        return n;
      },
      ram, kMemory,
      [&](std::string_view chunk) -> Result<void> {
        out += chunk;
        return {};
      });
  ASSERT_TRUE(statistics);
  EXPECT_EQ(out, head() + part(page(2 * kPage, 'z', "ram")));
}

TEST(MemoryFilter, RefusesWhatItDoesNotUnderstand) {
  const std::string ram = template_ram();
  EXPECT_FALSE(filter("", ram).statistics);
  EXPECT_FALSE(filter(std::string(10000, 'x'), ram).statistics);
  EXPECT_FALSE(filter(head(2 * kMemory) + kDevices, ram).statistics) << "another memory size";
  EXPECT_FALSE(filter(head() + part(page(kMemory, 'x', "ram")) + kDevices, ram).statistics) << "beyond the end";
  EXPECT_FALSE(filter(head() + part(page(~0ULL << 12U, 'x', "ram")) + kDevices, ram).statistics) << "far beyond";
  EXPECT_FALSE(filter(head() + part(page(0, 'x', "")) + kDevices, ram).statistics) << "no block to continue";
  EXPECT_FALSE(filter(head() + part(u64(0x40)) + kDevices, ram).statistics) << "an unknown kind";
  EXPECT_FALSE(filter(head() + "\x02" + u32(9) + u64(0x10) + footer(9), ram).statistics) << "another section";
  EXPECT_FALSE(filter_memory([](std::span<char>) -> Result<std::size_t> { return 0; }, TemplateRam{{ram.data(), 5}, {}},
                             kMemory, [](std::string_view) -> Result<void> { return {}; }));
}

TEST(MemoryFilter, SurvivesEveryTruncationAndRandomDamage) {
  const std::string ram = template_ram();
  const std::string stream = head() + part(page(0, 'a', "ram") + page(kPage, 'X', "") + zero(2 * kPage, ""));
  for (std::size_t n = 0; n < stream.size(); n += n < 300 ? 1 : 97) {
    const std::string cut = stream.substr(0, n);
    (void)filter(cut, ram, 5000);
    sbx_fuzz_memory_filter(reinterpret_cast<const unsigned char*>(cut.data()), cut.size());
  }
  std::mt19937 random(1);
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = stream;
    for (int k = 0; k < 3; ++k) damaged[random() % (i % 2 == 0 ? 200 : damaged.size())] = static_cast<char>(random());
    (void)filter(damaged, ram, 5000);
  }
}

TEST(MemoryImage, ComesBackFromItsFile) {
  const auto folder = TemporaryFolder::make("sbx-memory").value();
  const std::string stream = head() + part(page(0, 'a', "ram") + page(kPage, 'X', "")) + kDevices;
  const auto file = [&](const char* path) { return open_file(folder.path() / path, O_RDWR | O_CREAT).value(); };
  const auto in = file("in");
  const auto ram = file("ram");
  const auto image = file("image");
  const auto out = file("out");
  ASSERT_TRUE(write_all(in.get(), stream));
  ASSERT_TRUE(write_all(ram.get(), template_ram()));
  ::lseek(in.get(), 0, SEEK_SET);
  ASSERT_TRUE(write_memory_image(in.get(), ram.get(), kMemory, image.get()));
  ::lseek(image.get(), 0, SEEK_SET);
  ASSERT_TRUE(expand_memory_image(image.get(), out.get()));
  EXPECT_EQ(read_file(folder.path() / "out").value(), filter(stream, template_ram()).bytes);
  ASSERT_EQ(::ftruncate(image.get(), ::lseek(image.get(), 0, SEEK_END) - 3), 0);
  ::lseek(image.get(), 0, SEEK_SET);
  EXPECT_FALSE(expand_memory_image(image.get(), out.get())) << "cut short";
}

}  // namespace
}  // namespace sbx::vm
