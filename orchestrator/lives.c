#include "lives.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fsutil.h"
#include "jsonl.h"
#include "log.h"

static const char file_name[] = "lives.jsonl";

static double wall_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void add_env(json_t *event, const char *key, const char *name) {
    const char *value = getenv(name);
    if (value && *value && !json_object_get(event, key)) json_object_set_new(event, key, json_string(value));
}

static void add_job(json_t *event) {
    json_object_set_new(event, "time", json_real(wall_clock()));
    add_env(event, "job", "SLURM_JOB_ID");
    add_env(event, "restart", "SLURM_RESTART_COUNT");
    add_env(event, "nodes", "SLURM_JOB_NODELIST");
}

// Does the file end in half a line, left by a crash or a full disk?
static bool ends_torn(int fd) {
    char last = '\n';
    off_t end = lseek(fd, 0, SEEK_END);
    return end > 0 && pread(fd, &last, 1, end - 1) == 1 && last != '\n';
}

// One write, so that lines of two writers do not mix.
static err *append_line(int fd, const char *text, const char *path) {
    size_t n = strlen(text);
    char *line = malloc(n + 2);
    if (!line) return err_new(ERR_SYSTEM, "out of memory for a line of %s", path);
    bool torn = ends_torn(fd);
    line[0] = '\n';
    memcpy(line + 1, text, n);
    line[n + 1] = '\n';
    err *e = write_all(fd, torn ? line : line + 1, n + 1 + torn, path);
    free(line);
    return e;
}

err *lives_append(const char *run_dir, json_t *event) {
    err *e = NULL;
    char *path = path_join(run_dir, file_name), *text = NULL;
    int fd = -1;
    if (event) add_job(event);
    if (!event || !(text = json_dumps(event, JSON_COMPACT | JSON_REAL_PRECISION(14))))
        FAIL(ERR_SYSTEM, "a line of %s could not be made", path);
    fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) {
        e = err_errno(errno, "%s cannot be opened for appending", path);
        goto done;
    }
    TRY(append_line(fd, text, path));
done:
    if (fd >= 0) close(fd);
    json_decref(event);
    free(text);
    free(path);
    return e;
}

static void take_event(void *events, json_t *event) { json_array_append(events, event); }

err *lives_read(const char *run_dir, json_t **out) {
    err *e = NULL;
    char *path = path_join(run_dir, file_name);
    *out = json_array();
    if (!*out) FAIL(ERR_SYSTEM, "out of memory for %s", path);
    TRY(jsonl_read(path, take_event, *out));
done:
    if (e) json_decref(*out), *out = NULL;
    free(path);
    return e;
}

// ---- a life of the program

static void note(const lives *l, json_t *event) {
    err *e = NULL;
    if (!l->run_dir)
        json_decref(event);
    else
        e = lives_append(l->run_dir, event);
    if (e) log_warn("%s; the run goes on", err_text(e));
    err_free(e);
}

static int64_t last_life(const char *run_dir) {
    json_t *events = NULL, *event;
    size_t i;
    int64_t last = 0;
    err *e = lives_read(run_dir, &events);
    if (e) log_warn("%s", err_text(e));
    err_free(e);
    json_array_foreach(events, i, event) {
        int64_t life = json_integer_value(json_object_get(event, "life"));
        if (life > last) last = life;
    }
    json_decref(events);
    return last;
}

void lives_begin(const char *run_dir, int64_t step, int64_t tokens, int ranks, lives *out) {
    char host[64] = "?";
    gethostname(host, sizeof host - 1);
    *out = (lives){.run_dir = strdup(run_dir), .life = last_life(run_dir) + 1};
    note(out, json_pack("{s:s, s:I, s:I, s:I, s:i, s:s, s:I}", "event", "begin", "life",
                        (json_int_t)out->life, "step", (json_int_t)step, "tokens", (json_int_t)tokens,
                        "ranks", ranks, "host", host, "process", (json_int_t)getpid()));
}

static void note_step(const lives *l, const char *event, int64_t step) {
    note(l,
         json_pack("{s:s, s:I, s:I}", "event", event, "life", (json_int_t)l->life, "step", (json_int_t)step));
}

void lives_step(const lives *l, int64_t step) { note_step(l, "step", step); }

void lives_save(const lives *l, int64_t step) { note_step(l, "save", step); }

void lives_end(lives *l, int64_t step, int64_t tokens, const err *e) {
    note(l, json_pack("{s:s, s:I, s:I, s:I, s:i, s:s}", "event", "end", "life", (json_int_t)l->life, "step",
                      (json_int_t)step, "tokens", (json_int_t)tokens, "code", (int)err_get_code(e), "why",
                      e ? err_text(e) : "done"));
    free(l->run_dir);
    *l = (lives){0};
}
