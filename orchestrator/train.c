#include "train.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "lr.h"
#include "seam_log.h"
#include "timeline_log.h"

// ---- telling people

enum { LINE = 240 };

static void progress_text(const training *t, const step_report *r, const measure *m, double lr,
                          double seconds, char out[LINE]) {
    const config *c = t->cfg;
    int64_t step = t->state.step, left = c->train.steps - step;
    double each = (now_seconds() - t->begin) / (double)(step - t->first_step);
    char time[32], speed[64];
    format_time(time, each * (double)left);
    int n = snprintf(speed, sizeof speed, "%.3g TFLOP/s", m->tflops);
    if (!isnan(m->mfu)) snprintf(speed + n, sizeof speed - (size_t)n, " (MFU %.1f %%)", 100 * m->mfu);
    snprintf(out, LINE, "step %lld/%lld  loss %.4f  lr %.3g  norm %.3g  %.0f tokens/s  %s  left %s",
             (long long)step, (long long)c->train.steps, t->loss_sum / (double)t->loss_count, lr,
             r->grad_norm, (double)(c->train.global_batch * c->data.seq_len) / seconds, speed, time);
}

static err *tell_slow(training *t) {
    slow_rank s = slow_find(&t->slow, &t->m, t->cfg->log.slow_factor);
    if (s.rank < 0) return NULL;
    log_warn("slow rank %d (host %s): works %.2f times as long as its peers; most of it in %s, %.3g s a "
             "step, where "
             "their median is %.3g s",
             s.rank, t->c->hosts[s.rank], s.times, phase_name(s.phase), s.seconds, s.median);
    return metrics_write(t->log, json_pack("{s:I, s:i, s:s, s:s, s:f, s:f, s:f}", "step",
                                           (json_int_t)t->state.step, "slow_rank", s.rank, "host",
                                           t->c->hosts[s.rank], "phase", phase_name(s.phase), "times",
                                           s.times, "seconds", s.seconds, "median", s.median));
}

static err *tell(training *t, const step_report *r, double lr, double seconds, progress *line) {
    err *e = NULL;
    const run_state *s = &t->state;
    char text[LINE], digest[17];
    if (t->m.rank) return NULL;
    measure achieved = measure_step(&t->measures, r, seconds);
    t->loss_sum += r->loss;
    t->loss_count++;
    progress_text(t, r, &achieved, lr, seconds, text);
    bool mark = s->step % t->cfg->log.every == 0 || s->step == t->cfg->train.steps;
    if (line->tty)
        progress_line(line, mark, "%s", text);
    else if (mark)
        log_info("%s", text);
    if (mark) t->loss_sum = 0, t->loss_count = 0;
    slow_note(&t->slow, r->votes);
    if (mark) TRY(tell_slow(t));
    double tokens = (double)(t->cfg->train.global_batch * t->cfg->data.seq_len);
    snprintf(digest, sizeof digest, "%016" PRIx64, r->digest);
    json_t *doc = json_pack("{s:I, s:f, s:f, s:f, s:I, s:I, s:s, s:f, s:f}", "step", (json_int_t)s->step,
                            "loss", r->loss, "lr", lr, "grad_norm", r->grad_norm, "tokens",
                            (json_int_t)s->tokens, "samples", (json_int_t)s->samples_consumed, "digest",
                            digest, "seconds", seconds, "tokens_per_s", tokens / seconds);
    if (doc) measure_note(&achieved, doc);
    e = metrics_write(t->log, doc);
done:
    return e;
}

// ---- bad steps

static err *stop_on(const training *t, const step_report *r) {
    uint64_t first = t->state.samples_consumed;
    return err_share(
        err_new(ERR_NUMERIC,
                "step %lld: %s (loss %g, gradient norm %g); the weights were not touched. Samples %llu to "
                "%llu of the run. Lower optimizer.lr, set optimizer.clip_norm, look at these samples "
                "(solar data --order), or set train.on_bad_step: skip",
                (long long)t->state.step + 1, verdict_text(r->verdict), r->loss, r->grad_norm,
                (unsigned long long)first,
                (unsigned long long)first + (unsigned long long)t->cfg->train.global_batch - 1));
}

static err *tell_skipped(const training *t, const step_report *r) {
    uint64_t first = t->state.samples_consumed, last = first + (uint64_t)t->cfg->train.global_batch - 1;
    char digest[17];
    if (t->m.rank) return NULL;
    snprintf(digest, sizeof digest, "%016" PRIx64, r->digest);
    log_warn("step %lld skipped: %s (loss %g, gradient norm %g), samples %llu to %llu",
             (long long)t->state.step + 1, verdict_text(r->verdict), r->loss, r->grad_norm,
             (unsigned long long)first, (unsigned long long)last);
    return metrics_write(t->log,
                         json_pack("{s:I, s:s, s:I, s:I, s:s}", "step", (json_int_t)t->state.step + 1,
                                   "skipped", verdict_text(r->verdict), "first_sample", (json_int_t)first,
                                   "last_sample", (json_int_t)last, "digest", digest));
}

