#include "guard.h"

#include <math.h>
#include <string.h>

static bool spikes(const double *x, int n, double sigma, double value) {
    double mean = 0, square = 0;
    for (int i = 0; i < n; i++) mean += x[i] / n;
    for (int i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean) / n;
    double spread = fmax(sqrt(square), 1e-3 * fabs(mean));
    return value > mean + sigma * spread;
}

static void forget(guard *g, int n) {
    memmove(g->loss, g->loss + n, (size_t)(g->count - n) * sizeof *g->loss);
    memmove(g->norm, g->norm + n, (size_t)(g->count - n) * sizeof *g->norm);
    g->count -= n;
}

void guard_set(guard *g, double sigma, int window) {
    g->sigma = sigma;
    g->window = window;
    if (g->count > window) forget(g, g->count - window);
}

static void remember(guard *g, double loss, double norm) {
    if (g->count == g->window) forget(g, 1);
    g->loss[g->count] = loss;
    g->norm[g->count++] = norm;
}

step_verdict guard_judge(guard *g, double loss, double norm) {
    if (!isfinite(loss) || !isfinite(norm)) return STEP_NOT_FINITE;
    if (!g || g->sigma <= 0) return STEP_GOOD;
    bool full = g->count == g->window;
    if (full && spikes(g->loss, g->count, g->sigma, loss)) return STEP_LOSS_SPIKE;
    if (full && spikes(g->norm, g->count, g->sigma, norm)) return STEP_NORM_SPIKE;
    remember(g, loss, norm);
    return STEP_GOOD;
}

const char *verdict_text(step_verdict v) {
    static const char *const text[] = {"good", "loss or gradient norm not finite", "loss spike",
                                       "gradient norm spike"};
    return text[v];
}
