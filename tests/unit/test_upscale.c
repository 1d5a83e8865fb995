// Up-scaling on disk and its proof, on small models whose every tensor holds bytes that follow from its name.
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli.h"
#include "fsutil.h"
#include "inspect.h"
#include "model_dir.h"
#include "upscale.h"
#include "verify.h"

#define SIZES                                                                                                \
    "\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":4,\"num_attention_heads\":2,\"vocab_"  \
    "size\":32"
#define LLAMA "\"model_type\":\"llama\",\"torch_dtype\":\"bfloat16\"," SIZES
#define QWEN2                                                                                                \
    "\"model_type\":\"qwen2\",\"num_key_value_heads\":1,\"tie_word_embeddings\":true,\"use_sliding_"         \
    "window\":true,"                                                                                         \
    "\"sliding_window\":5,\"max_window_layers\":3," SIZES

static void ok(err *e) {
    if (e) fail_msg("%s", err_text(e));
}

static void expect(err *e, err_code code, const char *part) {
    if (err_get_code(e) != code || !strstr(err_text(e), part))
        fail_msg("'%s' (%d) is not in '%s' (%d)", part, code, err_text(e), err_get_code(e));
    err_free(e);
}

static int setup(void **state) {
    char dir[] = "/tmp/solar-upscale-XXXXXX";
    *state = mkdtemp(dir) ? strdup(dir) : NULL;
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    ok(remove_tree(*state));
    free(*state);
    return 0;
}

// ---- models

// Byte i of the tensor of this name in the base model.
static unsigned char byte_of(const char *name, uint64_t i) {
    uint64_t h = 1469598103934665603u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 1099511628211u;
    h = (h ^ i) * 0x9e3779b97f4a7c15u;
    return (unsigned char)(h >> 56);
}

static model_spec *spec_of(const char *body) {
    char text[1024];
    model_spec *s = NULL;
    snprintf(text, sizeof text, "{%s}", body);
    json_t *doc = json_loads(text, 0, NULL);
    ok(spec_parse(doc, "config.json", &s));
    json_decref(doc);
    return s;
}

static void write_weights(const char *dir, const table *t, dtype dt) {
    st_decl *d = calloc((size_t)t->count, sizeof *d);
    char *path = path_join(dir, "model.safetensors");
    st_writer *w = NULL;
    for (int i = 0; i < t->count; i++)
        d[i] = (st_decl){t->row[i].name, dt, t->row[i].ndim, {t->row[i].shape[0], t->row[i].shape[1]}};
    ok(st_writer_open(path, d, t->count, NULL, 0, &w));
    for (int i = 0; i < t->count; i++)
        for (uint64_t k = 0; k < (uint64_t)tensor_elements(&t->row[i]) * dtype_size(dt); k++) {
            unsigned char b = t->row[i].zero ? 0 : byte_of(t->row[i].donor, k);
            ok(st_write(w, &b, 1));
        }
    ok(st_writer_close(w));
    free(path), free(d);
}

// A model deepened by `ranges` (NULL: not), written by this test alone, without any statement of its plan.
static char *write_model(const char *root, const char *name, const char *body, dtype dt, const char *ranges) {
    char *dir = path_join(root, name), *tokens = path_join(dir, "tokenizer.json");
    model_spec *base = spec_of(body), *spec = NULL;
    depth_plan *plan = NULL;
    table *t = NULL;
    ok(make_dirs(dir));
    ok(ranges ? depth_from_ranges((int)base->layers, ranges, &plan)
              : depth_identity((int)base->layers, &plan));
    ok(spec_deepen(base, plan, &spec));
    ok(table_make(spec, plan, NULL, &t));
    ok(spec_save(spec, dir));
    ok(write_file_atomic(tokens, "{}", 2));
    write_weights(dir, t, dt);
    table_free(t), depth_free(plan), spec_free(spec), spec_free(base), free(tokens);
    return dir;
}

static err *run_upscale(const char *base, const char *out, int64_t m, const char *layers, uint64_t shard) {
    upscale_report r = {0};
    err *e = upscale(&(upscale_options){base, out, {.m = m, .layers = layers}, shard, false}, &r);
    depth_free(r.plan);
    return e;
}

