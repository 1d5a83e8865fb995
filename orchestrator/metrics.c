#include "metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsutil.h"
#include "log.h"

struct metrics {
    char *path;
    int fd;
    off_t end;    // of the last whole line
    int64_t lost; // lines since writing failed
};

// A line that does not parse was cut by a crash and is dropped too.
static bool keeps(const char *line, size_t bytes, int64_t step) {
    json_t *doc = json_loadb(line, bytes, 0, NULL);
    json_t *s = json_object_get(doc, "step");
    bool keep = json_is_integer(s) && json_integer_value(s) <= step;
    json_decref(doc);
    return keep;
}

static err *trim(const char *path, int64_t step) {
    err *e = NULL;
    char *text = NULL, *kept = NULL;
    size_t bytes, n = 0;
    if (!path_exists(path)) return NULL;
    TRY(read_file(path, (size_t)1 << 32, &text, &bytes));
    if (!(kept = malloc(bytes + 1))) FAIL(ERR_SYSTEM, "out of memory for %s", path);
    for (char *line = text, *end; (end = memchr(line, '\n', bytes - (size_t)(line - text))); line = end + 1) {
        size_t length = (size_t)(end + 1 - line);
        if (!keeps(line, length, step)) continue;
        memcpy(kept + n, line, length);
        n += length;
    }
    TRY(write_file_atomic(path, kept, n));
done:
    free(text);
    free(kept);
    return e;
}

err *metrics_open(const char *run_dir, int64_t step, metrics **out) {
    err *e = NULL;
    metrics *m = calloc(1, sizeof *m);
    *out = NULL;
    if (!m) return err_new(ERR_SYSTEM, "out of memory for metrics");
    m->path = path_join(run_dir, "metrics.jsonl");
    m->fd = -1;
    TRY(trim(m->path, step));
    m->fd = open(m->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    m->end = m->fd < 0 ? -1 : lseek(m->fd, 0, SEEK_END);
    if (m->end < 0) {
        e = err_errno(errno, "%s cannot be opened for appending", m->path);
        goto done;
    }
    *out = m;
    return NULL;
done:
    metrics_close(m);
    return e;
}

// A line that does not fit on the disk leaves no half of it behind.
static err *append(metrics *m, const char *line, size_t bytes) {
    if (lseek(m->fd, m->end, SEEK_SET) < 0) return err_errno(errno, "%s", m->path);
    err *e = write_all(m->fd, line, bytes, m->path);
    if (!e)
        m->end += (off_t)bytes;
    else if (ftruncate(m->fd, m->end) != 0)
        log_warn("%s may end in half a line: %s", m->path, strerror(errno));
    return e;
}

err *metrics_write(metrics *m, json_t *line) {
    char *text = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(10)) : NULL;
    json_decref(line);
    if (!text) return err_new(ERR_RUNTIME, "a line of %s could not be made", m->path);
    size_t bytes = strlen(text);
    text[bytes] = '\n'; // in place of the terminator
    err *e = append(m, text, bytes + 1);
    if (e && !m->lost++) log_warn("%s; training goes on, lines of metrics are lost", err_text(e));
    if (!e && m->lost) {
        log_warn("%s can be written again, %lld lines were lost", m->path, (long long)m->lost);
        m->lost = 0;
    }
    err_free(e);
    free(text);
    return NULL;
}

void metrics_close(metrics *m) {
    if (!m) return;
    if (m->fd >= 0) close(m->fd);
    free(m->path);
    free(m);
}
