// Messages to people on stderr: one write a line, so that lines of several ranks do not mix.
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 2048 };
static const double plain_interval = 5.0, tty_interval = 0.1; // seconds between progress lines

// Formats head + message + tail into one buffer (cut off if too long) and writes it at once.
static void write_line(const char *head, const char *tail, const char *fmt, va_list ap) {
    char line[LINE_MAX_BYTES];
    size_t tail_len = strlen(tail), room = sizeof line - tail_len - 1;
    size_t used = (size_t)snprintf(line, room, "%s", head);
    int n = vsnprintf(line + used, room - used, fmt, ap);
    if (n > 0) used += (size_t)n < room - used ? (size_t)n : room - used - 1;
    memcpy(line + used, tail, tail_len + 1);
    fputs(line, stderr);
    fflush(stderr);
}

static bool on_terminal(void) { return isatty(STDERR_FILENO) == 1; }

// On a terminal a message takes the place of a progress line that may stand there.
void log_info(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    write_line(on_terminal() ? "\r\033[Ksolar: " : "solar: ", "\n", fmt, ap);
    va_end(ap);
}

void log_warn(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    write_line(on_terminal() ? "\r\033[Ksolar: warning: " : "solar: warning: ", "\n", fmt, ap);
    va_end(ap);
}

void progress_start(progress *p) {
    p->tty = on_terminal();
    p->last_time = -1e9;
}

void progress_line(progress *p, bool last, const char *fmt, ...) {
    double now = now_seconds();
    if (!last && now - p->last_time < (p->tty ? tty_interval : plain_interval)) return;
    p->last_time = now;
    va_list ap;
    va_start(ap, fmt);
    if (p->tty)
        write_line("\r\033[K", last ? "\n" : "", fmt, ap);
    else
        write_line("", "\n", fmt, ap);
    va_end(ap);
}

double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void format_bytes(char out[32], double bytes) {
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    int i = 0;
    while ((bytes >= 1024 || bytes <= -1024) && i < 6) {
        bytes /= 1024;
        i++;
    }
    snprintf(out, 32, i == 0 ? "%.0f %s" : "%.2f %s", bytes, unit[i]);
}

void format_time(char out[32], double seconds) {
    if (!(seconds >= 0 && seconds < 1e9)) { // unknown: NaN, negative or absurd
        snprintf(out, 32, "?");
        return;
    }
    if (seconds < 59.95) {
        snprintf(out, 32, "%.1fs", seconds);
        return;
    }
    long s = (long)(seconds + 0.5);
    if (s < 3600)
        snprintf(out, 32, "%ldm%02lds", s / 60, s % 60);
    else
        snprintf(out, 32, "%ldh%02ldm", s / 3600, s % 3600 / 60);
}
