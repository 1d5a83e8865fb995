// The tensor table: names, shapes, order; slices that cover every tensor once; files against the table.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fsutil.h"
#include "table.h"

#define LLAMA                                                                                                \
    "\"model_type\":\"llama\",\"hidden_size\":8,\"intermediate_size\":10,\"num_hidden_layers\":3,"           \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":33"
#define QWEN2                                                                                                \
    "\"model_type\":\"qwen2\",\"hidden_size\":8,\"intermediate_size\":10,\"num_hidden_layers\":3,"           \
    "\"num_attention_heads\":4,\"num_key_value_heads\":1,\"vocab_size\":33,\"tie_word_embeddings\":true"

static void ok(err *e) {
    if (e) fail_msg("%s", err_text(e));
}

static model_spec *spec(const char *body) {
    char text[1024];
    model_spec *s = NULL;
    snprintf(text, sizeof text, "{%s}", body);
    json_t *doc = json_loads(text, 0, NULL);
    ok(spec_parse(doc, "config.json", &s));
    json_decref(doc);
    return s;
}

// The table of a model, deepened by `ranges` unless that is NULL.
static table *make(const char *body, const char *ranges, int pp) {
    model_spec *base = spec(body), *deep = NULL;
    depth_plan *plan = NULL;
    layout *stages = NULL;
    table *t = NULL;
    ok(ranges ? depth_from_ranges(3, ranges, &plan) : depth_identity(3, &plan));
    ok(spec_deepen(base, plan, &deep));
    if (pp) ok(layout_make(plan, &(layout_shape){.pp = pp, .interleave = 1}, &stages));
    ok(table_make(deep, plan, stages, &t));
    layout_free(stages), depth_free(plan), spec_free(base), spec_free(deep);
    return t;
}

static void check_row(const table *t, const char *name, const char *donor, role role, int stage, int ndim,
                      int64_t rows, int64_t cols, int axis, int64_t units) {
    const tensor_row *r = table_find(t, name);
    if (!r) fail_msg("no %s", name);
    assert_string_equal(r->donor, donor);
    assert_int_equal(r->role, role);
    assert_int_equal(r->stage, stage);
    assert_int_equal(r->ndim, ndim);
    assert_int_equal(r->shape[0], rows);
    assert_int_equal(r->shape[1], cols);
    assert_int_equal(r->axis, axis);
    assert_int_equal(r->units, units);
    assert_int_equal(r->decay, ndim == 2);
    assert_int_equal(tensor_elements(r), rows * cols);
}

static void test_new_layers(void **state) {
    (void)state;
    table *t = make(LLAMA ",\"attention_bias\":true,\"mlp_bias\":true", "0-1,1z,1c,2", 0);
    int zeros = 0;
    for (int i = 0; i < t->count; i++) {
        const tensor_row *r = &t->row[i];
        zeros += r->zero;
        assert_int_equal(r->zero, r->layer == 2 && role_is_output(r->role));
    }
    assert_int_equal(zeros, 4);
    assert_true(table_find(t, "model.layers.2.self_attn.o_proj.bias")->zero);
    assert_true(table_find(t, "model.layers.2.mlp.down_proj.weight")->zero);
    assert_string_equal(table_find(t, "model.layers.2.mlp.down_proj.weight")->donor,
                        "model.layers.1.mlp.down_proj.weight");
    table_free(t);
}

