// solar status: where a run stands.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "log.h"
#include "scalar.h"
#include "status.h"

static void row(const char *name) { printf("%-11s ", name); }

static void print_ago(double when) {
    char span[32];
    format_time(span, difftime(time(NULL), (time_t)when));
    printf("%s ago", span);
}

static void print_losses(const run_status *s) {
    if (isnan(s->loss) && isnan(s->valid_loss)) return;
    row("loss");
    if (!isnan(s->loss)) printf("%.4f", s->loss);
    if (!isnan(s->valid_loss)) printf("%svalidation %.4f", isnan(s->loss) ? "" : "; ", s->valid_loss);
    if (!isnan(s->base_valid_loss)) printf(" (base %.4f)", s->base_valid_loss);
    if (s->recovered_step >= 0) printf("; recovered at step %lld", (long long)s->recovered_step);
    puts("");
}

static void print_progress(const run_status *s) {
    char left[32];
    row("step");
    printf("%lld of %lld (%.1f %%)\n", (long long)s->step, (long long)s->steps,
           s->steps ? 100.0 * (double)s->step / (double)s->steps : 0);
    row("tokens");
    printf("%lld of %lld\n", (long long)s->tokens, (long long)s->all_tokens);
    print_losses(s);
    if (isnan(s->step_seconds)) return;
    format_time(left, s->step_seconds * (double)(s->steps - s->step));
    row("time left");
    printf("%s of training, at %.3g s a step, %.0f tokens/s\n", left, s->step_seconds, s->tokens_per_s);
}

static void print_checkpoint(const run_status *s) {
    row("checkpoint");
    if (s->checkpoint < 0) {
        puts("none yet");
        return;
    }
    printf("step %lld, ", (long long)s->checkpoint);
    print_ago(s->checkpoint_time);
    puts("");
}

static double number(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *text(const json_t *o, const char *key, const char *missing) {
    const char *t = json_string_value(json_object_get(o, key));
    return t ? t : missing;
}

static void print_life(const json_t *l, bool last, bool going) {
    char when[32] = "?", to[24] = "?", span[32] = "?";
    double begin = number(l, "begin"), end = number(l, "end"), first = number(l, "first_step");
    time_t t = isnan(begin) ? 0 : (time_t)begin;
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", localtime(&t));
    double reached = isnan(number(l, "to")) ? number(l, "saved") : number(l, "to");
    if (!isnan(reached)) snprintf(to, sizeof to, "%.0f", reached);
    if (!isnan(end)) format_time(span, end - begin);
    printf("  %3.0f  %s  %8.0f -> %-8s  %-8s  ", number(l, "life"), when, number(l, "from"), to, span);
    if (!isnan(first)) printf("first step after %.1f s; ", first - begin);
    printf("%s: %s\n", text(l, "nodes", "?"),
           isnan(end) ? last && going ? "running" : "ended without a word" : text(l, "why", "?"));
}

static void print_lives(const run_status *s, int64_t most) {
    json_t *list = status_lives(s);
    size_t n = json_array_size(list), first = n > (size_t)most ? n - (size_t)most : 0;
    if (n) printf("lives        %zu%s\n", n, first ? ", the last of them:" : ":");
    for (size_t i = first; i < n; i++) print_life(json_array_get(list, i), i + 1 == n, s->phase == RUN_GOING);
    json_decref(list);
}

static void print_nodes(const run_status *s) {
    json_t *out = status_left_out(s), *why;
    const char *node;
    json_object_foreach(out, node, why) {
        row("left out");
        printf("%s: %s\n", node, json_string_value(why));
    }
    json_decref(out);
}

static void print_text(const char *dir, const run_status *s, int64_t most) {
    row("run");
    puts(dir);
    row("state");
    printf("%s", status_phase(s->phase));
    if (s->idle > 1) printf("; %lld lives of the job without a new checkpoint", (long long)s->idle);
    puts("");
    print_progress(s);
    print_checkpoint(s);
    print_nodes(s);
    print_lives(s, most);
}

static json_t *real_or_null(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *status_json(const char *dir, const run_status *s) {
    double left = s->step_seconds * (double)(s->steps - s->step);
    return json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:o, s:I, s:I, s:o, s:o}", "run",
        dir, "state", status_phase(s->phase), "step", (json_int_t)s->step, "steps", (json_int_t)s->steps,
        "tokens", (json_int_t)s->tokens, "all_tokens", (json_int_t)s->all_tokens, "loss",
        real_or_null(s->loss), "valid_loss", real_or_null(s->valid_loss), "base_valid_loss",
        real_or_null(s->base_valid_loss), "tokens_per_s", real_or_null(s->tokens_per_s), "seconds_left",
        real_or_null(left), "recovered_step", (json_int_t)s->recovered_step, "checkpoint",
        (json_int_t)s->checkpoint, "checkpoint_time", real_or_null(s->checkpoint_time), "lives",
        (json_int_t)s->lives, "idle", (json_int_t)s->idle, "left_out", status_left_out(s), "history",
        status_lives(s));
}

