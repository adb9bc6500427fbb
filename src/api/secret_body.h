// How a request that carries a secret is read: its body straight into locked memory, and so what the kernel hands over
// together with the head before it. Used by http_server.cpp only.
#pragma once

#include <string.h>

#include <boost/asio/buffers_iterator.hpp>
#include <boost/beast/core/flat_static_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/message.hpp>
#include <vector>

#include "base/locked_string.h"

namespace sbx::api {

inline constexpr std::size_t kLargestSecretBody = 128U << 10U;

// A Beast Body.
struct LockedBody {
  using value_type = LockedString;
  class reader {
   public:
    template <bool IsRequest, typename Fields>
    reader(boost::beast::http::header<IsRequest, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<std::uint64_t>& length, boost::beast::error_code& error) {
      error = {};
      if (length && *length > kLargestSecretBody) error = boost::beast::http::error::body_limit;
    }
    template <typename Buffers>
    std::size_t put(const Buffers& buffers, boost::beast::error_code& error) {
      error = {};
      std::size_t taken = 0;
      for (auto at = boost::asio::buffer_sequence_begin(buffers); at != boost::asio::buffer_sequence_end(buffers);
           ++at) {
        const boost::asio::const_buffer piece = *at;
        if (body_.size() + piece.size() > kLargestSecretBody) {
          error = boost::beast::http::error::body_limit;
        } else if (!body_.append({static_cast<const char*>(piece.data()), piece.size()})) {
          error = boost::beast::http::error::bad_alloc;
        }
        if (error) break;
        taken += piece.size();
      }
      return taken;
    }
    void finish(boost::beast::error_code& error) { error = {}; }

   private:
    value_type& body_;
  };
};

// The buffer of a connection. Where memory cannot be locked it is ordinary memory, wiped all the same: then no secret
// gets further than this, since LockedBody refuses it.
class ConnectionBuffer {
 public:
  ConnectionBuffer() : room_(lock(locked_, plain_)), buffer_(room_.data(), room_.size()) {}
  ~ConnectionBuffer() { wipe(); }
  ConnectionBuffer(const ConnectionBuffer&) = delete;
  ConnectionBuffer& operator=(const ConnectionBuffer&) = delete;

  boost::beast::flat_static_buffer_base& get() { return buffer_; }
  // Forgets what was read and taken out.
  void wipe_taken() {
    if (buffer_.size() == 0) wipe();
  }

 private:
  static constexpr std::size_t kSize = 16U << 10U;
  static std::span<char> lock(LockedString& locked, std::vector<char>& plain) {
    if (auto room = locked.prepare(kSize)) return *room;
    plain.resize(kSize);
    return plain;
  }
  void wipe() {
    buffer_.clear();
    ::explicit_bzero(room_.data(), room_.size());
  }

  LockedString locked_;
  std::vector<char> plain_;
  std::span<char> room_;
  boost::beast::flat_static_buffer_base buffer_;
};

}  // namespace sbx::api
