// What a sweep found: cells that differ only in their seed are one row.
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsutil.h"
#include "log.h"
#include "status.h"
#include "sweep.h"

enum { MOST_POINTS = 4096 };

// A cell's validation losses over tokens.
typedef struct curve {
    double tokens[MOST_POINTS], loss[MOST_POINTS];
    int points;
    double tokens_per_s;
    double base_loss; // NaN: not measured
} curve;

typedef struct tally {
    int n;
    double sum, squares;
} tally;

typedef struct row {
    const cell *first;
    int cells, done;
    double base;                      // the base's loss
    tally start, end, recovery, rate; // recovery: tokens, of the cells that did
} row;

static void add(tally *t, double x) {
    if (!isfinite(x)) return;
    t->n++;
    t->sum += x;
    t->squares += x * x;
}

static double mean(const tally *t) { return t->n ? t->sum / t->n : NAN; }

static double deviation(const tally *t) {
    double m = mean(t), v = t->n > 1 ? (t->squares - t->n * m * m) / (t->n - 1) : NAN;
    return v > 0 ? sqrt(v) : v == v ? 0 : NAN;
}

static void take_point(curve *c, const json_t *line) {
    const json_t *loss = json_object_get(line, "valid_loss"), *tokens = json_object_get(line, "tokens");
    if (!json_is_number(loss) || c->points == MOST_POINTS) return;
    double at = json_is_number(tokens) ? json_number_value(tokens) : 0;
    if (c->points && c->tokens[c->points - 1] == at) c->points--; // measured again after a restart
    c->tokens[c->points] = at;
    c->loss[c->points++] = json_number_value(loss);
}

static err *read_curve(const cell *cell, curve *c) {
    err *e = NULL;
    char *path = path_join(cell->dir, "metrics.jsonl"), *text = NULL;
    size_t bytes;
    run_status s = {.events = NULL};
    c->points = 0;
    TRY(status_read(cell->dir, &s));
    c->tokens_per_s = s.tokens_per_s;
    c->base_loss = s.base_valid_loss;
    TRY(read_file(path, (size_t)1 << 32, &text, &bytes));
    for (char *line = text, *end; (end = memchr(line, '\n', bytes - (size_t)(line - text))); line = end + 1) {
        json_t *doc = json_loadb(line, (size_t)(end - line), 0, NULL);
        take_point(c, doc);
        json_decref(doc);
    }
    if (!c->points)
        FAIL(ERR_INPUT, "%s holds no validation: set data.valid and eval.every in the config", path);
done:
    status_free(&s);
    free(text);
    free(path);
    return e;
}

// Tokens at which the loss first is at or below `level`, between two measurements on a straight line; NaN:
// never.
static double reaches(const curve *c, double level) {
    for (int i = 0; i < c->points; i++) {
        if (!(c->loss[i] <= level)) continue;
        if (!i) return 0;
        double share = (c->loss[i - 1] - level) / (c->loss[i - 1] - c->loss[i]);
        return c->tokens[i - 1] + share * (c->tokens[i] - c->tokens[i - 1]);
    }
    return NAN;
}

static bool same_row(const cell *a, const cell *b) {
    return a->base == b->base && a->kind == b->kind && a->m == b->m && a->equal == b->equal &&
           a->ranks == b->ranks;
}

// The base's own loss: what a base cell measured before its first step, else what any cell did; NaN: none.
static double base_loss(const sweep *s, int base, curve *work) {
    double loss = NAN;
    for (int i = 0; i < s->cells; i++) {
        const cell *c = &s->cell[i];
        if (c->base != base || c->kind == CELL_PRETRAIN || !cell_done(c)) continue;
        err *e = read_curve(c, work);
        if (!e && isnan(loss)) loss = c->kind == CELL_BASE ? work->loss[0] : work->base_loss;
        err_free(e);
    }
    return loss;
}

