// Result<T> and Error: the one way a function of this project says that it failed.
//
// An Error has a stable code (what a program may act on), a message for a person (what happened and what to do) and a
// chain of context, outermost last. It is a plain value: copy it, move it, send it to another thread.
//
//   Result<Config> load(const std::string& path) {
//     auto text = SBX_TRY(read_file(path), "reading the configuration");
//     ...
//     return fail(ErrorCode::kInvalid, "cpus must be at least 1; pass --cpus N");
//   }
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sbx {

enum class ErrorCode { kNotFound, kConflict, kDenied, kInvalid, kUnavailable, kTimeout, kInternal };

// The code as it stands in JSON and on the wire: "not_found", "conflict", ...
std::string_view to_string(ErrorCode code);
// The inverse; an unknown word is kInternal, since the peer that said it failed in a way that we do not know.
ErrorCode error_code_from(std::string_view word);

struct [[nodiscard]] Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  std::vector<std::string> context;

  Error&& while_doing(std::string what) && {
    context.push_back(std::move(what));
    return std::move(*this);
  }
  // "message (while outer: inner)": one line, for people and logs.
  std::string describe() const;
};

template <typename T>
using Result = std::expected<T, Error>;

std::unexpected<Error> fail(ErrorCode code, std::string message);
// For a failed system call: "<what>: <strerror(error_number)>"; ENOENT, EEXIST, EACCES and the like choose the code.
std::unexpected<Error> fail_errno(std::string_view what, int error_number);

}  // namespace sbx

// The value of a Result, or return its Error with `what` added to the context. Not for coroutines.
#define SBX_TRY(expr, what)                                                         \
  ({                                                                                \
    auto sbx_try_result_ = (expr);                                                  \
    if (!sbx_try_result_) {                                                         \
      return std::unexpected(std::move(sbx_try_result_).error().while_doing(what)); \
    }                                                                               \
    std::move(sbx_try_result_).value();                                             \
  })

// The same for a Result<void>.
#define SBX_CHECK(expr, what)                                                         \
  do {                                                                                \
    if (auto sbx_check_result_ = (expr); !sbx_check_result_) {                        \
      return std::unexpected(std::move(sbx_check_result_).error().while_doing(what)); \
    }                                                                                 \
  } while (false)

// In coroutines (GCC 12 cannot co_await inside a statement expression): declares `decl` from a Result.
//   SBX_CO_TRY(auto n, co_await stream->read_some(buffer), "reading the head");
#define SBX_CO_TRY_CAT2(a, b) a##b
#define SBX_CO_TRY_CAT(a, b) SBX_CO_TRY_CAT2(a, b)
#define SBX_CO_TRY(decl, expr, what) SBX_CO_TRY_IMPL(SBX_CO_TRY_CAT(sbx_co_try_, __LINE__), decl, expr, what)
#define SBX_CO_TRY_IMPL(tmp, decl, expr, what)                           \
  auto tmp = (expr);                                                     \
  if (!tmp) {                                                            \
    co_return std::unexpected(std::move(tmp).error().while_doing(what)); \
  }                                                                      \
  decl = std::move(tmp).value()

#define SBX_CO_CHECK(expr, what)                                                         \
  do {                                                                                   \
    auto sbx_check_result_ = (expr);                                                     \
    if (!sbx_check_result_) {                                                            \
      co_return std::unexpected(std::move(sbx_check_result_).error().while_doing(what)); \
    }                                                                                    \
  } while (false)
