// Errors: one pattern everywhere. A function that can fail returns an `err *`; NULL is success.
// The caller owns the error: return it, add context to it with err_wrap, or err_free it.
//
//     err *load(const char *path) {
//         err *e = NULL;
//         FILE *f = NULL;
//         TRY(open_it(path, &f));
//         TRY(read_it(f));
//     done:
//         if (f) fclose(f);
//         return err_wrap(e, "loading %s", path);   // NULL stays NULL
//     }
//
// A message says what was found, what was expected and what to do.
#ifndef SOLAR_ERR_H
#define SOLAR_ERR_H

#include <stdbool.h>

// The code decides the exit status of the program (README, "Exit codes").
typedef enum err_code {
    ERR_OK = 0,
    ERR_RUNTIME = 1,  // anything not named below
    ERR_USAGE = 2,    // command line
    ERR_CONFIG = 3,   // YAML config, or a plan that cannot be met
    ERR_INPUT = 4,    // a user's file: model, tokens, text, checkpoint
    ERR_MISMATCH = 5, // a check ran and found a difference
    ERR_SYSTEM = 6,   // memory, disk, I/O
    ERR_NUMERIC = 7,  // non-finite loss or gradient
    ERR_PEER = 8,     // another rank is dead, late or disagrees
    ERR_RESUME = 75,  // stopped early on purpose with everything saved: run me again
} err_code;

typedef struct err err;

// New error with a printf message (no trailing newline). Never returns NULL, even without memory.
err *err_new(err_code code, const char *fmt, ...) __attribute__((format(printf, 2, 3), returns_nonnull));
// As err_new(ERR_SYSTEM), with ": strerror(errno_value)" appended.
err *err_errno(int errno_value, const char *fmt, ...) __attribute__((format(printf, 2, 3), returns_nonnull));
// Prepends "context: " to the message, keeps the code. NULL in, NULL out.
err *err_wrap(err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// Keeps the first of two errors and frees the second; for clean-up paths.
err *err_first(err *first, err *second);
err_code err_get_code(const err *e); // ERR_OK for NULL
const char *err_text(const err *e);  // "" for NULL; valid until the error is wrapped or freed
void err_free(err *e);
// Marks an error as one that every rank returns alike, so that one of them reports it and all end in order.
// An error without the mark may be one rank's alone: its rank reports it and ends all. Wrapping keeps the
// mark.
err *err_share(err *e);
bool err_is_shared(const err *e);

// For functions with a local `err *e = NULL` and a `done:` label.
#define TRY(expr)                                                                                            \
    do {                                                                                                     \
        e = (expr);                                                                                          \
        if (e) goto done;                                                                                    \
    } while (0)
#define FAIL(...)                                                                                            \
    do {                                                                                                     \
        e = err_new(__VA_ARGS__);                                                                            \
        goto done;                                                                                           \
    } while (0)

#endif