static err *fill_row(const sweep *s, row *r, curve *work) {
    err *e = NULL;
    for (int i = 0; i < s->cells; i++) {
        const cell *c = &s->cell[i];
        if (!same_row(c, r->first)) continue;
        r->cells++;
        if (!cell_done(c)) continue;
        TRY(read_curve(c, work));
        r->done++;
        add(&r->start, work->loss[0]);
        add(&r->end, work->loss[work->points - 1]);
        add(&r->recovery, reaches(work, r->base));
        add(&r->rate, work->tokens_per_s);
    }
done:
    return e;
}

static err *make_rows(const sweep *s, curve *work, row **out, int *count) {
    err *e = NULL;
    row *rows = *out = calloc((size_t)s->cells, sizeof *rows);
    if (!rows) FAIL(ERR_SYSTEM, "out of memory for the report");
    for (int i = 0; i < s->cells; i++) {
        bool seen = s->cell[i].kind == CELL_PRETRAIN;
        for (int k = 0; k < *count; k++) seen |= same_row(&s->cell[i], rows[k].first);
        if (seen) continue;
        row *r = &rows[(*count)++];
        r->first = &s->cell[i];
        r->base = base_loss(s, r->first->base, work);
        TRY(fill_row(s, r, work));
    }
done:
    return e;
}

// ---- text

static void number(char out[32], const char *format, double x) {
    if (isfinite(x))
        snprintf(out, 32, format, x); // NOLINT(clang-diagnostic-format-nonliteral)
    else
        snprintf(out, 32, "-");
}

// Loss, with the deviation over seeds where there are several.
static void loss_text(char out[48], const tally *t) {
    char a[32], b[32];
    number(a, "%.4f", mean(t));
    number(b, "%.4f", deviation(t));
    snprintf(out, 48, t->n > 1 ? "%s +- %s" : "%s", a, b);
}

static void recovery_text(char out[48], const row *r) {
    char a[32];
    number(a, "%.3g", mean(&r->recovery));
    if (r->recovery.n == r->done || isnan(r->base))
        snprintf(out, 48, "%s", a);
    else if (r->recovery.n)
        snprintf(out, 48, "%s (%d of %d)", a, r->recovery.n, r->done);
    else
        snprintf(out, 48, "not yet");
}

static void print_row(FILE *f, const sweep *s, const row *r) {
    const cell *c = r->first;
    char kind[32], start[48], end[48], recovery[48], rate[32], ranks[24];
    loss_text(start, &r->start);
    loss_text(end, &r->end);
    recovery_text(recovery, r);
    number(rate, "%.0f", mean(&r->rate));
    fprintf(f,
            "| %-10s | %2d | %-11s | %2d | %10lld | %9.3g | %-6s | %9.3g | %5s | %d/%d | %-18s | %-18s | "
            "%-15s | %8s |\n",
            s->base[c->base].name, c->n, cell_kind_name(c, kind), c->depth, (long long)c->parameters, c->flop,
            c->equal == EQUAL_FLOP ? "flop" : "tokens", (double)c->tokens, cell_ranks_text(s, c, ranks),
            r->done, r->cells, start, end, recovery, rate);
}

static void print_table(FILE *f, const sweep *s, const row *rows, int count) {
    fprintf(f, "| base       | n  | plan        | s  | parameters | FLOP/tok. | equal  | tokens    | ranks | "
               "done| loss at start      | "
               "loss at end        | tokens to base  | tokens/s |\n"
               "|------------|---:|-------------|---:|-----------:|----------:|--------|----------:|------:|-"
               "----|--------------------|-"
               "-------------------|-----------------|---------:|\n");
    for (int i = 0; i < count; i++) print_row(f, s, &rows[i]);
}

// The row of the same plan on the fewest ranks; NULL: it is not done.
static const row *on_fewest(const row *rows, int count, const row *r) {
    const row *least = NULL;
    for (int i = 0; i < count; i++) {
        const cell *a = rows[i].first, *b = r->first;
        bool same = a->base == b->base && a->kind == b->kind && a->m == b->m && a->equal == b->equal;
        if (same && rows[i].rate.n && (!least || a->ranks < least->first->ranks)) least = &rows[i];
    }
    return least;
}

