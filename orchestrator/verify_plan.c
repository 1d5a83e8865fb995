// Finding the depth plan of a model that does not state it.
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "verify.h"

enum { BUFFER = 4 << 20 };

typedef struct layer_hashes {
    int layers, per_layer;
    XXH128_hash_t *at; // [layers][per_layer], in the order of the table
    bool *zero;        // [layers]: all its outputs are zeros
} layer_hashes;

static bool all_zero(const char *bytes, uint64_t n) {
    return n == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, (size_t)n - 1) == 0);
}

static err *hash_tensor(const st_set *files, const st_tensor *t, void *buffer, XXH3_state_t *state,
                        XXH128_hash_t *out, bool *zero) {
    *zero = true;
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, &t->dt, sizeof t->dt); // equal bytes of another type are not equal
    for (uint64_t at = 0, n; at < t->bytes; at += n) {
        n = t->bytes - at < BUFFER ? t->bytes - at : BUFFER;
        err *e = st_read(files, t, at, buffer, n);
        if (e) return e;
        XXH3_128bits_update(state, buffer, (size_t)n);
        *zero = *zero && all_zero(buffer, n);
    }
    *out = XXH3_128bits_digest(state);
    return NULL;
}

static err *hash_layers(const model_dir *m, layer_hashes *out) {
    err *e = NULL;
    int rows = 0;
    void *buffer = malloc(BUFFER);
    XXH3_state_t *state = XXH3_createState();
    for (int i = 0; i < m->table->count; i++) rows += m->table->row[i].layer >= 0;
    *out = (layer_hashes){.layers = (int)m->spec->layers, .at = calloc((size_t)rows + 1, sizeof *out->at)};
    out->per_layer = rows / out->layers;
    out->zero = calloc((size_t)out->layers, sizeof *out->zero);
    if (!buffer || !state || !out->at || !out->zero) FAIL(ERR_SYSTEM, "no memory to hash %d tensors", rows);
    for (int i = 0; i < out->layers; i++) out->zero[i] = true;
    for (int i = 0, k = 0; i < m->table->count; i++) {
        const tensor_row *r = &m->table->row[i];
        bool zero = false;
        if (r->layer < 0) continue;
        TRY(hash_tensor(m->files, st_find(m->files, r->name), buffer, state, &out->at[k++], &zero));
        if (role_is_output(r->role)) out->zero[r->layer] &= zero;
    }
done:
    XXH3_freeState(state);
    free(buffer);
    return e;
}

static int equal_tensors(const layer_hashes *out, int layer, const layer_hashes *base, int donor) {
    const XXH128_hash_t *a = out->at + (size_t)layer * (size_t)out->per_layer;
    const XXH128_hash_t *b = base->at + (size_t)donor * (size_t)base->per_layer;
    int same = 0;
    for (int i = 0; i < out->per_layer; i++) same += XXH128_isEqual(a[i], b[i]);
    return same;
}

// The donor with the most equal tensors; among equals `next`, the one that would go on without a seam.
static int best_donor(const layer_hashes *out, int layer, const layer_hashes *base, int next) {
    int best = next < base->layers ? next : 0;
    int most = equal_tensors(out, layer, base, best);
    for (int donor = 0; donor < base->layers; donor++) {
        int same = equal_tensors(out, layer, base, donor);
        if (same > most) {
            most = same;
            best = donor;
        }
    }
    return best;
}

static void hashes_free(layer_hashes *h) {
    free(h->at);
    free(h->zero);
}

// Layers whose outputs are zeros, as their donors' are not, are new ones.
static err *plan_of_donors(const int *donor, const layer_hashes *out, const layer_hashes *base,
                           depth_plan **plan) {
    size_t room = (size_t)out->layers * 13 + 1, used = 0;
    char *text = malloc(room);
    if (!text) return err_new(ERR_SYSTEM, "no memory for a plan of %d layers", out->layers);
    for (int i = 0; i < out->layers; i++) {
        bool fresh = out->zero[i] && !base->zero[donor[i]];
        used += (size_t)snprintf(text + used, room - used, "%s%d%s", i ? "," : "", donor[i],
                                 layer_init_mark(fresh ? LAYER_ZERO : LAYER_KEPT));
    }
    err *e = depth_from_ranges(base->layers, text, plan);
    free(text);
    return e;
}

err *find_plan(const model_dir *base, const model_dir *out, depth_plan **plan) {
    err *e = NULL;
    layer_hashes a = {0}, b = {0};
    int *donor = calloc((size_t)out->spec->layers, sizeof *donor);
    if (!donor) FAIL(ERR_SYSTEM, "no memory for a plan of %lld layers", (long long)out->spec->layers);
    TRY(hash_layers(out, &a));
    TRY(hash_layers(base, &b));
    if (a.per_layer != b.per_layer)
        FAIL(ERR_MISMATCH, "a layer of the scaled model has %d tensors, one of the base model %d",
             a.per_layer, b.per_layer);
    for (int i = 0; i < a.layers; i++) donor[i] = best_donor(&a, i, &b, i ? donor[i - 1] + 1 : 0);
    TRY(plan_of_donors(donor, &a, &b, plan));
done:
    hashes_free(&a);
    hashes_free(&b);
    free(donor);
    return e;
}
