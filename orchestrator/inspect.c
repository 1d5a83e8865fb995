// Everything known about a model's files, as one JSON document.
#include "inspect.h"

#include <stdlib.h>
#include <string.h>

#include "../worker/checkpoint.h"
#include "../worker/manifest.h"
#include "fsutil.h"
#include "log.h"
#include "model_dir.h"

enum { MOST_STATE_BYTES = 16 << 20 };

static json_t *windows_json(const model_spec *s) {
    bool same = true;
    for (int64_t i = 1; i < s->layers; i++) same = same && s->window[i] == s->window[0];
    if (same) return s->window[0] ? json_integer(s->window[0]) : json_null();
    json_t *list = json_array();
    for (int64_t i = 0; i < s->layers; i++) json_array_append_new(list, json_integer(s->window[i]));
    return list;
}

static json_t *rope_json(const model_spec *s) {
    static const char *const kinds[] = {"default", "linear", "llama3"};
    json_t *r = json_pack("{s:s, s:f}", "type", kinds[s->rope], "theta", s->rope_theta);
    if (s->rope != ROPE_PLAIN) json_object_set_new(r, "factor", json_real(s->rope_factor));
    if (s->rope == ROPE_LLAMA3) {
        json_object_set_new(r, "low_freq_factor", json_real(s->rope_low_freq));
        json_object_set_new(r, "high_freq_factor", json_real(s->rope_high_freq));
        json_object_set_new(r, "original_positions", json_integer(s->rope_original_positions));
    }
    return r;
}

static json_t *model_json(const model_spec *s) {
    return json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:b, s:f, s:o, s:o, s:s}",
        "family", s->family, "parameters", (json_int_t)spec_parameters(s), "layers", (json_int_t)s->layers,
        "hidden", (json_int_t)s->hidden, "ffn", (json_int_t)s->ffn, "heads", (json_int_t)s->heads, "kv_heads",
        (json_int_t)s->kv_heads, "head_dim", (json_int_t)s->head_dim, "vocabulary", (json_int_t)s->vocab,
        "positions", (json_int_t)s->max_positions, "tied_head", s->tied, "qkv_bias", s->qkv_bias, "out_bias",
        s->out_bias, "mlp_bias", s->mlp_bias, "norm_eps", s->norm_eps, "rope", rope_json(s), "window",
        windows_json(s), "dtype", st_dtype_name(s->dt));
}

// Tensors and elements of each type that occurs.
static json_t *types_json(const st_set *files) {
    json_t *types = json_object();
    for (dtype dt = DT_F32; dt <= DT_F16; dt++) {
        json_int_t tensors = 0, elements = 0;
        for (int i = 0; i < st_count(files); i++) {
            const st_tensor *t = st_at(files, i);
            if (t->dt != dt) continue;
            tensors++;
            elements += (json_int_t)(t->bytes / dtype_size(dt));
        }
        if (tensors)
            json_object_set_new(types, st_dtype_name(dt),
                                json_pack("{s:I, s:I}", "tensors", tensors, "elements", elements));
    }
    return types;
}

static json_t *tensors_json(const st_set *files) {
    json_t *list = json_array();
    for (int i = 0; i < st_count(files); i++) {
        const st_tensor *t = st_at(files, i);
        const char *path = st_file_path(files, t->file), *slash = strrchr(path, '/');
        json_t *shape = json_array();
        for (int k = 0; k < t->ndim; k++) json_array_append_new(shape, json_integer(t->shape[k]));
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:o, s:I, s:s, s:I}", "name", t->name, "dtype",
                                        st_dtype_name(t->dt), "shape", shape, "bytes", (json_int_t)t->bytes,
                                        "file", slash ? slash + 1 : path, "offset", (json_int_t)t->offset));
    }
    return list;
}

static void add_files(json_t *doc, const st_set *files, bool tensors) {
    json_int_t bytes = 0;
    const char *plan = st_metadata(files, "solar.depth_plan");
    for (int i = 0; i < st_count(files); i++) bytes += (json_int_t)st_at(files, i)->bytes;
    json_object_set_new(doc, "files", json_integer(st_file_count(files)));
    json_object_set_new(doc, "tensors", json_integer(st_count(files)));
    json_object_set_new(doc, "bytes", json_integer(bytes));
    json_object_set_new(doc, "types", types_json(files));
    if (plan) json_object_set_new(doc, "depth_plan", json_string(plan));
    if (tensors) json_object_set_new(doc, "table", tensors_json(files));
}