// How the rate grows with the ranks.
static void print_scaling(FILE *f, const sweep *s, const row *rows, int count) {
    char kind[32];
    if (s->n_ranks < 2) return;
    fprintf(
        f, "\n| base       | plan        | equal  | ranks | batch | tokens/s | times the first | of ideal |\n"
           "|------------|-------------|--------|------:|------:|---------:|----------------:|---------:|\n");
    for (int i = 0; i < count; i++) {
        const row *r = &rows[i], *least = on_fewest(rows, count, r);
        if (!r->rate.n || !least) continue;
        const cell *c = r->first;
        double times = mean(&r->rate) / mean(&least->rate);
        fprintf(f, "| %-10s | %-11s | %-6s | %5lld | %5lld | %8.0f | %15.2f | %6.1f %% |\n",
                s->base[c->base].name, cell_kind_name(c, kind), c->equal == EQUAL_FLOP ? "flop" : "tokens",
                (long long)c->ranks, (long long)c->global_batch, mean(&r->rate), times,
                100 * times * (double)least->first->ranks / (double)c->ranks);
    }
    fprintf(f, "\n%s scaling: %s.\n", s->weak ? "Weak" : "Strong",
            s->weak ? "batch and tokens grow with the ranks" : "the same batch on more ranks");
}

static void print_notes(FILE *f) {
    fprintf(f, "\nLosses are means over the seeds with their standard deviation, on the validation sets. "
               "`tokens to base`: until the\n"
               "loss was first at or below that of the untrained base. `equal`: to the same tokens, or to "
               "the FLOP that the most\n"
               "expensive cell needs for them (6N + 12 L h s a token). random: layers drawn by chance, kept "
               "in order; insert: new\n"
               "layers that begin as zeros, as many as m makes.\n");
}

static void print_tsv(FILE *f, const sweep *s, const row *rows, int count) {
    fprintf(f, "base\tn\tkind\tm\tlayers\tparameters\tflop_per_"
               "token\tequal\ttokens\tranks\tdone\tcells\tstart\tstart_sd\tend\tend_sd\t"
               "recovery_tokens\trecovered\ttokens_per_s\n");
    for (int i = 0; i < count; i++) {
        const row *r = &rows[i];
        const cell *c = r->first;
        char kind[32];
        cell_kind_name(c, kind);
        kind[strcspn(kind, " =")] = 0;
        fprintf(f,
                "%s\t%d\t%s\t%lld\t%d\t%lld\t%.6g\t%s\t%lld\t%lld\t%d\t%d\t%.6g\t%.3g\t%.6g\t%.3g\t%.6g\t%"
                "d\t%.6g\n",
                s->base[c->base].name, c->n, kind, (long long)c->m, c->depth, (long long)c->parameters,
                c->flop, c->equal == EQUAL_FLOP ? "flop" : "tokens", (long long)c->tokens,
                (long long)c->ranks, r->done, r->cells, mean(&r->start), deviation(&r->start), mean(&r->end),
                deviation(&r->end), mean(&r->recovery), r->recovery.n, mean(&r->rate));
    }
}

// ---- plots

// The mean over the seeds of a row, as far as all of them have been measured at the same tokens.
static err *mean_curve(const sweep *s, const row *r, curve *work, curve *mean) {
    err *e = NULL;
    int n = 0;
    for (int i = 0; i < s->cells; i++) {
        if (!same_row(&s->cell[i], r->first) || !cell_done(&s->cell[i])) continue;
        TRY(read_curve(&s->cell[i], n ? work : mean));
        if (!n++) continue;
        if (work->points < mean->points) mean->points = work->points;
        for (int k = 0; k < mean->points; k++) {
            if (work->tokens[k] != mean->tokens[k])
                mean->points = k; // ends the loop
            else
                mean->loss[k] += (work->loss[k] - mean->loss[k]) / n;
        }
    }
done:
    return e;
}