static err *run_verify(const char *base, const char *out, int64_t m, const char *layers, verify_report *r) {
    verify_report unused;
    if (!r) r = &unused;
    err *e = verify(&(verify_options){base, out, {.m = m, .layers = layers}, false}, r);
    depth_free(r->plan);
    r->plan = NULL;
    return e;
}

static const uint64_t one_file = 1ull << 40;

// ---- upscale

// Every tensor of OUT, read back and set against the rule for its donor.
static void check_bytes(const char *out, int n, const char *ranges, dtype dt) {
    model_dir m;
    depth_plan *plan = NULL;
    table *t = NULL;
    ok(model_dir_open(out, &m));
    ok(depth_from_ranges(n, ranges, &plan));
    ok(table_make(m.spec, plan, NULL, &t));
    for (int i = 0; i < t->count; i++) {
        const st_tensor *x = st_find(m.files, t->row[i].name);
        unsigned char *bytes = malloc(x->bytes);
        assert_int_equal(x->dt, dt);
        ok(st_read(m.files, x, 0, bytes, x->bytes));
        for (uint64_t k = 0; k < x->bytes; k++)
            assert_int_equal(bytes[k], t->row[i].zero ? 0 : byte_of(t->row[i].donor, k));
        free(bytes);
    }
    assert_string_equal(st_metadata(m.files, DEPTH_PLAN_KEY), ranges);
    table_free(t), depth_free(plan), model_dir_close(&m);
}

static void test_every_m(void **state) {
    static const char *const texts[] = {"0-3,0-3", "0-2,1-3", "0-3", "0,3"};
    static const char *const bodies[] = {LLAMA, QWEN2};
    for (int b = 0; b < 2; b++) {
        dtype dt = b == 0 ? DT_BF16 : DT_F16;
        char name[32];
        snprintf(name, sizeof name, "base%d", b);
        char *base = write_model(*state, name, bodies[b], dt, NULL);
        for (int m = 0; m < 4; m++) {
            snprintf(name, sizeof name, "out%d-%d/", b, m); // a slash behind is fine
            char *out = path_join(*state, name), *tokens = path_join(out, "tokenizer.json");
            ok(run_upscale(base, out, m, NULL, one_file));
            check_bytes(out, 4, texts[m], dt);
            assert_true(path_exists(tokens));
            verify_report r;
            ok(run_verify(base, out, -1, NULL, &r));
            assert_int_equal(r.source, PLAN_STATED);
            assert_int_equal(r.tensors, (b == 0 ? 3 + 9 * 2 * (4 - m) : 2 + 12 * 2 * (4 - m)));
            ok(run_verify(base, out, m, NULL, NULL));
            free(out), free(tokens);
        }
        free(base);
    }
}

static void test_ranges(void **state) {
    static const char *const plans[] = {"0-1,3", "3,2,1,0",       "0-3,0-3,0-3", "2,2,2",
                                        "1",     "0-1,1z,2-3,3z", "0-2,2c,3",    "0-1z"};
    char *base = write_model(*state, "base", LLAMA, DT_F32, NULL);
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        char *out = path_join(*state, plans[i]);
        ok(run_upscale(base, out, -1, plans[i], one_file));
        check_bytes(out, 4, plans[i], DT_F32);
        ok(run_verify(base, out, -1, plans[i], NULL));
        free(out);
    }
    free(base);
}

static int count_files(const char *dir, const char *part) {
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d));) n += strstr(f->d_name, part) != NULL;
    closedir(d);
    return n;
}

static void test_several_files(void **state) {
    char *base = write_model(*state, "base", LLAMA, DT_BF16, NULL), *out = path_join(*state, "out");
    char *again = path_join(*state, "again"), *index = path_join(out, "model.safetensors.index.json");
    ok(run_upscale(base, out, 1, NULL, 600)); // the embedding has 512 bytes, a layer about 1,100
    check_bytes(out, 4, "0-2,1-3", DT_BF16);
    int files = count_files(out, "model-0");
    assert_true(files > 5);
    assert_true(path_exists(index));
    st_set *s = NULL;
    ok(st_open(out, &s));
    assert_int_equal(st_file_count(s), files);
    uint64_t held[100] = {0};
    for (int i = 0; i < st_count(s); i++) held[st_at(s, i)->file] += st_at(s, i)->bytes;
    for (int i = 0; i < files; i++) assert_true(held[i] > 0 && held[i] <= 600);
    st_close(s);
    ok(run_verify(base, out, 1, NULL, NULL));
    ok(run_upscale(out, again, 2, NULL, 1)); // from several files; every tensor too large for the limit
    ok(run_verify(out, again, 2, NULL, NULL));
    assert_int_equal(count_files(again, "model-0"), 3 + 9 * 8);
    free(base), free(out), free(again), free(index);
}