static void test_rows(void **state) {
    (void)state;
    table *t = make(LLAMA, "0-1,1-2", 2);
    assert_int_equal(t->count, 3 + 4 * 9);
    assert_int_equal(t->base_layers, 3);
    check_row(t, "model.embed_tokens.weight", "model.embed_tokens.weight", R_EMBED, 0, 2, 33, 8, 0, 33);
    check_row(t, "lm_head.weight", "lm_head.weight", R_HEAD, 1, 2, 33, 8, 0, 33);
    check_row(t, "model.norm.weight", "model.norm.weight", R_FNORM, 1, 1, 8, 1, -1, 1);
#define D "model.layers.1."
#define N "model.layers.2."
    check_row(t, N "input_layernorm.weight", D "input_layernorm.weight", R_NORM1, 1, 1, 8, 1, -1, 1);
    check_row(t, N "self_attn.q_proj.weight", D "self_attn.q_proj.weight", R_Q, 1, 2, 8, 8, 0, 4);
    check_row(t, N "self_attn.k_proj.weight", D "self_attn.k_proj.weight", R_K, 1, 2, 4, 8, 0, 2);
    check_row(t, N "self_attn.v_proj.weight", D "self_attn.v_proj.weight", R_V, 1, 2, 4, 8, 0, 2);
    check_row(t, N "self_attn.o_proj.weight", D "self_attn.o_proj.weight", R_O, 1, 2, 8, 8, 1, 4);
    check_row(t, N "post_attention_layernorm.weight", D "post_attention_layernorm.weight", R_NORM2, 1, 1, 8,
              1, -1, 1);
    check_row(t, N "mlp.gate_proj.weight", D "mlp.gate_proj.weight", R_GATE, 1, 2, 10, 8, 0, 10);
    check_row(t, N "mlp.up_proj.weight", D "mlp.up_proj.weight", R_UP, 1, 2, 10, 8, 0, 10);
    check_row(t, N "mlp.down_proj.weight", D "mlp.down_proj.weight", R_DOWN, 1, 2, 8, 10, 1, 10);
    assert_string_equal(t->row[0].name, "model.embed_tokens.weight");
    assert_string_equal(t->row[t->count - 1].name, "lm_head.weight");
    assert_null(table_find(t, "model.layers.4.mlp.up_proj.weight"));
    table_free(t);
}

static void test_biases_and_tied_heads(void **state) {
    (void)state;
    table *t = make(QWEN2, NULL, 0);
    assert_int_equal(t->count, 2 + 3 * 12);
    assert_null(table_find(t, "lm_head.weight"));
    check_row(t, "model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_proj.bias", R_QB, 0, 1,
              8, 1, 0, 4);
    check_row(t, "model.layers.0.self_attn.k_proj.bias", "model.layers.0.self_attn.k_proj.bias", R_KB, 0, 1,
              2, 1, 0, 1);
    assert_null(table_find(t, "model.layers.0.self_attn.o_proj.bias"));
    table_free(t);
    t = make(LLAMA ",\"attention_bias\":true,\"mlp_bias\":true", NULL, 0);
    assert_int_equal(t->count, 3 + 3 * 16);
    check_row(t, "model.layers.0.self_attn.o_proj.bias", "model.layers.0.self_attn.o_proj.bias", R_OB, 0, 1,
              8, 1, -1, 1);
    check_row(t, "model.layers.2.mlp.down_proj.bias", "model.layers.2.mlp.down_proj.bias", R_DOWNB, 0, 1, 8,
              1, -1, 1);
    check_row(t, "model.layers.2.mlp.up_proj.bias", "model.layers.2.mlp.up_proj.bias", R_UPB, 0, 1, 10, 1, 0,
              10);
    table_free(t);
}

static void test_parameters_agree_with_the_spec(void **state) {
    (void)state;
    static const char *const bodies[] = {LLAMA, QWEN2, LLAMA ",\"attention_bias\":true",
                                         LLAMA ",\"mlp_bias\":true",
                                         LLAMA ",\"head_dim\":6,\"tie_word_embeddings\":true"};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        table *t = make(bodies[i], NULL, 0);
        model_spec *s = spec(bodies[i]);
        int64_t sum = 0;
        for (int k = 0; k < t->count; k++) sum += tensor_elements(&t->row[k]);
        assert_int_equal(sum, spec_parameters(s));
        spec_free(s), table_free(t);
    }
}

