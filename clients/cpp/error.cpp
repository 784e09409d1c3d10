#include "error.h"

Error::Error(std::string reason, const std::string& what, std::string where, std::string fix)
    : std::runtime_error(where.empty() ? what : where + ": " + what), reason(std::move(reason)), fix(std::move(fix)) {}

bool Error::is(std::initializer_list<const char*> reasons) const {
  for (const char* each : reasons)
    if (reason == each) return true;
  return false;
}

bool Error::retryable() const {
  return is({"Overloaded", "RateLimited", "StoreFull", "StoreError", "Unavailable", "PtmUnavailable",
             "CoordinatorUnavailable", "StoreReplaced", "ChildFailed", "ChecksumMismatch"});
}

int Error::exit_code() const {
  if (is({"PtmUnavailable", "CoordinatorUnavailable", "Unavailable", "ChildFailed", "DeadlineExceeded"})) return 4;
  if (is({"Unauthenticated", "TlsFailed", "InsecureAddress"})) return 5;
  if (is({"StoreError", "StoreFull", "StoreReplaced"})) return 6;
  return reason.rfind("Invalid", 0) == 0 || reason == "PromptTooLong" ? 3 : 8;
}
