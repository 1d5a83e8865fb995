// Messages to people: stderr, one line each. Rank 0 speaks; other ranks only when they fail.
#ifndef SOLAR_LOG_H
#define SOLAR_LOG_H

#include <stdbool.h>

// "solar: ..." on stderr.
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
// A progress line: overwritten in place on a terminal, else printed at most every few seconds
// (`last` always prints). Not for log files.
typedef struct progress {
    bool tty;
    double last_time;
} progress;
void progress_start(progress *p);
void progress_line(progress *p, bool last, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

double now_seconds(void);                // monotonic
void format_bytes(char out[32], double); // "1.50 GiB"
void format_time(char out[32], double);  // "1h02m", "3m20s", "12.3s"

#endif