// Every element belongs to exactly `copies` ranks, and the copies are numbered.
static void check_slices(const tensor_row *r, int tp) {
    int *seen = calloc((size_t)tensor_elements(r), sizeof *seen);
    for (int t = 0; t < tp; t++) {
        slice s = tensor_slice(r, tp, t);
        assert_true(s.rows > 0 && s.cols > 0 && s.row0 >= 0 && s.col0 >= 0);
        assert_true(s.row0 + s.rows <= r->shape[0] && s.col0 + s.cols <= r->shape[1]);
        assert_true(s.copy >= 0 && s.copy < s.copies);
        for (int64_t i = 0; i < s.rows; i++)
            for (int64_t j = 0; j < s.cols; j++) {
                int *n = &seen[(s.row0 + i) * r->shape[1] + s.col0 + j];
                assert_int_equal(*n, s.copy);
                ++*n;
            }
    }
    int copies = tensor_slice(r, tp, 0).copies;
    for (int64_t i = 0; i < tensor_elements(r); i++) assert_int_equal(seen[i], copies);
    free(seen);
}

static void test_slices_cover(void **state) {
    (void)state;
    static const char *const bodies[] = {LLAMA ",\"attention_bias\":true,\"mlp_bias\":true", QWEN2};
    for (size_t b = 0; b < 2; b++) {
        table *t = make(bodies[b], NULL, 0);
        for (int tp = 1; tp <= 4; tp *= 2)
            for (int i = 0; i < t->count; i++) check_slices(&t->row[i], tp);
        table_free(t);
    }
}

static void test_uneven_and_replicated_slices(void **state) {
    (void)state;
    table *t = make(LLAMA, NULL, 0);
    slice s = tensor_slice(table_find(t, "model.embed_tokens.weight"), 4, 3); // 33 rows: 8, 8, 8, 9
    assert_true(s.row0 == 24 && s.rows == 9 && s.cols == 8 && s.copies == 1);
    s = tensor_slice(table_find(t, "model.layers.0.self_attn.k_proj.weight"), 4, 3); // 2 heads on 4 ranks
    assert_true(s.row0 == 2 && s.rows == 2 && s.copies == 2 && s.copy == 1);
    s = tensor_slice(table_find(t, "model.layers.0.mlp.down_proj.weight"), 4, 1); // 10 columns: 2, 3, 2, 3
    assert_true(s.col0 == 2 && s.cols == 3 && s.row0 == 0 && s.rows == 8);
    s = tensor_slice(table_find(t, "model.norm.weight"), 4, 2);
    assert_true(s.rows == 8 && s.copies == 4 && s.copy == 2);
    table_free(t);
}

static void test_tensor_parallel_sizes(void **state) {
    (void)state;
    model_spec *s = spec(LLAMA);
    static const struct {
        int tp;
        const char *why;
    } cases[] = {{0, "at least 1"}, {3, "does not divide the 4 attention heads"}, {8, "does not divide"}};
    for (int tp = 1; tp <= 4; tp *= 2) ok(table_check_tp(s, tp));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        err *e = table_check_tp(s, cases[i].tp);
        assert_int_equal(err_get_code(e), ERR_CONFIG);
        assert_non_null(strstr(err_text(e), cases[i].why));
        err_free(e);
    }
    s->heads = 12, s->kv_heads = 4;
    err *e = table_check_tp(s, 6);
    assert_non_null(strstr(err_text(e), "key/value heads"));
    err_free(e);
    s->ffn = 1;
    e = table_check_tp(s, 2);
    assert_non_null(strstr(err_text(e), "features"));
    err_free(e);
    spec_free(s);
}

// ---- files

static int setup(void **state) {
    char dir[] = "/tmp/solar-table-XXXXXX";
    *state = mkdtemp(dir) ? strdup(dir) : NULL;
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    ok(remove_tree(*state));
    free(*state);
    return 0;
}

