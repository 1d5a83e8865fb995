// What is made of a step: arithmetic by hand.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "measures.h"

static void close_to(double a, double b) {
    if (!(fabs(a - b) <= 1e-9 * fabs(b))) fail_msg("%.12g is not %.12g", a, b);
}

// Parameters of the small model: embedding and head 2 x 100 x 16, norm 16; a layer: q, o 2 x 16 x 16, k, v 2
// x 8 x 16, gate, up, down 3 x 32 x 16, norms 2 x 16.
static void test_flop(void **state) {
    (void)state;
    model_spec *s = NULL;
    json_t *doc =
        json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:s, s:b}", "model_type", "llama",
                  "hidden_size", 16, "intermediate_size", 32, "num_hidden_layers", 3, "num_attention_heads",
                  4, "num_key_value_heads", 2, "vocab_size", 100, "max_position_embeddings", 64,
                  "rms_norm_eps", 1e-5, "rope_theta", 1e4, "hidden_act", "silu", "tie_word_embeddings", 0);
    assert_null(spec_parse(doc, "test", &s));
    json_decref(doc);
    double n = 3200 + 16 + 3 * (512 + 256 + 1536 + 32), pairs = 3 * 16 * 50;
    token_flop f = token_flop_of(s, 50);
    close_to(f.all_pairs, 6 * n + 12 * pairs);
    close_to(f.causal, 6 * n + 6 * pairs);
    spec_free(s);
}

static measures two_ranks(device *d) { return (measures){.flop = 8e12, .peak = 2e12, .dev = d, .ranks = 2}; }

static void test_step(void **state) {
    (void)state;
    device *d = NULL;
    assert_null(cpu_open(1, &d));
    step_vote votes[2] = {{.busy = {0.5f, 1, 2, 0, 0.5f}, .sent = {3, 100}},
                          {.busy = {0, 1, 1, 0, 0}, .sent = {4, 200}}};
    step_report r = {.votes = votes};
    measures m = two_ranks(d);
    measure x = measure_step(&m, &r, 8);
    close_to(x.tflops, 0.5);
    close_to(x.mfu, 0.5);
    close_to(x.waiting, 1 - 3.0 / 8); // busy 4 and 2 s of 8
    assert_int_equal(x.messages, 7);
    assert_int_equal(x.bytes, 300);
    assert_int_equal(x.device_bytes, 0);
    d->ops->close(d);
}

// What is not known is not said.
static void test_unknown(void **state) {
    (void)state;
    device *d = NULL;
    assert_null(cpu_open(1, &d));
    step_vote votes[2] = {{.loss = 0}};
    step_report r = {.votes = votes};
    measures m = two_ranks(d);
    m.peak = 0;
    m.linked = true;
    measure x = measure_step(&m, &r, 8);
    json_t *line = json_object();
    measure_note(&x, line);
    assert_non_null(json_object_get(line, "tflops"));
    assert_null(json_object_get(line, "mfu"));
    assert_null(json_object_get(line, "waiting"));
    assert_null(json_object_get(line, "device_bytes"));
    json_decref(line);
    d->ops->close(d);
}

static void test_names(void **state) {
    (void)state;
    assert_string_equal(machine_of_gpu("NVIDIA H200"), "h200");
    assert_string_equal(machine_of_gpu("NVIDIA H100 80GB HBM3"), "h100");
    assert_string_equal(machine_of_gpu("NVIDIA A100-SXM4-80GB"), "a100");
    assert_null(machine_of_gpu("NVIDIA H200 NVL"));
    assert_null(machine_of_gpu("NVIDIA H100 PCIe"));
    assert_null(machine_of_gpu("NVIDIA A100-SXM4-40GB"));
    assert_null(machine_of_gpu("emulated GPU"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flop),
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