// The run state of a checkpoint, as it was written; nothing for a plain model.
static err *add_state(json_t *doc, const char *dir) {
    err *e = NULL;
    size_t bytes = 0;
    char *text = NULL, *path = path_join(dir, "solar/state.json");
    json_error_t why;
    if (path_exists(path)) {
        TRY(read_file(path, MOST_STATE_BYTES, &text, &bytes));
        json_t *state = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
        if (!state) FAIL(ERR_INPUT, "%s:%d:%d: %s", path, why.line, why.column, why.text);
        json_object_set_new(doc, "state", state);
    }
done:
    free(text);
    free(path);
    return e;
}

// ---- a checkpoint's manifest: who wrote it, every tensor and piece with its sums

static json_t *stored_json(const manifest *m, const stored *t) {
    json_t *shape = json_pack("[I, I]", (json_int_t)t->shape[0], (json_int_t)t->shape[1]);
    if (t->shape[1] == 1) json_array_remove(shape, 1);
    json_t *entry =
        json_pack("{s:s, s:s, s:o, s:I, s:s, s:I, s:s}", "name", t->name, "dtype", st_dtype_name(t->dt),
                  "shape", shape, "bytes", (json_int_t)t->in.bytes, "file", m->file[t->in.file].name,
                  "offset", (json_int_t)t->in.offset, "xxh3", t->in.sums);
    if (entry && t->of != t->name) json_object_set_new(entry, "of", json_string(t->of));
    return entry;
}

static void add_manifest(json_t *doc, const manifest *m, bool tensors) {
    json_int_t bytes = 0;
    json_t *written = json_deep_copy(json_object_get(m->doc, "written"));
    for (int i = 0; i < m->files; i++) bytes += (json_int_t)m->file[i].bytes;
    json_object_set_new(written, "files", json_integer(m->files));
    json_object_set_new(written, "tensors and pieces", json_integer(m->tensors));
    json_object_set_new(written, "bytes", json_integer(bytes));
    json_object_set_new(doc, "written", written);
    if (!tensors) return;
    json_t *list = json_array();
    for (int i = 0; i < m->tensors; i++) json_array_append_new(list, stored_json(m, &m->tensor[i]));
    json_object_set_new(doc, "table", list);
}

static err *verify_all(json_t *doc, const char *dir, int threads) {
    uint64_t bytes;
    double start = now_seconds();
    err *e = checkpoint_verify(dir, 0, 1, threads, &bytes);
    if (!e)
        json_object_set_new(doc, "verified",
                            json_pack("{s:I, s:f, s:i}", "bytes", (json_int_t)bytes, "seconds",
                                      now_seconds() - start, "threads", threads));
    return e;
}

static err *inspect_manifest(const char *dir, const inspect_options *o, json_t *doc) {
    err *e = NULL;
    manifest *m = NULL;
    char *path = path_join(dir, "solar/manifest.json");
    bool there = path_exists(path);
    free(path);
    if (!there && o->verify)
        return err_new(ERR_INPUT,
                       "%s has no manifest (solar/manifest.json): only checkpoints of a run can be verified",
                       dir);
    if (!there) return NULL;
    TRY(manifest_open(dir, &m));
    add_manifest(doc, m, o->tensors);
    if (o->verify) TRY(verify_all(doc, dir, o->threads));
done:
    manifest_close(m);
    return e;
}

static err *inspect_dir(const char *dir, const inspect_options *o, json_t *doc) {
    model_dir m;
    err *e = model_dir_open(dir, &m);
    if (m.spec) json_object_set_new(doc, "model", model_json(m.spec));
    if (m.files) add_files(doc, m.files, o->tensors);
    e = err_first(e, add_state(doc, dir));
    e = err_first(e, inspect_manifest(dir, o, doc));
    model_dir_close(&m);
    return e;
}

static err *inspect_file(const char *path, bool tensors, json_t *doc) {
    st_set *files = NULL;
    err *e = st_open(path, &files);
    if (e) return e;
    add_files(doc, files, tensors);
    st_close(files);
    return NULL;
}

err *inspect(const char *path, const inspect_options *o, json_t **out) {
    json_t *doc = json_pack("{s:s%}", "path", path, strlen(path));
    if (!doc) return err_new(ERR_RUNTIME, "the path is not UTF-8");
    *out = doc;
    if (is_dir(path)) return inspect_dir(path, o, doc);
    if (o->verify) return err_new(ERR_USAGE, "--verify: %s is not the directory of a checkpoint", path);
    return inspect_file(path, o->tensors, doc);
}
