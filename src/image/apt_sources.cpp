#include "image/apt_sources.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <sstream>

#include "base/file.h"

namespace sbx::image {
namespace {

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

std::vector<std::string> lines_of(std::string_view text) {
  std::istringstream stream{std::string(text)};
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(line);
  }
  return lines;
}

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

bool contains(const std::vector<std::string>& words, std::string_view word) {
  return std::ranges::find(words, word) != words.end();
}

void add_stanza(std::map<std::string, std::string>& stanza, std::vector<AptSource>& sources) {
  const std::string enabled = lower(stanza["enabled"]);
  if (contains(words_of(stanza["types"]), "deb") && !contains({"no", "false", "0"}, words_of(enabled + " -").front())) {
    for (const auto& uri : words_of(stanza["uris"])) {
      for (const auto& suite : words_of(stanza["suites"])) {
        sources.push_back({uri, suite, words_of(stanza["components"])});
      }
    }
  }
  stanza.clear();
}

// A URI that apt would take, without anything that could end the line or open an option.
bool plausible_uri(std::string_view uri) {
  const auto scheme = uri.find("://");
  const bool file = uri.starts_with("file:/");
  return (file || (scheme != std::string_view::npos && scheme > 0)) &&
         std::ranges::none_of(uri, [](unsigned char c) { return std::isspace(c) || std::iscntrl(c) || c == '['; });
}

}  // namespace

std::vector<AptSource> parse_one_line_sources(std::string_view text) {
  std::vector<AptSource> sources;
  for (std::string line : lines_of(text)) {
    line = line.substr(0, line.find('#'));
    if (const auto open = line.find('['); open != std::string::npos) {
      const auto close = line.find(']', open);
      if (close == std::string::npos) continue;
      line.erase(open, close - open + 1);
    }
    auto words = words_of(line);
    if (words.size() < 3 || words[0] != "deb") continue;
    sources.push_back({words[1], words[2], {words.begin() + 3, words.end()}});
  }
  return sources;
}

std::vector<AptSource> parse_deb822_sources(std::string_view text) {
  std::vector<AptSource> sources;
  std::map<std::string, std::string> stanza;
  std::string field;
  for (const std::string& line : lines_of(text)) {
    if (line.starts_with('#')) continue;
    if (line.find_first_not_of(" \t") == std::string::npos) {
      add_stanza(stanza, sources);
      field.clear();
    } else if (line.front() == ' ' || line.front() == '\t') {
      if (!field.empty()) stanza[field] += " " + line;
    } else if (const auto colon = line.find(':'); colon != std::string::npos) {
      field = lower(line.substr(0, colon));
      stanza[field] = line.substr(colon + 1);
    }
  }
  add_stanza(stanza, sources);
  return sources;
}

std::vector<AptSource> host_apt_sources(const std::filesystem::path& apt_folder) {
  std::vector<std::filesystem::path> files{apt_folder / "sources.list"};
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(apt_folder / "sources.list.d", error)) {
    files.push_back(entry.path());
  }
  std::ranges::sort(files);
  std::vector<AptSource> sources;
  for (const auto& path : files) {
    const auto text = read_file(path);
    if (!text) continue;  // an unreadable file is none of apt's sources for this user either
    auto entries = path.extension() == ".sources" ? parse_deb822_sources(*text)
                   : path.extension() == ".list"  ? parse_one_line_sources(*text)
                                                  : std::vector<AptSource>{};
    std::ranges::move(entries, std::back_inserter(sources));
  }
  return sources;
}

Result<std::string> sources_for_suite(const std::vector<AptSource>& host, std::string_view host_suite,
                                      std::string_view suite, std::string_view mirror, std::string_view keyring) {
  const std::string options = keyring.empty() ? "" : "[signed-by=" + std::string(keyring) + "] ";
  const auto line = [&](std::string_view uri, std::string_view tail) {
    return "deb " + options + std::string(uri) + " " + std::string(suite) + std::string(tail) + " main\n";
  };
  if (!mirror.empty()) {
    if (!plausible_uri(mirror)) {
      return fail(ErrorCode::kInvalid, "SBX_DEBIAN_MIRROR is not a URI: " + std::string(mirror));
    }
    return line(mirror, "");
  }

  std::string text;
  for (const std::string_view tail : {"", "-updates", "-security"}) {
    const auto found = std::ranges::find_if(host, [&](const AptSource& source) {
      return source.suite == std::string(host_suite) + std::string(tail) && contains(source.components, "main") &&
             plausible_uri(source.uri);
    });
    if (found != host.end()) {
      text += line(found->uri, tail);
    } else if (tail.empty()) {
      return fail(ErrorCode::kNotFound,
                  "this host's apt sources name no Debian archive; set SBX_DEBIAN_MIRROR to the URI of one");
    }
  }
  return text;
}

}  // namespace sbx::image
