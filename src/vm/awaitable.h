// Awaitable: the coroutine type of this folder (the same type as sbx::wire::Awaitable).
#pragma once

#include <boost/asio/awaitable.hpp>

namespace sbx::vm {
template <typename T>
using Awaitable = boost::asio::awaitable<T>;
}