// A bad step made no update. Its samples count as consumed when the run goes on.
static err *skip(training *t, const step_report *r) {
    run_state *s = &t->state;
    if (!t->cfg->train.skip_bad || s->skipped_in_row + 1 >= t->cfg->train.max_skipped) return stop_on(t, r);
    s->skipped++;
    s->skipped_in_row++;
    return tell_skipped(t, r);
}

// ---- one step, and what may follow it

static err *take_step(training *t, step_report *r, progress *line) {
    err *e = NULL;
    const config *c = t->cfg;
    const int32_t *rows = NULL;
    double start = now_seconds(), lr = learning_rate(c, t->state.step + 1);
    step_options o = {.lr = lr,
                      .beta1 = c->optimizer.beta1,
                      .beta2 = c->optimizer.beta2,
                      .eps = c->optimizer.eps,
                      .weight_decay = c->optimizer.weight_decay,
                      .clip_norm = c->optimizer.clip_norm,
                      .scale_lr = c->lr_scale.until == 0 || t->state.step < c->lr_scale.until,
                      .seed = (uint64_t)c->run.seed};
    unsigned wanted;
    TRY(wishes_ask(&t->wishes, &wanted));
    if (saver_busy(t->saver)) wanted |= WANT_BUSY;
    if (part_takes_samples(t->p)) TRY(stream_next(t->data, &rows));
    t->t->busy[PHASE_DATA] = now_seconds() - start;
    int64_t step = t->state.step + 1;
    TRY(train_step(t->t, step, step - t->state.skipped, &o, rows, wanted, r));
    bool good = r->verdict == STEP_GOOD;
    if (good)
        t->state.skipped_in_row = 0;
    else
        TRY(skip(t, r));
    t->state.step++;
    t->state.samples_consumed += (uint64_t)c->train.global_batch;
    t->state.tokens += c->train.global_batch * c->data.seq_len;
    if (good) TRY(tell(t, r, lr, now_seconds() - start, line));
done:
    return e;
}

static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

static void say_end(const training *t) {
    const run_state *s = &t->state;
    if (t->m.rank) return;
    log_info("done: %lld steps, %lld tokens; %s/latest is a Hugging Face model", (long long)s->step,
             (long long)s->tokens, t->cfg->run.dir);
    if (s->recovered_step >= 0)
        log_info("recovered after %lld steps, %lld tokens", (long long)s->recovered_step,
                 (long long)s->recovered_tokens);
}

static err *stopped(const training *t) {
    return err_share(err_new(ERR_RESUME,
                             "stopped by %s after step %lld of %lld, saved; run the same command to go on",
                             t->wishes.why, (long long)t->state.step, (long long)t->cfg->train.steps));
}

static bool finished(const training *t) {
    return t->state.step >= t->cfg->train.steps ||
           (t->cfg->eval.stop_when_recovered && t->state.recovered_step >= 0);
}

// What a signal kept the former life from evaluating is made up for.
static bool evaluation_is_owed(const training *t) {
    const run_state *s = &t->state;
    return !t->resumed || (due(s->step, t->cfg->eval.every) && s->evaluated_step != s->step);
}

err *training_run(training *t) {
    err *e = NULL;
    const config *c = t->cfg;
    run_state *s = &t->state;
    step_report r = {0};
    progress line;
    bool stop = false;
    progress_start(&line);
    if (evaluation_is_owed(t)) TRY(evaluate_run(t));
    if (finished(t) && t->m.rank == 0)
        log_info("nothing to do: %s", s->step < c->train.steps ? "it has recovered" : "all steps are done");
    if (finished(t) && !t->resumed) TRY(saving_last(t));
    t->begin = now_seconds();
    t->first_step = s->step;
    t->c->limit = c->timeout.step;
    while (!finished(t) && !stop) {
        TRY(take_step(t, &r, &line));
        if (s->step == t->first_step + 1) lives_step(&t->diary, s->step);
        if (due(s->step, c->log.seam_every) && r.verdict == STEP_GOOD) TRY(seam_log(t));
        if (due(s->step, c->log.timeline_every)) TRY(timeline_log(t));
        stop = (r.wanted & WANT_STOP) && s->step < c->train.steps;
        if (!stop && (due(s->step, c->eval.every) || s->step == c->train.steps)) TRY(evaluate_run(t));
        bool last = stop || finished(t);
        TRY(last ? saving_last(t) : saving_boundary(t, r.wanted, due(s->step, c->checkpoint.every)));
    }
    if (stop) wishes_drop(&t->wishes, WANT_STOP);
    if (stop) return stopped(t);
    say_end(t);
done:
    return e;
}
