#include "measures.h"

#include <math.h>
#include <string.h>

#include "gpu.h"
#include "machine.h"

token_flop token_flop_of(const model_spec *s, int64_t seq_len) {
    double n = 6 * (double)spec_parameters(s);
    double pairs = (double)s->layers * (double)(s->heads * s->head_dim) * (double)seq_len;
    return (token_flop){n + 12 * pairs, n + 6 * pairs};
}

// Cards of one name have several forms: only those whose figures the file has. PCIe and NVL cards are others.
const char *machine_of_gpu(const char *name) {
    static const char *const known[][2] = {
        {"H100 80GB HBM3", "h100"}, {"H200", "h200"}, {"A100-SXM4-80GB", "a100"}};
    if (strstr(name, "NVL") || strstr(name, "PCIe")) return NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strstr(name, known[i][0])) return known[i][1];
    return NULL;
}

err *measures_open(const config *c, const model_spec *s, const comm *comm, device *dev, measures *out) {
    err *e = NULL;
    gpu_info gpu = {.name = ""};
    machine m;
    double tokens = (double)(c->train.global_batch * c->data.seq_len);
    *out = (measures){.flop = token_flop_of(s, c->data.seq_len).all_pairs * tokens,
                      .linked = comm->linked,
                      .dev = dev,
                      .ranks = comm->m.world};
    if (!dev->ops->host_memory) TRY(cuda_info(dev, &gpu));
    const char *name = c->mesh.machine ? c->mesh.machine : machine_of_gpu(gpu.name);
    if (!name) return NULL;
    TRY(machine_load(NULL, name, &m));
    out->peak = m.peak[c->train.precision] * comm->m.world;
done:
    return e;
}

static double waiting(const step_vote *votes, int ranks, double seconds) {
    double busy = 0;
    for (int r = 0; r < ranks; r++)
        for (int k = 0; k < PHASES; k++) busy += (double)votes[r].busy[k];
    return fmax(0, 1 - busy / ranks / seconds);
}

measure measure_step(const measures *m, const step_report *r, double seconds) {
    measure x = {.mfu = NAN, .waiting = NAN};
    size_t total;
    x.tflops = m->flop / seconds / m->ranks / 1e12;
    if (m->peak > 0) x.mfu = m->flop / seconds / m->peak;
    if (!m->linked) x.waiting = waiting(r->votes, m->ranks, seconds);
    for (int i = 0; i < m->ranks; i++) {
        x.messages += r->votes[i].sent.messages;
        x.bytes += r->votes[i].sent.bytes;
    }
    m->dev->ops->memory(m->dev, &x.device_bytes, &total);
    return x;
}

static void add(json_t *line, const char *key, json_t *value) { json_object_set_new(line, key, value); }

void measure_note(const measure *m, json_t *line) {
    add(line, "tflops", json_real(m->tflops));
    if (!isnan(m->mfu)) add(line, "mfu", json_real(m->mfu));
    if (!isnan(m->waiting)) add(line, "waiting", json_real(m->waiting));
    add(line, "messages", json_integer((json_int_t)m->messages));
    add(line, "bytes_sent", json_integer((json_int_t)m->bytes));
    if (m->device_bytes) add(line, "device_bytes", json_integer((json_int_t)m->device_bytes));
}
