#include "audit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "../worker/samples.h"
#include "data_order.h"
#include "fsutil.h"
#include "jsonl.h"
#include "log.h"

enum { MOST_TOLD = 10 };

typedef struct audit {
    stream *data;
    int64_t seq_len;
    int64_t step;    // the last one seen
    uint64_t next;   // sample that the next step should begin with
    uint64_t batch;  // samples that the stream delivers a step; 0: not started
    uint64_t at;     // sample that the stream delivers next
    int64_t checked; // steps
    int64_t wrong;   // findings
    err *failed;
} audit;

// What a line says of its step's samples: first .. end-1, and which they were.
typedef struct entry {
    int64_t step;
    uint64_t first, end, digest;
} entry;

static uint64_t number(const json_t *line, const char *key) {
    return (uint64_t)json_integer_value(json_object_get(line, key));
}

// Steps whose line was lost, to a full disk say, leave a gap; the batch is then taken to be as before.
static bool read_entry(const audit *a, const json_t *line, entry *out) {
    const char *digest = json_string_value(json_object_get(line, "digest"));
    if (!digest) return false;
    *out = (entry){.step = (int64_t)number(line, "step"), .digest = strtoull(digest, NULL, 16)};
    if (json_object_get(line, "skipped")) {
        out->first = number(line, "first_sample");
        out->end = number(line, "last_sample") + 1;
    } else {
        out->end = number(line, "samples");
        out->first = out->step == a->step + 1 || out->end < a->batch ? a->next : out->end - a->batch;
    }
    return true;
}

static void found(audit *a, const char *what, int64_t step, uint64_t first, uint64_t end) {
    if (a->wrong++ < MOST_TOLD)
        printf("step %lld: %s (samples %" PRIu64 " to %" PRIu64 ")\n", (long long)step, what, first, end - 1);
}

static err *digest_of(audit *a, const entry *s, uint64_t *out) {
    err *e = NULL;
    uint64_t n = s->end - s->first;
    const int32_t *rows;
    if (a->batch != n || a->at != s->first) TRY(stream_start(a->data, s->first, 0, (int64_t)n, (int64_t)n));
    a->batch = n;
    a->at = s->end;
    TRY(stream_next(a->data, &rows));
    *out = samples_digest(rows, (int64_t)n, a->seq_len);
done:
    return e;
}

static void take_line(void *context, json_t *line) {
    audit *a = context;
    entry s;
    uint64_t digest;
    if (a->failed || !read_entry(a, line, &s)) return;
    if (s.step <= a->step || s.end <= s.first) {
        found(a, "stands in the record a second time", s.step, s.first, s.end);
        return;
    }
    if (s.step != a->step + 1) found(a, "steps before it left no record", s.step, a->next, s.first);
    if (s.first < a->next)
        found(a, "begins with samples that were trained on before", s.step, s.first, s.end);
    if (s.first > a->next && s.step == a->step + 1)
        found(a, "samples before it were left out", s.step, a->next, s.first);
    a->step = s.step;
    a->next = s.end;
    a->checked++;
    a->failed = digest_of(a, &s, &digest);
    if (!a->failed && digest != s.digest)
        found(a, "was trained on other samples than those of the order in config.yaml", s.step, s.first,
              s.end);
}

static err *verdict(const audit *a, const char *run_dir) {
    if (!a->checked)
        return err_new(ERR_INPUT, "%s/metrics.jsonl tells of no step with a digest of its samples", run_dir);
    if (a->wrong)
        return err_new(
            ERR_MISMATCH,
            "%s: %lld findings in %lld steps, expected none. Only a run that went on with --accept "
            "may differ, in the steps before it did; else data files were changed or replaced, or "
            "the record was",
            run_dir, (long long)a->wrong, (long long)a->checked);
    printf("audited: %lld steps, samples 0 to %" PRIu64 ", each step on exactly its own, in order: none left "
           "out, none twice\n",
           (long long)a->checked, a->next - 1);
    return NULL;
}

err *audit_run(const char *run_dir) {
    err *e = NULL;
    char *path = path_join(run_dir, "config.yaml"), *metrics = path_join(run_dir, "metrics.jsonl");
    config *c = NULL;
    audit a = {.step = 0};
    // which samples these are has nothing to do with the model, which may not be here
    const stream_check any = {.vocab = INT32_MAX, .allow_mismatch = true};
    TRY(config_load(path, NULL, 0, false, &c));
    TRY(open_blend(c, &any, &a.data));
    a.seq_len = c->data.seq_len;
    TRY(jsonl_read(metrics, take_line, &a));
    e = a.failed ? a.failed : verdict(&a, run_dir);
done:
    stream_close(a.data);
    config_free(c);
    free(metrics);
    free(path);
    return e;
}
