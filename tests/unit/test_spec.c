// config.json: what is read, what follows from absent keys, what is refused, and the deepened document.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fsutil.h"
#include "spec.h"

#define SIZES                                                                                                \
    "\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":4,\"num_attention_heads\":2,\"vocab_"  \
    "size\":32"
#define LLAMA   "\"model_type\":\"llama\"," SIZES
#define MISTRAL "\"model_type\":\"mistral\",\"num_key_value_heads\":1," SIZES
#define QWEN2   "\"model_type\":\"qwen2\",\"num_key_value_heads\":2," SIZES
#define NO_KV   "\"model_type\":\"mistral\"," SIZES

static void ok(err *e) {
    if (e) fail_msg("%s", err_text(e));
}

static err *parse(const char *text, model_spec **out) {
    json_error_t why;
    json_t *doc = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    if (!doc) fail_msg("test config: %s in %s", why.text, text);
    err *e = spec_parse(doc, "config.json", out);
    json_decref(doc);
    return e;
}

static model_spec *good(const char *body) {
    char text[2048];
    model_spec *s = NULL;
    snprintf(text, sizeof text, "{%s}", body);
    ok(parse(text, &s));
    return s;
}

static void test_llama_defaults(void **state) {
    (void)state;
    model_spec *s = good(LLAMA);
    assert_string_equal(s->family, "llama");
    assert_int_equal(s->kv_heads, 2);
    assert_int_equal(s->head_dim, 4);
    assert_int_equal(s->max_positions, 2048);
    assert_true(s->rope_theta == 10000 && s->rope == ROPE_PLAIN && s->norm_eps == 1e-6 &&
                s->init_range == 0.02);
    assert_false(s->tied || s->qkv_bias || s->out_bias || s->mlp_bias);
    assert_int_equal(s->bos, -1);
    assert_int_equal(s->eos, -1);
    assert_int_equal(s->dt, DT_F32);
    for (int i = 0; i < 4; i++) assert_int_equal(s->window[i], 0);
    spec_free(s);
}

static void test_llama_everything(void **state) {
    (void)state;
    model_spec *s = good(
        LLAMA ",\"architectures\":[\"LlamaForCausalLM\"],\"num_key_value_heads\":1,\"head_dim\":6,"
              "\"attention_bias\":true,\"mlp_bias\":true,\"tie_word_embeddings\":true,\"rms_norm_eps\":1e-5,"
              "\"rope_theta\":500000,\"torch_dtype\":\"bfloat16\",\"bos_token_id\":1,"
              "\"eos_token_id\":[2,3],\"hidden_act\":\"silu\",\"pretraining_tp\":1,\"use_cache\":true,"
              "\"attention_dropout\":0.0,\"quantization_config\":null,\"sliding_window\":null,"
              "\"max_position_embeddings\":64,\"layer_types\":[\"full_attention\",\"full_attention\","
              "\"full_attention\",\"full_attention\"]");
    assert_int_equal(s->kv_heads, 1);
    assert_int_equal(s->head_dim, 6);
    assert_true(s->qkv_bias && s->out_bias && s->mlp_bias && s->tied);
    assert_true(s->norm_eps == 1e-5 && s->rope_theta == 500000);
    assert_int_equal(s->dt, DT_BF16);
    assert_int_equal(s->bos, 1);
    assert_int_equal(s->eos, 2);
    assert_int_equal(s->max_positions, 64);
    spec_free(s);
}

static void test_mistral_defaults(void **state) {
    (void)state;
    model_spec *s = good(MISTRAL);
    assert_int_equal(s->window[0], 4096); // MistralConfig's default: absent is not null
    assert_int_equal(s->max_positions, 131072);
    assert_false(s->qkv_bias);
    spec_free(s);
}

static void test_null_kv_heads(void **state) {
    (void)state;
    model_spec *s = good(NO_KV ",\"sliding_window\":16,\"num_key_value_heads\":null");
    assert_int_equal(s->kv_heads, 2);
    assert_int_equal(s->window[3], 16);
    spec_free(s);
    s = good(NO_KV ",\"num_key_value_heads\":1,\"sliding_window\":null");
    assert_int_equal(s->window[0], 0);
    spec_free(s);
}

