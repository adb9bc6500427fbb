// Name resolution by the host's own means (hosts file, resolv.conf), in a few threads, since it blocks. Remembers what
// it learned for a few seconds, so that a guest's DNS query and the connection after it ask once. One executor.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "gateway/dns_message.h"
#include "gateway/streams.h"

namespace sbx::gateway {

class Resolver {
 public:
  // Starts its threads: before system calls are confined.
  Resolver();

  using Addresses = std::vector<boost::asio::ip::address>;
  // kNotFound: the name does not exist or has no address. kUnavailable: no answer, or too many are being asked for.
  Awaitable<Result<Addresses>> addresses(std::string name);
  // Records of another type. An existing name without any gives an empty list.
  Awaitable<Result<std::vector<DnsRecord>>> records(std::string name, DnsType type);

 private:
  struct Known {
    Result<Addresses> addresses;
    std::chrono::steady_clock::time_point until;
  };
  Result<void> admit();

  boost::asio::thread_pool threads_;
  std::size_t waiting_ = 0;
  std::map<std::string, Known> known_;
  // Lookups that may be begun at once, and how they come back: what a guest may do to the host's resolver.
  double tokens_;
  std::chrono::steady_clock::time_point refilled_;
};

}  // namespace sbx::gateway