static void test_refusals(void **state) {
    char *base = write_model(*state, "base", LLAMA, DT_F32, NULL), *out = path_join(*state, "out");
    char *inside = path_join(base, "deep/out"), *broken = path_join(*state, "broken"),
         *none = path_join(*state, "none");
    expect(run_upscale(base, out, -1, NULL, one_file), ERR_USAGE, "neither --m nor --layers");
    expect(run_upscale(base, out, 1, "0-3", one_file), ERR_USAGE, "both given");
    expect(run_upscale(base, out, 4, NULL, one_file), ERR_CONFIG, "m must be 0 to 3");
    expect(run_upscale(base, out, -1, "0-4", one_file), ERR_CONFIG, "no such layer");
    expect(run_upscale(base, base, 1, NULL, one_file), ERR_USAGE, "exists");
    expect(run_upscale(base, *state, 1, NULL, one_file), ERR_USAGE, "exists");
    expect(run_upscale(base, inside, 1, NULL, one_file), ERR_USAGE, "lies inside the base model");
    expect(run_upscale(base, "/", 1, NULL, one_file), ERR_USAGE, "exists");
    expect(run_upscale(none, out, 1, NULL, one_file), ERR_INPUT, "none is not a directory");
    assert_false(path_exists(out));
    ok(make_dirs(broken));
    expect(run_upscale(broken, out, 1, NULL, one_file), ERR_INPUT, "config.json: No such file");
    assert_int_equal(count_files(*state, "out"), 0); // not even a temporary
    free(base), free(out), free(inside), free(broken), free(none);
}

// A failure while writing leaves nothing behind: here a tokenizer file is a link to nowhere.
static void test_failure_leaves_nothing(void **state) {
    char *base = write_model(*state, "base", LLAMA, DT_F32, NULL), *out = path_join(*state, "out");
    char *tokens = path_join(base, "tokenizer.model"), *nowhere = path_join(*state, "nowhere");
    assert_int_equal(symlink(nowhere, tokens), 0);
    expect(run_upscale(base, out, 1, NULL, one_file), ERR_INPUT, "tokenizer.model");
    assert_int_equal(count_files(*state, "out"), 0);
    free(base), free(out), free(tokens), free(nowhere);
}

// ---- verify

static void flip_bit(const char *path, uint64_t byte, int bit) {
    unsigned char b;
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &b, 1, (off_t)byte), 1);
    b ^= (unsigned char)(1 << bit);
    assert_int_equal(pwrite(fd, &b, 1, (off_t)byte), 1);
    assert_int_equal(close(fd), 0);
}

// One bit of every tensor in turn: verify names that tensor, its byte, and nothing else.
static void flip_every_tensor(const char *base, const char *out, int64_t m) {
    st_set *s = NULL;
    ok(st_open(out, &s));
    for (int i = 0; i < st_count(s); i++) {
        const st_tensor *t = st_at(s, i);
        uint64_t byte = (uint64_t)i * 2654435761u % t->bytes;
        char where[128];
        verify_report r;
        flip_bit(st_file_path(s, t->file), t->offset + byte, i % 8);
        snprintf(where, sizeof where, "the first: %s differs at byte %llu from", t->name,
                 (unsigned long long)byte);
        expect(run_verify(base, out, m, NULL, &r), ERR_MISMATCH, where);
        assert_int_equal(r.different, 1);
        assert_int_equal(r.tensors, st_count(s));
        assert_string_equal(r.first[0].tensor, t->name);
        assert_int_equal(r.first[0].byte, byte);
        flip_bit(st_file_path(s, t->file), t->offset + byte, i % 8);
    }
    st_close(s);
    ok(run_verify(base, out, m, NULL, NULL));
}