static void test_qwen2(void **state) {
    (void)state;
    model_spec *s = good(QWEN2);
    assert_true(s->qkv_bias);
    assert_false(s->out_bias || s->mlp_bias);
    assert_int_equal(s->window[3], 0); // use_sliding_window is off by default
    spec_free(s);
    s = good(QWEN2 ",\"use_sliding_window\":true,\"sliding_window\":7,\"max_window_layers\":3");
    assert_int_equal(s->window[2], 0);
    assert_int_equal(s->window[3], 7);
    spec_free(s);
    s = good(QWEN2
             ",\"use_sliding_window\":true,\"sliding_window\":7,\"max_window_layers\":3,\"layer_types\":["
             "\"sliding_attention\",\"full_attention\",\"full_attention\",\"full_attention\"]");
    assert_int_equal(s->window[0], 7);
    assert_int_equal(s->window[3], 0);
    spec_free(s);
    s = good(QWEN2 ",\"use_sliding_window\":false,\"sliding_window\":7,\"max_window_layers\":0");
    assert_int_equal(s->window[3], 0);
    spec_free(s);
}

static void test_rope_forms(void **state) {
    (void)state;
    static const char *const linear[] = {
        LLAMA ",\"rope_theta\":20000.0,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}",
        LLAMA ",\"rope_theta\":20000.0,\"rope_scaling\":{\"rope_type\":\"linear\",\"type\":\"linear\","
              "\"factor\":4}",
        LLAMA ",\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4.0,\"rope_theta\":20000.0},"
              "\"dtype\":\"float16\"",
        LLAMA ",\"rope_theta\":20000,\"rope_scaling\":null,\"rope_parameters\":{\"rope_type\":\"linear\","
              "\"factor\":4.0}",
    };
    for (size_t i = 0; i < sizeof linear / sizeof *linear; i++) {
        model_spec *s = good(linear[i]);
        assert_true(s->rope == ROPE_LINEAR && s->rope_factor == 4 && s->rope_theta == 20000);
        spec_free(s);
    }
    model_spec *s =
        good(LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                   "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}");
    assert_true(s->rope == ROPE_LLAMA3 && s->rope_factor == 8 && s->rope_low_freq == 1 &&
                s->rope_high_freq == 4);
    assert_int_equal(s->rope_original_positions, 8192);
    spec_free(s);
    s = good(LLAMA ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000.0}");
    assert_true(s->rope == ROPE_PLAIN && s->rope_theta == 10000);
    spec_free(s);
}

typedef struct bad {
    const char *body, *why;
} bad;