// Writes the tensors of a table, without row `drop`, with row `bend` reshaped, and with one more.
static st_set *files_of(const char *dir, const table *t, int drop, int bend, const st_decl *extra) {
    st_decl *d = calloc((size_t)t->count + 1, sizeof *d);
    char *path = path_join(dir, "model.safetensors"), zeros[4096] = {0};
    int n = 0;
    st_writer *w = NULL;
    st_set *s = NULL;
    for (int i = 0; i < t->count; i++) {
        const tensor_row *r = &t->row[i];
        if (i == drop) continue;
        d[n] =
            (st_decl){.name = r->name, .dt = DT_BF16, .ndim = r->ndim, .shape = {r->shape[0], r->shape[1]}};
        if (i == bend) d[n].shape[0]++;
        n++;
    }
    if (extra) d[n++] = *extra;
    ok(remove_tree(path));
    ok(st_writer_open(path, d, n, NULL, 0, &w));
    for (int i = 0; i < n; i++)
        ok(st_write(w, zeros, (uint64_t)(2 * d[i].shape[0] * (d[i].ndim > 1 ? d[i].shape[1] : 1))));
    ok(st_writer_close(w));
    ok(st_open(path, &s));
    free(path), free(d);
    return s;
}

static void expect(err *e, const char *name, const char *part) {
    assert_int_equal(err_get_code(e), ERR_INPUT);
    if (!strstr(err_text(e), name) || !strstr(err_text(e), part))
        fail_msg("'%s' and '%s' are not in '%s'", name, part, err_text(e));
    err_free(e);
}

static void test_every_fault_is_named(void **state) {
    table *t = make(QWEN2, NULL, 0);
    for (int i = 0; i < t->count; i++) {
        st_set *s = files_of(*state, t, i, -1, NULL);
        expect(table_check_files(t, s, false), t->row[i].name, "is missing");
        st_close(s);
        s = files_of(*state, t, -1, i, NULL);
        expect(table_check_files(t, s, false), t->row[i].name, "found shape");
        st_close(s);
    }
    st_set *s = files_of(*state, t, -1, -1, NULL);
    ok(table_check_files(t, s, false));
    st_close(s), table_free(t);
}

static void check_one_extra(const char *dir, const table *t, const table *check, st_decl extra, bool donors,
                            const char *part) {
    st_set *s = files_of(dir, t, -1, -1, &extra);
    err *e = table_check_files(check, s, donors);
    if (part)
        expect(e, extra.name, part);
    else
        ok(e);
    st_close(s);
}

static void test_extras(void **state) {
    table *t = make(QWEN2, NULL, 0), *untied = make(LLAMA, NULL, 0), *two = make(QWEN2, "0,2", 0);
    const char *no = "is not part of the model", *dir = *state;
    const st_decl head = {"lm_head.weight", DT_BF16, 2, {33, 8}},
                  odd_head = {"lm_head.weight", DT_BF16, 2, {32, 8}};
    const st_decl freq = {"model.layers.1.self_attn.rotary_emb.inv_freq", DT_F32, 1, {0}};
    const st_decl other = {"model.layers.0.self_attn.q_norm.weight", DT_BF16, 1, {2}};
    const st_decl layer3 = {"model.layers.3.mlp.up_proj.weight", DT_BF16, 2, {10, 8}};
    const st_decl odd = {"model.layers.01.mlp.up_proj.weight", DT_BF16, 2, {10, 8}};
    check_one_extra(dir, t, t, head, false, NULL);
    check_one_extra(dir, t, t, odd_head, false, no);
    check_one_extra(dir, t, t, freq, false, NULL);
    check_one_extra(dir, t, t, other, false, no);
    check_one_extra(dir, t, t, layer3, false, no);
    check_one_extra(dir, t, t, layer3, true, no);
    check_one_extra(dir, t, two, freq, true, NULL); // layer 1 is left out by the plan
    check_one_extra(dir, t, two, odd, true, no);
    check_one_extra(dir, untied, untied, other, false, no);
    table_free(t), table_free(untied), table_free(two);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_new_layers),
        cmocka_unit_test(test_biases_and_tied_heads),
        cmocka_unit_test(test_parameters_agree_with_the_spec),
        cmocka_unit_test(test_slices_cover),
        cmocka_unit_test(test_uneven_and_replicated_slices),
        cmocka_unit_test(test_tensor_parallel_sizes),
        TEST(test_every_fault_is_named),
        TEST(test_extras),
    };
    return cmocka_run_group_tests_name("table", tests, NULL, NULL);
}