static void test_flips(void **state) {
    char *base = write_model(*state, "base", QWEN2, DT_BF16, NULL), *out = path_join(*state, "out");
    char *found = write_model(*state, "found", QWEN2, DT_BF16, "0-2,1-3");
    ok(run_upscale(base, out, 1, NULL, 1000));
    flip_every_tensor(base, out, -1); // the plan that OUT states
    flip_every_tensor(base, out, 1);
    flip_every_tensor(base, found, -1); // the plan has to be found
    free(out);
    out = path_join(*state, "expanded");
    upscale_report r = {0};
    ok(upscale(&(upscale_options){base, out, {.m = -1, .every = 2}, 1000, false}, &r));
    assert_int_equal(r.plan->fresh, 2);
    depth_free(r.plan);
    check_bytes(out, 4, "0-1,1z,2-3,3z", DT_BF16);
    flip_every_tensor(base, out, -1); // of the zeros too
    free(base), free(out), free(found);
}

static void test_flips_in_a_real_model(void **state) {
    const char *base = "../shared/data/stories260k";
    if (!path_exists(base)) {
        print_message("skipped: no %s\n", base);
        skip();
    }
    char *out = path_join(*state, "out");
    ok(run_upscale(base, out, 1, NULL, one_file));
    flip_every_tensor(base, out, -1);
    free(out);
}

static void test_plans_are_found(void **state) {
    static const char *const plans[] = {"0-3",     "0-2,1-3", "0-3,0-3",       "0-1,3",
                                        "3,2,1,0", "2,2,2",   "0-1,1z,2-3,3z", "0-3z"};
    char *base = write_model(*state, "base", LLAMA, DT_F32, NULL);
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        char *out = write_model(*state, plans[i], LLAMA, DT_F32, plans[i]);
        verify_report r;
        ok(verify(&(verify_options){base, out, {.m = -1}, false}, &r));
        char *text = depth_text(r.plan);
        assert_string_equal(text, plans[i]);
        assert_int_equal(r.source, PLAN_FOUND);
        free(text), depth_free(r.plan), free(out);
    }
    free(base);
}

static void test_wrong_plans(void **state) {
    char *base = write_model(*state, "base", LLAMA, DT_F32, NULL),
         *out = write_model(*state, "out", LLAMA, DT_F32, "0-2,1-3");
    verify_report r;
    expect(run_verify(base, out, 0, NULL, NULL), ERR_MISMATCH, "has 6 layers, the plan makes 8");
    expect(run_verify(base, out, -1, "0-2,0-2", &r), ERR_MISMATCH,
           "model.layers.3.input_layernorm.weight differs at byte");
    assert_int_equal(r.different, 27);
    assert_string_equal(r.first[0].donor, "model.layers.0.input_layernorm.weight");
    expect(run_verify(base, out, 1, "0-2,1-3", NULL), ERR_USAGE, "both given");
    expect(run_verify(base, out, 9, NULL, NULL), ERR_CONFIG, "m must be");
    expect(run_verify(base, out, -1, "0-2,1z,2-3", &r), ERR_MISMATCH,
           "layers.3.self_attn.o_proj.weight differs at byte 0 from its donor zeros");
    assert_int_equal(r.different, 2);
    ok(run_verify(base, out, -1, "0-2,1-3", NULL));
    free(base), free(out);
}

static void test_other_models(void **state) {
    char *base = write_model(*state, "base", LLAMA, DT_F32, NULL);
    char *wide = write_model(*state, "wide",
                             "\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":12,"
                             "\"num_hidden_layers\":4,\"num_attention_heads\":2,\"vocab_size\":32",
                             DT_F32, "0-2,1-3");
    char *theta = write_model(*state, "theta", LLAMA ",\"rope_theta\":500000.0", DT_F32, "0-2,1-3");
    char *named = write_model(*state, "named", LLAMA ",\"transformers_version\":\"9\"", DT_F32, "0-2,1-3");
    char *narrow = write_model(*state, "narrow", LLAMA, DT_BF16, "0-2,1-3");
    char *bias = write_model(*state, "bias", LLAMA ",\"mlp_bias\":true", DT_F32, "0-2,1-3");
    expect(run_verify(base, wide, -1, NULL, NULL), ERR_MISMATCH, "config.json: ");
    expect(run_verify(base, theta, -1, NULL, NULL), ERR_MISMATCH, "config.json: rope_theta is not as");
    ok(run_verify(base, named, -1, NULL, NULL));
    expect(run_verify(base, narrow, 1, NULL, NULL), ERR_MISMATCH,
           "model.embed_tokens.weight is BF16, unlike its donor");
    expect(run_verify(base, bias, -1, NULL, NULL), ERR_MISMATCH, "12 tensors, one of the base model 9");
    expect(run_verify(base, bias, 1, NULL, NULL), ERR_MISMATCH, "mlp_bias");
    free(base), free(wide), free(theta), free(named), free(narrow), free(bias);
}