static const bad bads[] = {
    {SIZES, "key \"model_type\" is missing"},
    {"\"model_type\":\"gpt2\"," SIZES, "model_type: found \"gpt2\", expected \"llama\""},
    {"\"model_type\":7," SIZES, "expected a string"},
    {"\"model_type\":\"llama\"", "key \"num_hidden_layers\" is missing"},
    {LLAMA ",\"foo\":1", "key \"foo\" is not understood"},
    {LLAMA ",\"num_experts\":8", "key \"num_experts\""},
    {LLAMA ",\"max_window_layers\":8", "key \"max_window_layers\""},
    {LLAMA ",\"hidden_act\":\"gelu\"", "hidden_act: found \"gelu\", expected \"silu\""},
    {LLAMA ",\"architectures\":[\"MistralForCausalLM\"]", "expected [\"LlamaForCausalLM\"]"},
    {LLAMA ",\"architectures\":[\"LlamaModel\"]", "architectures"},
    {LLAMA ",\"architectures\":\"LlamaForCausalLM\"", "architectures"},
    {LLAMA ",\"num_key_value_heads\":3", "not a multiple of num_key_value_heads 3"},
    {LLAMA ",\"num_key_value_heads\":0", "expected an integer from 1"},
    {LLAMA ",\"head_dim\":3", "even head size"},
    {LLAMA ",\"head_dim\":-2", "head_dim: found -2"},
    {LLAMA ",\"head_dim\":\"4\"", "head_dim: found \"4\", expected an integer"},
    {LLAMA ",\"rms_norm_eps\":-1e-5", "rms_norm_eps"},
    {LLAMA ",\"rms_norm_eps\":0", "rms_norm_eps"},
    {LLAMA ",\"rms_norm_eps\":null", "rms_norm_eps: found null"},
    {LLAMA ",\"rope_theta\":0", "rope_theta"},
    {LLAMA ",\"rope_theta\":\"1e4\"", "rope_theta"},
    {LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2}", "rope_scaling: type: found \"yarn\""},
    {LLAMA ",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2}", "rope_type: found \"dynamic\""},
    {LLAMA ",\"rope_scaling\":{\"rope_type\":\"linear\"}", "key \"factor\" is missing"},
    {LLAMA ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":0.5}", "factor: found 0.5"},
    {LLAMA ",\"rope_scaling\":{\"rope_type\":\"linear\",\"type\":\"llama3\",\"factor\":2}",
     "the same as rope_type"},
    {LLAMA ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2,\"mscale\":1}", "key \"mscale\""},
    {LLAMA ",\"rope_scaling\":[1]", "rope_scaling: found [1], expected null or an object"},
    {LLAMA
     ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4}",
     "original_max_position_embeddings"},
    {LLAMA
     ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
     "\"original_max_position_embeddings\":64}",
     "less than high_freq_factor"},
    {LLAMA
     ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},\"rope_parameters\":{\"rope_type\":\"default\"}",
     "disagree"},
    {LLAMA ",\"rope_theta\":5,\"rope_parameters\":{\"rope_theta\":6.0}",
     "the same as the rope_theta outside"},
    {LLAMA ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}", "key \"full_attention\""},
    {LLAMA ",\"partial_rotary_factor\":0.5", "partial_rotary_factor: found 0.5, expected 1"},
    {LLAMA ",\"attention_dropout\":0.1", "attention_dropout"},
    {LLAMA ",\"pretraining_tp\":2", "pretraining_tp"},
    {LLAMA ",\"quantization_config\":{\"bits\":4}", "quantization_config"},
    {LLAMA ",\"auto_map\":{\"AutoModel\":\"x.Y\"}", "auto_map"},
    {LLAMA ",\"sliding_window\":16", "sliding_window"},
    {LLAMA ",\"torch_dtype\":\"float64\"", "torch_dtype: found \"float64\""},
    {LLAMA ",\"torch_dtype\":\"float32\",\"dtype\":\"bfloat16\"", "the same as torch_dtype"},
    {LLAMA ",\"bos_token_id\":32", "token id below vocab_size"},
    {LLAMA ",\"eos_token_id\":[]", "eos_token_id"},
    {LLAMA ",\"eos_token_id\":[1,\"2\"]", "eos_token_id"},
    {LLAMA ",\"attention_bias\":1", "attention_bias: found 1, expected true or false"},
    {LLAMA ",\"tie_word_embeddings\":null", "tie_word_embeddings: found null"},
    {LLAMA ",\"layer_types\":[\"full_attention\"]", "layer_types: found 1 entries"},
    {LLAMA
     ",\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\",\"sliding_attention\"]",
     "1 sliding"},
    {LLAMA ",\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\",\"linear_attention\"]",
     "layer_types[3]: found linear_attention"},
    {LLAMA ",\"layer_types\":[\"full_attention\",7,\"full_attention\",\"full_attention\"]", "layer_types[1]"},
    {MISTRAL ",\"sliding_window\":0", "sliding_window: found 0"},
    {MISTRAL ",\"attention_bias\":true", "attention_bias"},
    {MISTRAL
     ",\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\",\"sliding_attention\"]",
     "every layer slides"},
    {NO_KV, "not a multiple of num_key_value_heads 8"},
    {QWEN2
     ",\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\",\"sliding_attention\"]",
     "use_sliding_window or sliding_window is off"},
    {QWEN2 ",\"use_mrope\":true", "use_mrope"},
    {QWEN2 ",\"max_window_layers\":-1", "max_window_layers"},
    {"\"model_type\":\"llama\",\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":0,"
     "\"num_attention_heads\":2,\"vocab_size\":32",
     "num_hidden_layers: found 0"},
    {"\"model_type\":\"llama\",\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":4.0,"
     "\"num_attention_heads\":2,\"vocab_size\":32",
     "num_hidden_layers: found 4.0, expected an integer"},
    {"\"model_type\":\"llama\",\"hidden_size\":9,\"intermediate_size\":12,\"num_hidden_layers\":4,"
     "\"num_attention_heads\":2,\"vocab_size\":32",
     "hidden_size 9 is not a multiple"},
    {"\"model_type\":\"llama\",\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":4,"
     "\"num_attention_heads\":2,\"vocab_size\":2147483648",
     "vocab_size: found 2147483648"},
    {"\"model_type\":\"llama\",\"hidden_size\":9007199254740993,\"intermediate_size\":12,\"num_hidden_"
     "layers\":4,"
     "\"num_attention_heads\":2,\"vocab_size\":32",
     "hidden_size: found 9007199254740993"},
};

static void test_refusals(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        char text[2048];
        model_spec *s = NULL;
        snprintf(text, sizeof text, "{%s}", bads[i].body);
        err *e = parse(text, &s);
        if (err_get_code(e) != ERR_INPUT || !strstr(err_text(e), bads[i].why))
            fail_msg("case %zu: '%s' is not in '%s'", i, bads[i].why, err_text(e));
        assert_null(s);
        err_free(e);
    }
}

// ---- files