static err *print_json(const char *dir, const run_status *s) {
    json_t *doc = status_json(dir, s);
    char *line = doc ? json_dumps(doc, JSON_COMPACT | JSON_REAL_PRECISION(14)) : NULL;
    json_decref(doc);
    if (!line) return err_new(ERR_SYSTEM, "out of memory for the status");
    puts(line);
    free(line);
    return NULL;
}

// One value on one line, for scripts.
static err *print_one(const run_status *s, const char *what) {
    json_t *out, *why;
    const char *node, *comma = "";
    if (!strcmp(what, "state"))
        puts(status_phase(s->phase));
    else if (!strcmp(what, "checkpoint"))
        printf("%lld\n", (long long)(s->checkpoint < 0 ? 0 : s->checkpoint));
    else if (!strcmp(what, "idle"))
        printf("%lld\n", (long long)s->idle);
    else if (!strcmp(what, "lives"))
        printf("%lld\n", (long long)s->lives);
    else if (!strcmp(what, "left-out")) {
        out = status_left_out(s);
        json_object_foreach(out, node, why) {
            printf("%s%s", comma, node);
            comma = ",";
        }
        puts("");
        json_decref(out);
    } else {
        char shown[SHOWN_BYTES];
        show_text(shown, what);
        return err_new(ERR_USAGE, "--print %s: expected state, checkpoint, lives, idle or left-out", shown);
    }
    return NULL;
}

static int run_status_command(int argc, char **argv) {
    err *e = NULL;
    bool json = false, helped = false;
    const char *one = NULL;
    int64_t most = 10;
    int positional = 0;
    run_status s = {.events = NULL};
    const opt opts[] = {
        {"json", OPT_FLAG, &json, NULL, "one line of JSON, every life in it", 0, 0},
        {"print", OPT_STRING, &one, "WHAT",
         "one value: state, checkpoint (its step, 0 without one), lives, idle, left-out (nodes, "
         "comma-separated)",
         0, 0},
        {"lives", OPT_INT, &most, "N", "lives to list, the last ones; default 10", 0, 1e9},
    };
    TRY(cli_parse(&cmd_status, opts, sizeof opts / sizeof *opts, 1, 1, argc, argv, &positional, &helped));
    if (helped) goto done;
    if (json && one) FAIL(ERR_USAGE, "--json and --print: expected one of the two");
    TRY(status_read(argv[1], &s));
    if (one)
        e = print_one(&s, one);
    else if (json)
        e = print_json(argv[1], &s);
    else
        print_text(argv[1], &s, most);
done:
    status_free(&s);
    return cli_finish("status", e);
}

const command cmd_status = {
    .name = "status",
    .brief = "where a run stands: steps, lives, time left, what happened",
    .synopsis = "RUN [--json | --print WHAT] [--lives N]",
    .about = "Reads the directory of a run (run.dir of its config) and nothing else, so it can be asked from "
             "anywhere\n"
             "that sees the directory, while the run goes on or after. A life is one start of the program: a "
             "job that\n"
             "was stopped and put back into the queue three times has four. `idle` counts the lives of the "
             "job since\n"
             "the newest checkpoint moved; the job stops when they are too many. Nodes are left out when a "
             "preflight\n"
             "found them unfit or when they died twice; a line {\"event\": \"fit\", \"node\": \"NAME\"} at "
             "the end of\n"
             "RUN/lives.jsonl lets one back in.",
    .examples = "solar status runs/solar-10.7b\n"
                "solar status runs/solar-10.7b --json | python3 -m json.tool",
    .run = run_status_command,
};