static void test_hostile_statement(void **state) {
    char *base = write_model(*state, "base", LLAMA, DT_F32, NULL), *out = path_join(*state, "out");
    const char *const meta[][2] = {{DEPTH_PLAN_KEY, "0-99999999"}};
    ok(run_upscale(base, out, 1, NULL, one_file));
    char *weights = path_join(out, "model.safetensors"), *norm = path_join(out, "norm.safetensors");
    model_dir m;
    st_writer *w = NULL;
    ok(model_dir_open(out, &m));
    st_decl *d = calloc((size_t)st_count(m.files), sizeof *d);
    char *zeros = calloc(1, 4096);
    for (int i = 0; i < st_count(m.files); i++) {
        const st_tensor *t = st_at(m.files, i);
        d[i] = (st_decl){.name = t->name, .dt = t->dt, .ndim = t->ndim};
        memcpy(d[i].shape, t->shape, sizeof d[i].shape);
    }
    ok(st_writer_open(norm, d, st_count(m.files), meta, 1, &w));
    for (int i = 0; i < st_count(m.files); i++) ok(st_write(w, zeros, st_at(m.files, i)->bytes));
    ok(st_writer_close(w));
    assert_int_equal(rename(norm, weights), 0);
    expect(run_verify(base, out, -1, NULL, NULL), ERR_CONFIG,
           "solar.depth_plan: layers: in '0-99999999': the base model has");
    free(d), free(zeros), model_dir_close(&m), free(weights), free(norm), free(base), free(out);
}

// ---- plans and inspection

