#include "stream_order.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// The finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static const uint64_t GOLDEN = 0x9e3779b97f4a7c15u;

static uint64_t low_mask(int bits) { return ((uint64_t)1 << bits) - 1; }

permutation permutation_make(uint64_t count, uint64_t seed, uint64_t source, uint64_t pass) {
    permutation p = {.count = count};
    int bits = 2;
    while (bits < 62 && count > (uint64_t)1 << bits) bits++;
    p.low_bits = bits / 2;
    p.high_bits = bits - p.low_bits;
    uint64_t state = mix(mix(mix(seed + GOLDEN) ^ (source + GOLDEN)) ^ (pass + GOLDEN));
    for (int i = 0; i < 8; i++) p.key[i] = mix(state += GOLDEN);
    return p;
}

// A Feistel network over low_bits + high_bits: each line can be undone, so the whole is a bijection.
static uint64_t scramble(const permutation *p, uint64_t x) {
    uint64_t low = x & low_mask(p->low_bits), high = x >> p->low_bits;
    for (int i = 0; i < 8; i += 2) {
        low ^= mix(high ^ p->key[i]) & low_mask(p->low_bits);
        high ^= mix(low ^ p->key[i + 1]) & low_mask(p->high_bits);
    }
    return high << p->low_bits | low;
}

uint64_t permutation_at(const permutation *p, uint64_t i) {
    // cycle walking: the first value within 0..count-1 on i's way round. The domain is less than twice
    // count (but for the smallest), so that takes fewer than two turns on average.
    do i = scramble(p, i);
    while (i >= p->count);
    return i;
}

// Places of a block by largest remainder; at least one each (but for weight 0), taken from whoever has most.
static void share_out(const double *weight, int n, uint32_t *places) {
    double sum = 0;
    int64_t left = DEAL_BLOCK;
    for (int i = 0; i < n; i++) sum += weight[i];
    for (int i = 0; i < n; i++) {
        double share = floor(weight[i] / sum * DEAL_BLOCK);
        places[i] = share < 1 ? weight[i] > 0 : (uint32_t)share;
        left -= places[i];
    }
    for (; left != 0; left += left > 0 ? -1 : 1) {
        int best = 0;
        double most = -INFINITY;
        for (int i = 0; i < n; i++) {
            double short_of = weight[i] / sum * DEAL_BLOCK - places[i];
            double merit = left > 0 ? short_of : places[i];
            if (places[i] && merit > most) {
                most = merit;
                best = i;
            }
        }
        places[best] += left > 0 ? 1 : -1;
    }
}

// Whose turn is it? Of the sources that are due, the one that would be late first (Tijdeman 1980, The
// chairman assignment problem). credit: how far each is behind its share, in places / DEAL_BLOCK; `scale` is
// 2 (sources - 1).
static int next_turn(const deal *d, const int64_t *credit, int64_t scale) {
    int best = -1;
    for (int i = 0; i < d->sources; i++) {
        if (!d->places[i] || credit[i] * scale < DEAL_BLOCK) continue;
        int64_t left = DEAL_BLOCK * (scale - 1) - credit[i] * scale; // until it is late, in 1 / places
        if (best < 0 ||
            left * d->places[best] < (DEAL_BLOCK * (scale - 1) - credit[best] * scale) * d->places[i])
            best = i;
    }
    return best;
}

// Every source gets its turns as evenly as can be: it is never a whole turn away from its share.
static void spread(deal *d, int64_t *credit) {
    uint16_t *taken = (uint16_t *)(credit + d->sources);
    int64_t used = 0;
    for (int i = 0; i < d->sources; i++) used += d->places[i] > 0;
    int64_t scale = used > 1 ? 2 * used - 2 : 2;
    for (int j = 0; j < DEAL_BLOCK; j++) {
        for (int i = 0; i < d->sources; i++) credit[i] += d->places[i];
        int best = next_turn(d, credit, scale);
        credit[best] -= DEAL_BLOCK;
        d->source[j] = (uint16_t)best;
        d->turn[j] = taken[best]++;
    }
}

err *deal_make(const double *weight, int sources, deal **out) {
    err *e = NULL;
    deal *d = NULL;
    int64_t *work = NULL;
    double sum = 0;
    enum { MOST = 1024 };
    *out = NULL;
    if (sources < 1 || sources > MOST)
        FAIL(ERR_CONFIG, "a blend of %d sources; expected 1 to %d", sources, MOST);
    for (int i = 0; i < sources; i++) {
        if (!(weight[i] >= 0) || !isfinite(weight[i]))
            FAIL(ERR_CONFIG, "source %d of the blend has weight %g; expected a finite number, at least 0", i,
                 weight[i]);
        sum += weight[i];
    }
    if (!(sum > 0) || !isfinite(sum))
        FAIL(ERR_CONFIG, "the weights of the blend add up to %g; expected a finite number above 0", sum);
    d = calloc(1, sizeof *d);
    work = calloc((size_t)sources, sizeof *work + sizeof(uint16_t));
    if (d) d->places = calloc((size_t)sources, sizeof *d->places);
    if (!d || !work || !d->places) FAIL(ERR_SYSTEM, "no memory");
    d->sources = sources;
    share_out(weight, sources, d->places);
    spread(d, work);
    *out = d;
    d = NULL;
done:
    free(work);
    deal_free(d);
    return e;
}

void deal_free(deal *d) {
    if (!d) return;
    free(d->places);
    free(d);
}

void deal_at(const deal *d, uint64_t position, int *source, uint64_t *index) {
    uint64_t block = position / DEAL_BLOCK, place = position % DEAL_BLOCK;
    *source = d->source[place];
    *index = block * d->places[*source] + d->turn[place];
}

void deal_count(const deal *d, uint64_t positions, uint64_t *turns) {
    uint64_t blocks = positions / DEAL_BLOCK, rest = positions % DEAL_BLOCK;
    for (int i = 0; i < d->sources; i++) turns[i] += blocks * d->places[i];
    for (uint64_t j = 0; j < rest; j++) turns[d->source[j]]++;
}
