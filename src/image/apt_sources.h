// Where to get Debian from: the host's own apt configuration, rewritten for the suite that goes into an image.
//
// No mirror is named in this project: a host that apt works on knows one. Pure functions but for host_apt_sources().
// Any thread.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sbx::image {

// One "deb" entry: a URI with one suite. Entries of a file with several URIs or suites are taken apart.
struct AptSource {
  std::string uri;
  std::string suite;
  std::vector<std::string> components;
  bool operator==(const AptSource&) const = default;
};

// The binary entries of a one-line-style file (sources.list(5)); what cannot be understood is skipped, as are deb-src.
std::vector<AptSource> parse_one_line_sources(std::string_view text);

// The same for deb822 style (*.sources); entries with "Enabled: no" are skipped.
std::vector<AptSource> parse_deb822_sources(std::string_view text);

// All entries below `apt_folder` (sources.list, sources.list.d/*.list and *.sources), in name order.
std::vector<AptSource> host_apt_sources(const std::filesystem::path& apt_folder = "/etc/apt");

// One-line entries for `suite`, from those of a host that runs `host_suite`: its archive, and its updates and security
// archives if it uses them. A `mirror` that is not empty is used instead, alone. `keyring` verifies them ("" = apt's
// own). Fails with kInvalid for a mirror that is no URI, and with kNotFound if the host has no Debian archive.
Result<std::string> sources_for_suite(const std::vector<AptSource>& host, std::string_view host_suite,
                                      std::string_view suite, std::string_view mirror, std::string_view keyring);

}  // namespace sbx::image