static void test_m_of_plans(void **state) {
    (void)state;
    const struct {
        const char *plan;
        int m;
    } cases[] = {{"0-3", 2},      {"0-3,0-3", 0},   {"0-2,1-3", 1}, {"0,3", 3},          {"0-1,3", -1},
                 {"0-2,0-2", -1}, {"0-2,1-3z", -1}, {"1,3", -1},    {"0-3,0-3,0-3", -1}, {"0-3,0-3,0-1", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        depth_plan *p = NULL;
        ok(depth_from_ranges(4, cases[i].plan, &p));
        assert_int_equal(plan_m(p), cases[i].m);
        depth_free(p);
    }
}

static json_int_t number(const json_t *doc, const char *key) {
    return json_integer_value(json_object_get(doc, key));
}

static void test_inspect(void **state) {
    char *base = write_model(*state, "base", QWEN2, DT_BF16, NULL),
         *file = path_join(base, "model.safetensors");
    char *solar = path_join(base, "solar"), *state_file = path_join(base, "solar/state.json");
    json_t *doc = NULL;
    ok(inspect(base, &(inspect_options){0}, &doc));
    const json_t *model = json_object_get(doc, "model");
    assert_string_equal(json_string_value(json_object_get(model, "family")), "qwen2");
    assert_int_equal(number(model, "layers"), 4);
    assert_int_equal(number(doc, "tensors"), 50);
    assert_int_equal(number(doc, "bytes"), 2 * number(model, "parameters"));
    assert_int_equal(number(json_object_get(json_object_get(doc, "types"), "BF16"), "elements"),
                     number(model, "parameters"));
    assert_int_equal(json_array_size(json_object_get(model, "window")), 4);
    assert_null(json_object_get(doc, "table"));
    assert_null(json_object_get(doc, "state"));
    json_decref(doc);
    ok(inspect(file, &(inspect_options){.tensors = true}, &doc));
    assert_null(json_object_get(doc, "model"));
    assert_int_equal(json_array_size(json_object_get(doc, "table")), 50);
    json_decref(doc);
    ok(make_dirs(solar));
    ok(write_file_atomic(state_file, "{\"step\":7}", 10));
    ok(inspect(base, &(inspect_options){0}, &doc));
    assert_int_equal(number(json_object_get(doc, "state"), "step"), 7);
    json_decref(doc);
    ok(write_file_atomic(state_file, "{", 1));
    expect(inspect(base, &(inspect_options){0}, &doc), ERR_INPUT, "state.json:1");
    json_decref(doc);
    assert_int_equal(truncate(file, 100), 0);
    expect(inspect(base, &(inspect_options){0}, &doc), ERR_INPUT, "model.safetensors");
    assert_non_null(json_object_get(doc, "model")); // what could be read is still said
    json_decref(doc);
    free(base), free(file), free(solar), free(state_file);
}

// ---- the commands: exit statuses

static int run_command(const command *c, const char *const *args) {
    char *argv[8] = {(char *)c->name};
    int argc = 1, keep_out = dup(1), keep_err = dup(2), null = open("/dev/null", O_WRONLY);
    for (; args[argc - 1]; argc++) argv[argc] = (char *)args[argc - 1];
    fflush(stdout);
    dup2(null, 1), dup2(null, 2);
    int status = c->run(argc, argv);
    fflush(stdout);
    dup2(keep_out, 1), dup2(keep_err, 2);
    close(keep_out), close(keep_err), close(null);
    return status;
}

#define RUN(c, ...) run_command(&(c), (const char *const[]){__VA_ARGS__, NULL})

static void test_exit_statuses(void **state) {
    char *base = write_model(*state, "base", LLAMA, DT_F32, NULL), *out = path_join(*state, "out");
    char *file = path_join(out, "model.safetensors");
    assert_int_equal(RUN(cmd_upscale, "--help"), 0);
    assert_int_equal(RUN(cmd_upscale, base), 2);
    assert_int_equal(RUN(cmd_upscale, base, out), 2);
    assert_int_equal(RUN(cmd_upscale, base, out, "--m", "x"), 2);
    assert_int_equal(RUN(cmd_upscale, base, out, "--m", "-1"), 2);
    assert_int_equal(RUN(cmd_upscale, base, out, "--m", "1", "--max-shard-bytes", "0"), 2);
    assert_int_equal(RUN(cmd_upscale, base, out, "--m", "4"), 3);
    assert_int_equal(RUN(cmd_upscale, base, out, "--layers", "0-9"), 3);
    assert_int_equal(RUN(cmd_upscale, out, out, "--m", "1"), 4);
    assert_int_equal(RUN(cmd_upscale, base, out, "--m", "1", "--json"), 0);
    assert_int_equal(RUN(cmd_verify, base, out), 0);
    assert_int_equal(RUN(cmd_verify, base, out, "--json"), 0);
    assert_int_equal(RUN(cmd_verify, base, out, "--layers", "0-2,0-2", "--json"), 5);
    assert_int_equal(RUN(cmd_verify, base), 2);
    assert_int_equal(RUN(cmd_inspect, out), 0);
    assert_int_equal(RUN(cmd_inspect, out, "--tensors", "--json"), 0);
    assert_int_equal(RUN(cmd_inspect, file, "--tensors"), 0);
    assert_int_equal(RUN(cmd_inspect, out, "extra"), 2);
    assert_int_equal(truncate(file, 3000), 0);
    assert_int_equal(RUN(cmd_verify, base, out), 4);
    assert_int_equal(RUN(cmd_inspect, out), 4);
    assert_int_equal(RUN(cmd_inspect, "/nonexistent"), 4);
    free(base), free(out), free(file);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_every_m),
        TEST(test_ranges),
        TEST(test_several_files),
        TEST(test_refusals),
        TEST(test_failure_leaves_nothing),
        TEST(test_flips),
        TEST(test_flips_in_a_real_model),
        TEST(test_plans_are_found),
        TEST(test_wrong_plans),
        TEST(test_other_models),
        TEST(test_hostile_statement),
        cmocka_unit_test(test_m_of_plans),
        TEST(test_inspect),
        TEST(test_exit_statuses),
    };
    return cmocka_run_group_tests_name("upscale", tests, NULL, NULL);
}
