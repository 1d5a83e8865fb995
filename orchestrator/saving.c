// When a run saves, and what comes of it.
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "train.h"

err *saving_open(training *t) {
    const config *c = t->cfg;
    save_options o = {.run_dir = c->run.dir,
                      .life = t->life,
                      .extras_from = c->model.base,
                      .spec = t->b.spec,
                      .keep = {c->checkpoint.keep, c->checkpoint.keep_every, c->checkpoint.keep_best},
                      .file_bytes = c->checkpoint.file_mib << 20};
    t->saved_step = t->resumed ? t->state.step : -1;
    return saver_open(t->p, t->c, &o, &t->saver);
}

static void tell_saved(training *t, const saved *s) {
    char bytes[32];
    lives_save(&t->diary, s->step);
    wishes_saved(&t->wishes, s->seconds);
    t->saved_step = s->step;
    if (t->m.rank) return;
    format_bytes(bytes, (double)s->bytes);
    log_info("saved checkpoints/step-%08lld, %s, in %.1f s of which training waited %.2f s",
             (long long)s->step, bytes, s->seconds, s->stall);
}

// A save that comes to nothing leaves the older checkpoints and the run as they are; it is tried again. What
// is worse than that ends the run: ranks that are gone, numbers not worth saving, a run that is another
// life's.
static err *judge(training *t, err *e, bool must) {
    err_code code = err_get_code(e);
    if (!e || must || !err_is_shared(e) || code == ERR_PEER || code == ERR_NUMERIC || code == ERR_RUNTIME)
        return e;
    if (t->m.rank == 0) log_warn("%s; training goes on, it is tried again in a minute", err_text(e));
    wishes_failed(&t->wishes);
    err_free(e);
    return NULL;
}

static err *settle(training *t, err *e, const saved *s, bool must) {
    if (!e && s->published) tell_saved(t, s);
    return judge(t, e, must);
}

// Waits for the one that is under way.
static err *finish(training *t, bool must) {
    saved s;
    err *e = saver_finish(t->saver, &s);
    return settle(t, e, &s, must);
}

err *saving_last(training *t) {
    err *e = NULL;
    TRY(finish(t, false));
    if (t->saved_step == t->state.step) return NULL;
    TRY(saver_begin(t->saver, &t->state));
    TRY(finish(t, true));
done:
    return e;
}

err *saving_boundary(training *t, unsigned wanted, bool due) {
    err *e = NULL;
    saved s;
    if (!saver_idle(t->saver) && !(wanted & WANT_BUSY)) {
        e = saver_advance(t->saver, &s);
        TRY(settle(t, e, &s, false));
    }
    t->owed |= due || (wanted & WANT_SAVE);
    if (!t->owed) return NULL;
    if (!saver_idle(t->saver) && t->cfg->checkpoint.wait) TRY(finish(t, false));
    if (!saver_idle(t->saver)) return NULL; // at the first step at which it is done
    t->owed = false;
    wishes_drop(&t->wishes, wanted & WANT_SAVE);
    if (t->saved_step == t->state.step) return NULL;
    TRY(saver_begin(t->saver, &t->state));
done:
    return e;
}

// However a life ends, as long as the ranks end together: what is being written is worth having.
void saving_close(training *t) {
    if (!t->saver) return;
    if (!saver_idle(t->saver)) {
        err *e = finish(t, false);
        if (e && t->m.rank == 0) log_warn("%s", err_text(e));
        err_free(e);
    }
    saver_close(t->saver);
    t->saver = NULL;
}
