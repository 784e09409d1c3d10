// Errors: what is wrong, where, and what would be right, under the reasons that docs/protocol.md lists in "Errors".
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <string>

struct Error : std::runtime_error {
  Error(std::string reason, const std::string& what, std::string where = "", std::string fix = "");

  // Returns whether the error has one of these reasons.
  bool is(std::initializer_list<const char*> reasons) const;
  // Returns whether the same call may succeed later.
  bool retryable() const;
  // Returns the exit code, as docs/commands.md lists them.
  int exit_code() const;

  std::string reason;  // that of google.rpc.ErrorInfo, or one of this client's own
  std::string fix;
  double retry_seconds = 0;  // how long the service asks to wait before a retry
};
