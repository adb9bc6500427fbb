#include "base/result.h"

#include <array>
#include <cerrno>
#include <cstring>

namespace sbx {
namespace {

struct CodeName {
  ErrorCode code;
  std::string_view name;
};
constexpr std::array kCodeNames = {
    CodeName{ErrorCode::kNotFound, "not_found"},      CodeName{ErrorCode::kConflict, "conflict"},
    CodeName{ErrorCode::kDenied, "denied"},           CodeName{ErrorCode::kInvalid, "invalid"},
    CodeName{ErrorCode::kUnavailable, "unavailable"}, CodeName{ErrorCode::kTimeout, "timeout"},
    CodeName{ErrorCode::kInternal, "internal"},
};

ErrorCode code_for_errno(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ESRCH:
      return ErrorCode::kNotFound;
    case EEXIST:
    case EBUSY:
      return ErrorCode::kConflict;
    case EACCES:
    case EPERM:
      return ErrorCode::kDenied;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ECONNREFUSED:
    case EPIPE:
    case ECONNRESET:
      return ErrorCode::kUnavailable;
    case ETIMEDOUT:
      return ErrorCode::kTimeout;
    default:
      return ErrorCode::kInternal;
  }
}

}  // namespace

std::string_view to_string(ErrorCode code) {
  for (const CodeName& entry : kCodeNames) {
    if (entry.code == code) return entry.name;
  }
  return "internal";
}

ErrorCode error_code_from(std::string_view word) {
  for (const CodeName& entry : kCodeNames) {
    if (entry.name == word) return entry.code;
  }
  return ErrorCode::kInternal;
}

std::string Error::describe() const {
  if (context.empty()) return message;
  std::string text = message + " (while ";
  for (auto it = context.rbegin(); it != context.rend(); ++it) {
    if (it != context.rbegin()) text += ": ";
    text += *it;
  }
  return text + ")";
}

std::unexpected<Error> fail(ErrorCode code, std::string message) {
  return std::unexpected(Error{code, std::move(message), {}});
}

std::unexpected<Error> fail_errno(std::string_view what, int error_number) {
  std::string message = std::string(what) + ": " + std::strerror(error_number);
  if (error_number == ENOSPC || error_number == EDQUOT) message += "; make room on that file system and try again";
  return fail(code_for_errno(error_number), std::move(message));
}

}  // namespace sbx