static int setup(void **state) {
    char dir[] = "/tmp/solar-spec-XXXXXX";
    *state = mkdtemp(dir) ? strdup(dir) : NULL;
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    ok(remove_tree(*state));
    free(*state);
    return 0;
}

static void test_load_refusals(void **state) {
    const bad cases[] = {
        {"", "'[' or '{' expected"},
        {"{", "config.json:1:"},
        {"[]", "found no JSON object"},
        {"{\"model_type\":\"llama\",\"model_type\":\"llama\"}", "duplicate"},
        {"{\"vocab_size\":99999999999999999999}", "too big integer"},
        {"{\"a\":NaN}", "config.json:1:"},
        {"{} x", "end of file expected"},
        {"{\"a\":\"\xff\"}", "unable to decode byte"},
    };
    char *path = path_join(*state, "config.json");
    model_spec *s = NULL;
    err *e = spec_load(*state, &s);
    assert_int_equal(err_get_code(e), ERR_INPUT);
    assert_non_null(strstr(err_text(e), "config.json: No such file"));
    err_free(e);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ok(write_file_atomic(path, cases[i].body, strlen(cases[i].body)));
        e = spec_load(*state, &s);
        if (err_get_code(e) != ERR_INPUT || !strstr(err_text(e), cases[i].why))
            fail_msg("case %zu: '%s' is not in '%s'", i, cases[i].why, err_text(e));
        err_free(e);
    }
    e = spec_load(path, &s);
    assert_non_null(strstr(err_text(e), "not a directory"));
    err_free(e);
    assert_null(s);
    free(path);
}

static void test_deep_nesting_is_refused(void **state) {
    enum { DEPTH = 200000 };
    char *text = malloc(DEPTH + 16), *path = path_join(*state, "config.json");
    memcpy(text, "{\"a\":", 5);
    memset(text + 5, '[', DEPTH);
    text[5 + DEPTH] = '\0';
    ok(write_file_atomic(path, text, strlen(text)));
    model_spec *s = NULL;
    err *e = spec_load(*state, &s);
    assert_int_equal(err_get_code(e), ERR_INPUT);
    assert_non_null(strstr(err_text(e), "depth"));
    err_free(e);
    free(text), free(path);
}

static char *config_of(const model_spec *s, const char *dir) {
    char *path = path_join(dir, "config.json"), *text = NULL;
    ok(spec_save(s, dir));
    ok(read_file(path, 1 << 20, &text, NULL));
    free(path);
    return text;
}

static void test_deepen_changes_only_the_layers(void **state) {
    model_spec *
        base =
           good("\"use_cache\":true,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"initializer_range\":0.02,"
                "\"_name_or_path\":\"\xc3\xa9\"," LLAMA),
       *deep = NULL;
    depth_plan *plan = NULL;
    ok(depth_from_m(4, 1, &plan));
    ok(spec_deepen(base, plan, &deep));
    assert_int_equal(deep->layers, 6);
    assert_int_equal(base->layers, 4);
    char *text = config_of(deep, *state);
    assert_string_equal(
        text, "{\n  \"use_cache\": true,\n  \"rms_norm_eps\": 1e-5,\n  \"rope_theta\": 10000.0,\n"
              "  \"initializer_range\": 0.02,\n  \"_name_or_path\": \"\xc3\xa9\",\n"
              "  \"model_type\": \"llama\",\n  \"hidden_size\": 8,\n  \"intermediate_size\": 12,\n"
              "  \"num_hidden_layers\": 6,\n  \"num_attention_heads\": 2,\n  \"vocab_size\": 32\n}\n");
    free(text);
    depth_free(plan);
    plan = NULL;
    ok(depth_from_m(5, 1, &plan));
    model_spec *none = NULL;
    err *e = spec_deepen(base, plan, &none);
    assert_int_equal(err_get_code(e), ERR_CONFIG);
    err_free(e);
    depth_free(plan), spec_free(base), spec_free(deep);
}

static void check_windows(const char *body, const char *ranges, const int *windows, bool states_types) {
    model_spec *base = good(body), *deep = NULL, *again = NULL;
    depth_plan *plan = NULL;
    ok(depth_from_ranges(4, ranges, &plan));
    ok(spec_deepen(base, plan, &deep));
    for (int i = 0; i < plan->layers; i++) assert_int_equal(deep->window[i], windows[i]);
    assert_int_equal(json_object_get(deep->config, "layer_types") != NULL, states_types);
    ok(spec_parse(deep->config, "again", &again));
    assert_memory_equal(again->window, deep->window, sizeof *deep->window * (size_t)plan->layers);
    spec_free(base), spec_free(deep), spec_free(again), depth_free(plan);
}

