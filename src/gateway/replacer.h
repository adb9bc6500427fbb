// Replacer: exchanges strings for others in a stream that comes in pieces, across their borders, holding back no more
// than could be the start of one. Used on requests (placeholders become values) and on responses (values become
// something else again). One executor.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sbx::gateway {

class Replacer {
 public:
  Replacer() = default;
  Replacer(Replacer&&) = default;
  Replacer& operator=(Replacer&&) = default;
  ~Replacer();

  // Where several match at one place the one added first wins. Empty needles are ignored. The views must outlive this.
  void add(std::string_view needle, std::string_view replacement);
  bool empty() const { return rules_.empty(); }
  // Every replacement is as long as what it replaces.
  bool keeps_length() const;

  std::string feed(std::string_view piece);
  // What was held back.
  std::string finish();
  // A whole text at once.
  std::string apply(std::string_view text) const;

 private:
  struct Rule {
    std::string_view needle;
    std::string_view replacement;
  };
  // Everything up to the end of the last match; `text` becomes what comes after it.
  std::string replace(std::string_view& text) const;
  std::size_t possible_start(std::string_view text) const;

  std::vector<Rule> rules_;
  std::string held_;
};

}  // namespace sbx::gateway
