// Read before every file that clang-tidy checks. It tells the analyzer what it cannot see from another file:
// an error stays an error through err_wrap and err_first. Without it, every TRY looks like a path on which
// something failed and success was returned.
#ifndef SOLAR_ANALYZER_H
#define SOLAR_ANALYZER_H

#include "err.h"

#define LINT_STAYS(old, call)                                                                                \
    ({                                                                                                       \
        err *lint_old = (old), *lint_new = (call);                                                           \
        if ((lint_old != 0) != (lint_new != 0)) __builtin_unreachable();                                     \
        lint_new;                                                                                            \
    })
#define LINT_ERROR(call)                                                                                     \
    ({                                                                                                       \
        err *lint_new = (call);                                                                              \
        if (!lint_new) __builtin_unreachable();                                                              \
        lint_new;                                                                                            \
    })
#define err_new(...)     LINT_ERROR(err_new(__VA_ARGS__))
#define err_errno(...)   LINT_ERROR(err_errno(__VA_ARGS__))
#define err_wrap(e, ...) LINT_STAYS(e, err_wrap(lint_old, __VA_ARGS__))
#define err_first(a, b)                                                                                      \
    ({                                                                                                       \
        err *lint_a = (a), *lint_b = (b), *lint_new = err_first(lint_a, lint_b);                             \
        if ((lint_a || lint_b) != (lint_new != 0)) __builtin_unreachable();                                  \
        lint_new;                                                                                            \
    })

#endif