// One block of points for every row, with its name: gnuplot's `index` picks it.
static err *print_curves(FILE *f, const sweep *s, const row *rows, int count, curve *work) {
    err *e = NULL;
    char kind[32], ranks[24];
    curve *mean = calloc(1, sizeof *mean);
    if (!mean) FAIL(ERR_SYSTEM, "out of memory for the curves");
    for (int i = 0; i < count; i++) {
        const cell *c = rows[i].first;
        if (!rows[i].done) continue;
        TRY(mean_curve(s, &rows[i], work, mean));
        fprintf(f, "\"%s, %s, equal %s%s%s\"\n", s->base[c->base].name, cell_kind_name(c, kind),
                c->equal == EQUAL_FLOP ? "flop" : "tokens", s->n_ranks > 1 ? ", ranks " : "",
                s->n_ranks > 1 ? cell_ranks_text(s, c, ranks) : "");
        for (int k = 0; k < mean->points; k++) fprintf(f, "%.0f %.6g\n", mean->tokens[k], mean->loss[k]);
        fprintf(f, "\n\n");
    }
done:
    free(mean);
    return e;
}

// One line of points a base, kind and budget: loss against m.
static void plot_against_m(FILE *f, const sweep *s, const row *rows, int count, const char *column,
                           const char *title, const char *file) {
    const char *comma = "";
    int drawn = 0;
    for (int i = 0; i < count; i++) drawn += rows[i].done && rows[i].first->kind <= CELL_INSERT;
    if (!drawn) return; // lists of layers have no m
    static const char *const words[] = {[CELL_DUS] = "m", [CELL_RANDOM] = "random", [CELL_INSERT] = "insert"};
    fprintf(f,
            "set output '%s'\nset title '%s'\nset xlabel 'm'\nset ylabel 'loss (nats per token)'\nset xtics "
            "1\nplot ",
            file, title);
    for (int b = 0; b < s->n_base; b++)
        for (int kind = CELL_BASE; kind <= CELL_INSERT; kind++)
            for (int q = 0; q < 2; q++)
                for (int i = 0; i < count; i++) {
                    const cell *c = rows[i].first;
                    if (c->base != b || (int)c->kind != kind || (int)c->equal != q || !rows[i].done) continue;
                    const char *equal = q ? "flop" : "tokens";
                    if (kind == CELL_BASE)
                        fprintf(f, "%s%.6g with lines dt 2 title '%s, base, equal %s'", comma,
                                *column == 's' ? mean(&rows[i].start) : mean(&rows[i].end), s->base[b].name,
                                equal);
                    else
                        fprintf(f,
                                "%s'report.tsv' using (strcol('base') eq '%s' && strcol('kind') eq '%s' && "
                                "strcol('equal') eq '%s' && column('ranks') == %lld ? "
                                "column('m') : NaN):(column('%s')) with linespoints pt 7 title '%s, %s, "
                                "equal %s'",
                                comma, s->base[b].name, words[kind], equal, (long long)s->ranks[0], column,
                                s->base[b].name, words[kind], equal);
                    comma = ", \\\n  ";
                    break;
                }
    fprintf(f, "\n");
}

// One line a plan: tokens/s against ranks, and the first of them times the ranks.
static void plot_scaling(FILE *f, const sweep *s, const row *rows, int count) {
    char kind[32];
    fprintf(f, "set output 'scaling.svg'\nset title 'Scaling'\nset xlabel 'ranks'\nset ylabel 'tokens/s'\n"
               "set xtics auto\nset logscale xy 2\nplot ");
    for (int i = 0; i < count; i++) {
        const cell *c = rows[i].first;
        if (on_fewest(rows, count, &rows[i]) != &rows[i]) continue;
        fprintf(
            f,
            "'report.tsv' using (strcol('base') eq '%s' && strcol('kind') eq '%.*s' && column('m') == %lld "
            "&& "
            "strcol('equal') eq '%s' ? column('ranks') : NaN):(column('tokens_per_s')) with linespoints pt 7 "
            "title '%s, %s', \\\n  ",
            s->base[c->base].name, (int)strcspn(cell_kind_name(c, kind), " ="), kind, (long long)c->m,
            c->equal == EQUAL_FLOP ? "flop" : "tokens", s->base[c->base].name, kind);
        fprintf(f, "%.6g * x / %lld with lines dt 2 lc rgb 'grey' notitle, \\\n  ", mean(&rows[i].rate),
                (long long)c->ranks);
    }
    fprintf(f, "NaN notitle\nunset logscale\n");
}

