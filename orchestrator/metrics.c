#include "metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fsutil.h"

struct metrics {
    char *path;
    FILE *f;
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
    TRY(trim(m->path, step));
    if (!(m->f = fopen(m->path, "a"))) {
        e = err_errno(errno, "%s cannot be opened for appending", m->path);
        goto done;
    }
    *out = m;
    return NULL;
done:
    metrics_close(m);
    return e;
}

err *metrics_write(metrics *m, json_t *line) {
    char *text = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(10)) : NULL;
    json_decref(line);
    if (!text) return err_new(ERR_SYSTEM, "a line of %s could not be made", m->path);
    int rc = fprintf(m->f, "%s\n", text);
    free(text);
    if (rc < 0 || fflush(m->f) != 0) return err_errno(errno, "%s cannot be written", m->path);
    return NULL;
}

void metrics_close(metrics *m) {
    if (!m) return;
    if (m->f) fclose(m->f);
    free(m->path);
    free(m);
}