static void test_deepen_maps_windows(void **state) {
    (void)state;
#define QWEN2_WINDOWS QWEN2 ",\"use_sliding_window\":true,\"sliding_window\":7,\"max_window_layers\":"
    check_windows(QWEN2_WINDOWS "3", "0-3,0-3", (int[]){0, 0, 0, 7, 0, 0, 0, 7}, true);
    check_windows(QWEN2_WINDOWS "0", "0-3,0-3", (int[]){7, 7, 7, 7, 7, 7, 7, 7}, false);
    check_windows(QWEN2_WINDOWS
                  "3,\"layer_types\":[\"sliding_attention\",\"full_attention\",\"full_attention\","
                  "\"sliding_attention\"]",
                  "0-2,1-3", (int[]){7, 0, 0, 0, 0, 7}, true);
    check_windows(QWEN2, "0-3,0-3", (int[8]){0}, false);
    check_windows(MISTRAL ",\"sliding_window\":5", "0-2,1-3", (int[]){5, 5, 5, 5, 5, 5}, false);
}

// ---- tables and counts

static void check_tables(const char *body, double (*frequency)(int i)) {
    enum { POSITIONS = 300 };
    model_spec *s = good(body);
    int64_t half = s->head_dim / 2;
    float *c = malloc(sizeof(float) * POSITIONS * (size_t)half),
          *sn = malloc(sizeof(float) * POSITIONS * (size_t)half);
    spec_rope_tables(s, POSITIONS, c, sn);
    for (int p = 0; p < POSITIONS; p++)
        for (int i = 0; i < half; i++) {
            double a = p * frequency(i);
            assert_true((fabs(c[p * half + i] - cos(a)) <= 1e-7));
            assert_true((fabs(sn[p * half + i] - sin(a)) <= 1e-7));
        }
    free(c), free(sn), spec_free(s);
}

static double plain(int i) { return i == 0 ? 1 : 0.01; } // theta 10000, head size 4
static double halved(int i) { return plain(i) / 2; }
// head size 16, theta 10000, factor 8, low 1, high 4, original 100: wave lengths 2 pi 10^(i/2) against 100
// and 25: i = 0, 1 are short (6.3, 19.9), i = 2 (62.8) between, the others long
static double llama3(int i) {
    double f = pow(10, -i / 2.0);
    if (i < 2) return f;
    if (i > 2) return f / 8;
    double keep = (100 / (2 * acos(-1.0) / f) - 1) / 3;
    return (1 - keep) * f / 8 + keep * f;
}

static void test_rope_tables(void **state) {
    (void)state;
    check_tables(LLAMA, plain);
    check_tables(LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}", halved);
    check_tables(
        LLAMA
        ",\"head_dim\":16,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
        "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":100}",
        llama3);
}

static void test_parameters(void **state) {
    (void)state;
    // Mistral-7B-v0.1's published count
    model_spec *s = good("\"model_type\":\"mistral\",\"hidden_size\":4096,\"intermediate_size\":14336,"
                         "\"num_hidden_layers\":32,\"num_attention_heads\":32,\"vocab_size\":32000");
    assert_true(spec_parameters(s) == 7241732096);
    depth_plan *plan = NULL;
    model_spec *deep = NULL;
    ok(depth_from_m(32, 8, &plan));
    ok(spec_deepen(s, plan, &deep));
    assert_true(spec_parameters(deep) == 10731524096); // SOLAR 10.7B
    spec_free(s), spec_free(deep), depth_free(plan);
    // Qwen2-0.5B's published count: tied, biases on q, k and v
    s = good(
        "\"model_type\":\"qwen2\",\"hidden_size\":896,\"intermediate_size\":4864,\"num_hidden_layers\":24,"
        "\"num_attention_heads\":14,\"num_key_value_heads\":2,\"vocab_size\":151936,\"tie_word_embeddings\":"
        "true");
    assert_true(spec_parameters(s) == 494032768);
    spec_free(s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama_defaults),
        cmocka_unit_test(test_llama_everything),
        cmocka_unit_test(test_mistral_defaults),
        cmocka_unit_test(test_null_kv_heads),
        cmocka_unit_test(test_qwen2),
        cmocka_unit_test(test_rope_forms),
        cmocka_unit_test(test_refusals),
        TEST(test_load_refusals),
        TEST(test_deep_nesting_is_refused),
        TEST(test_deepen_changes_only_the_layers),
        cmocka_unit_test(test_deepen_maps_windows),
        cmocka_unit_test(test_rope_tables),
        cmocka_unit_test(test_parameters),
    };
    return cmocka_run_group_tests_name("spec", tests, NULL, NULL);
}