static void print_script(FILE *f, const sweep *s, const row *rows, int count) {
    int curves = 0;
    for (int i = 0; i < count; i++) curves += rows[i].done > 0;
    // as high as the list of curves
    fprintf(f,
            "set terminal svg size 900,%d dynamic background rgb 'white'\nset datafile separator "
            "'\\t'\nset grid lc rgb '#e0e0e0'\n"
            "set key outside right\n",
            curves < 22 ? 520 : 80 + 20 * curves);
    plot_against_m(f, s, rows, count, "start", "Right after deepening", "start.svg");
    plot_against_m(f, s, rows, count, "end", "After the budget", "end.svg");
    if (s->n_ranks > 1) plot_scaling(f, s, rows, count);
    fprintf(f,
            "set datafile separator whitespace\nset output 'curves.svg'\nset title 'Validation loss, means "
            "over the seeds'\nset "
            "xlabel 'tokens'\n"
            "set xtics auto\nset format x '%%.0s%%c'\nplot for [i=0:%d] 'curves.txt' index i using 1:2 with "
            "lines title columnheader(1)\n",
            curves - 1);
}

static err *open_report(const sweep *s, const char *name, FILE **out) {
    char *path = path_join(s->dir, name);
    *out = fopen(path, "w");
    err *e = *out ? NULL : err_new(ERR_SYSTEM, "%s cannot be written", path);
    free(path);
    return e;
}

static err *draw(const sweep *s) {
    err *e = NULL;
    // NOLINTNEXTLINE(cert-env33-c): a fixed command
    if (system("command -v gnuplot >/dev/null 2>&1") != 0) {
        log_warn("gnuplot is not installed: %s/plots.gp draws the plots where it is", s->dir);
        return NULL;
    }
    char here[4096];
    if (!getcwd(here, sizeof here) || chdir(s->dir) != 0) FAIL(ERR_SYSTEM, "%s cannot be entered", s->dir);
    // NOLINTNEXTLINE(cert-env33-c): a fixed command
    int status = system("gnuplot plots.gp");
    if (chdir(here) != 0 || status != 0) FAIL(ERR_RUNTIME, "gnuplot failed on %s/plots.gp", s->dir);
    log_info("plots: %s/start.svg, end.svg, curves.svg%s", s->dir, s->n_ranks > 1 ? ", scaling.svg" : "");
done:
    return e;
}

static err *write_files(const sweep *s, const row *rows, int count, curve *work) {
    err *e = NULL;
    FILE *md = NULL, *tsv = NULL, *curves = NULL, *script = NULL;
    TRY(open_report(s, "report.md", &md));
    TRY(open_report(s, "report.tsv", &tsv));
    TRY(open_report(s, "curves.txt", &curves));
    TRY(open_report(s, "plots.gp", &script));
    print_table(md, s, rows, count);
    print_notes(md);
    print_scaling(md, s, rows, count);
    print_tsv(tsv, s, rows, count);
    TRY(print_curves(curves, s, rows, count, work));
    print_script(script, s, rows, count);
done:
    if (md) fclose(md);
    if (tsv) fclose(tsv);
    if (curves) fclose(curves);
    if (script) fclose(script);
    return e;
}

err *sweep_report(const sweep *s) {
    err *e = NULL;
    row *rows = NULL;
    int count = 0, done = 0;
    curve *work = malloc(sizeof *work);
    if (!work) FAIL(ERR_SYSTEM, "out of memory for the report");
    TRY(make_rows(s, work, &rows, &count));
    for (int i = 0; i < count; i++) done += rows[i].done;
    if (!done) FAIL(ERR_INPUT, "no cell of %s is done yet", s->file);
    TRY(make_dirs(s->dir));
    print_table(stdout, s, rows, count);
    print_notes(stdout);
    print_scaling(stdout, s, rows, count);
    fflush(stdout);
    TRY(write_files(s, rows, count, work));
    TRY(draw(s));
done:
    free(work);
    free(rows);
    return e;
}
