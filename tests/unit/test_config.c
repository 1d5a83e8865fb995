// The run config: what is wrong is said with its place; what is right is read, dumped and read again.
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "bad_config.h"
#include "config.h"
#include "fsutil.h"
#include "scalar.h"
#include "schema.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

// Whether e is the error expected: one line, of this code, that begins so and holds `also`. Frees e.
static bool matches(err *e, err_code code, const char *begin, const char *also) {
    bool good = e && err_get_code(e) == code && !strncmp(err_text(e), begin, strlen(begin)) &&
                strstr(err_text(e), also) && !strchr(err_text(e), '\n');
    if (!good)
        print_error("found:    (%d) %s\nexpected: (%d) %s ... %s\n", (int)err_get_code(e), err_text(e),
                    (int)code, begin, also);
    err_free(e);
    return good;
}

static void check_error(err *e, err_code code, const char *begin, const char *also) {
    assert_true(matches(e, code, begin, also));
}

static void bad_yaml_is_named_and_placed(void **state) {
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < COUNT(bad_yaml); i++) {
        config *c = NULL;
        err *e = config_parse(bad_yaml[i].text, "c.yaml", &c);
        assert_null(c);
        wrong += !matches(e, ERR_CONFIG, bad_yaml[i].message, bad_yaml[i].also);
    }
    assert_int_equal(wrong, 0);
}

// ---- files

typedef struct place_to_write {
    char dir[64], file[96];
    char before[4096]; // current directory of the program
} place_to_write;

static void write_text(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static int enter(void **state) {
    place_to_write *p = calloc(1, sizeof *p);
    if (!p || !getcwd(p->before, sizeof p->before)) return -1;
    snprintf(p->dir, sizeof p->dir, "/tmp/solar-test-XXXXXX");
    if (!mkdtemp(p->dir) || chdir(p->dir)) return -1;
    snprintf(p->file, sizeof p->file, "%s/c.yaml", p->dir);
    *state = p;
    return 0;
}

static int leave(void **state) {
    place_to_write *p = *state;
    int status = chdir(p->before) != 0;
    err *e = remove_tree(p->dir);
    status |= e != NULL;
    err_free(e);
    free(p);
    return status;
}

static config *load(const char *path, const char *const *set, int n_set, bool files) {
    config *c = NULL;
    err *e = config_load(path, set, n_set, files, &c);
    if (e) fail_msg("%s", err_text(e));
    return c;
}

typedef struct bad_set {
    const char *set, *message, *also;
    err_code code;
} bad_set;

static const bad_set bad_sets[] = {
    {"train.steps", "--set \"train.steps\": found no \"=\"", "path.to.key=value", ERR_USAGE},
    {"=5", "--set \"=5\": found a name of 0 bytes", "", ERR_USAGE},
    {"train..steps=5", "--set \"train..steps=5\": found a name of 0 bytes", "", ERR_USAGE},
    {"train.=5", "--set \"train.=5\": found a name of 0 bytes", "", ERR_USAGE},
    {"train.steps=abc", "--set \"train.steps=abc\": train.steps: found text \"abc\"", "integer", ERR_CONFIG},
    {"train.steps=", "--set \"train.steps=\": train.steps: found no value", "", ERR_CONFIG},
    {"train.steps=[1", "--set \"train.steps=[1\": found broken YAML", "", ERR_CONFIG},
    {"train.step=5", "--set \"train.step=5\": found unknown key \"step\" in train", "train.steps?",
     ERR_CONFIG},
    {"trian.steps=5", "--set \"trian.steps=5\": found unknown key \"trian\"", "did you mean train?",
     ERR_CONFIG},
    {"run.dir.x=1", "--set \"run.dir.x=1\": found text \"r\" in front of \"x\"", "a map or a list",
     ERR_CONFIG},
    {"data.train.1.weight=2", "--set \"data.train.1.weight=2\": found \"1\", expected the number of an item",
     "list of 1", ERR_CONFIG},
    {"data.train.x=2", "--set \"data.train.x=2\": found \"x\"", "", ERR_CONFIG},
    {"data.train.0.weight=-1", "--set \"data.train.0.weight=-1\": data.train[].weight: found integer -1", "",
     ERR_CONFIG},
    {"data.train=[]", "--set \"data.train=[]\": data.train: found an empty list", "", ERR_CONFIG},
    {"train={}", "--set \"train={}\": train.global_batch: found no such key", "", ERR_CONFIG},
    {"train.micro_batch=3", "--set \"train.micro_batch=3\": train.micro_batch: found 3, expected a divisor",
     "", ERR_CONFIG},
};

static void bad_sets_are_named(void **state) {
    place_to_write *p = *state;
    write_text(p->file, GOOD);
    for (size_t i = 0; i < COUNT(bad_sets); i++) {
        config *c = NULL;
        err *e = config_load(p->file, &bad_sets[i].set, 1, false, &c);
        assert_null(c);
        check_error(e, bad_sets[i].code, bad_sets[i].message, bad_sets[i].also);
    }
}

static void sets_change_keys(void **state) {
    place_to_write *p = *state;
    write_text(p->file, GOOD);
    const char *set[] = {"train.steps=20",
                         "schedule.warmup=3",
                         "data.train=[{files: a.h5}, {files: b/*.h5, weight: 2}]",
                         "data.train.0.weight=0.5",
                         "data.train.0.name='x=y'",
                         "model.dus.layers=0-3,2-5",
                         "run.dir=/tmp/other",
                         "eval={every: 5}",
                         "train.steps=30"};
    config *c = load(p->file, set, COUNT(set), false);
    assert_int_equal(c->train.steps, 30);
    assert_int_equal(c->schedule.warmup, 3);
    assert_int_equal(c->data.n_train, 2);
    assert_true(c->data.train[0].weight == 0.5 && c->data.train[1].weight == 2);
    assert_string_equal(c->data.train[0].name, "x=y");
    assert_string_equal(c->data.train[1].name, "b");
    assert_string_equal(c->model.dus_layers, "0-3,2-5");
    assert_string_equal(c->run.dir, "/tmp/other");
    assert_int_equal(c->eval.every, 5);
    config_free(c);
    // null takes an optional key, or a section, away again
    const char *off[] = {"model.dus.m=2", "model.dus=null", "mesh.layout=[1]", "mesh.layout=~"};
    c = load(p->file, off, COUNT(off), false);
    assert_false(c->model.has_dus);
    assert_int_equal(c->model.dus_m, -1);
    assert_null(c->mesh.layers_per_stage);
    config_free(c);
}

static void missing_files_are_placed(void **state) {
    place_to_write *p = *state;
    config *c = NULL;
    write_text(p->file, GOOD);
    check_error(config_load("c.yaml", NULL, 0, true, &c), ERR_CONFIG,
                "c.yaml:2:15: model.base: found nothing at \"b\"", p->dir);
    write_text("b", "a file");
    check_error(config_load("c.yaml", NULL, 0, true, &c), ERR_CONFIG,
                "c.yaml:2:15: model.base: found a file at", "/b");
    assert_int_equal(unlink("b") || mkdir("b", 0777), 0);
    check_error(config_load("c.yaml", NULL, 0, true, &c), ERR_CONFIG,
                "c.yaml:2:15: model.base: found no config.json", "/b");
    write_text("b/config.json", "{}");
    check_error(config_load("c.yaml", NULL, 0, true, &c), ERR_CONFIG,
                "c.yaml:3:36: data.train[0].files: found nothing at \"t.h5\"", "solar tokenize");
    assert_int_equal(mkdir("t.h5", 0777), 0); // a directory is no token file
    check_error(config_load("c.yaml", NULL, 0, true, &c), ERR_CONFIG,
                "c.yaml:3:36: data.train[0].files:", "");
    const char *set[] = {"data.train=[{files: 't*.txt'}]", "data.valid=[{files: /nowhere/v.h5}]",
                         "run.dir=c.yaml"};
    check_error(config_load("c.yaml", set, 1, true, &c), ERR_CONFIG,
                "--set \"data.train=[{files: 't*.txt'}]\": data.train[0].files", "");
    write_text("t1.txt", "");
    check_error(config_load("c.yaml", set, 2, true, &c), ERR_CONFIG,
                "--set \"data.valid=[{files: /nowhere/v.h5}]\": data.valid[0].files: found nothing at "
                "\"/nowhere/v.h5\", expected",
                "");
    set[1] = "data.valid=[]";
    check_error(config_load("c.yaml", set, 3, true, &c), ERR_CONFIG,
                "--set \"run.dir=c.yaml\": run.dir: found a file", "");
    assert_null(c);
}

static void unreadable_configs(void **state) {
    (void)state;
    config *c = NULL;
    check_error(config_load("none.yaml", NULL, 0, true, &c), ERR_CONFIG, "none.yaml: expected a config file",
                "No such file");
    check_error(config_load(".", NULL, 0, true, &c), ERR_CONFIG, ".: expected a config file", "");
    FILE *f = fopen("big.yaml", "w");
    assert_non_null(f);
    for (int i = 0; i < 300000; i++) fputs("# a comment that is long enough\n\n", f);
    fclose(f);
    check_error(config_load("big.yaml", NULL, 0, true, &c), ERR_CONFIG,
                "big.yaml: expected a config file of at most 1 MiB", "");
}

// Deep and wide files end early, with an error and not with a crash or a long wait.
static void bombs(void **state) {
    (void)state;
    config *c = NULL;
    enum { N = 900000 };
    static const char *const opening[] = {"[", "{", "{a: ", "- ", "? ", "[[],"};
    char *text = malloc(N + 1);
    assert_non_null(text);
    for (size_t k = 0; k < COUNT(opening); k++) {
        size_t length = strlen(opening[k]);
        for (size_t i = 0; i < N; i++) text[i] = opening[k][i % length];
        text[N] = 0;
        check_error(config_parse(text, "c.yaml", &c), ERR_CONFIG, "c.yaml:1:", "more than 16 levels");
    }
    for (size_t i = 0; i < N; i++) text[i] = ",a"[i % 2];
    text[0] = '[';
    check_error(config_parse(text, "c.yaml", &c), ERR_CONFIG, "c.yaml:1:", "more than 20000 values");
    for (size_t i = 0; i < N; i++) text[i] = "k: 1\n"[i % 5];
    check_error(config_parse(text, "c.yaml", &c), ERR_CONFIG, "c.yaml:2:1: found key \"k\" again", "");
    memset(text, 'a', N);
    check_error(config_parse(text, "c.yaml", &c), ERR_CONFIG, "c.yaml:1:1: found text \"aaaa", "...\"");
    free(text);
}

// ---- good configs

static const char example[] =
    "run: {dir: runs/solar-10.7b, seed: 1}\n"
    "model: {base: models/Mistral-7B-v0.1, dus: {m: 8}}        # a comment\n"
    "data: {seq_len: 4096, train: [{files: web/*.h5, weight: 0.9}, {files: replay/*.h5, weight: 0.1}], "
    "valid: [{name: web, files: valid.h5, samples: 512}]}\n"
    "mesh: {pipeline: 4, tensor: 2}\n"
    "train: {global_batch: 1024, micro_batch: 1, steps: 20000, precision: bf16}\n"
    "optimizer: {kind: adamw, lr: 2.0e-5, betas: [0.9, 0.95], eps: 1.0e-8, weight_decay: 0.1, clip_norm: "
    "1.0}\n"
    "schedule: {kind: wsd, warmup: 200, decay: 2000, min_lr: 2.0e-6}\n"
    "checkpoint: {every: 500, keep: 3}\n"
    "eval: {every: 250}\n";

static config *parse(const char *text) {
    config *c = NULL;
    err *e = config_parse(text, "c.yaml", &c);
    if (e) fail_msg("%s\nin\n%s", err_text(e), text);
    return c;
}

static void the_example_is_read(void **state) {
    (void)state;
    config *c = parse(example);
    assert_string_equal(c->run.dir, "runs/solar-10.7b");
    assert_int_equal(c->run.seed, 1);
    assert_string_equal(c->model.base, "models/Mistral-7B-v0.1");
    assert_true(c->model.has_dus && !c->model.random && c->model.dus_m == 8 && !c->model.dus_layers);
    assert_int_equal(c->data.seq_len, 4096);
    assert_int_equal(c->data.n_train, 2);
    assert_string_equal(c->data.train[1].files, "replay/*.h5");
    assert_string_equal(c->data.train[1].name, "replay");
    assert_true(c->data.train[1].weight == 0.1);
    assert_int_equal(c->data.n_valid, 1);
    assert_string_equal(c->data.valid[0].name, "web");
    assert_int_equal(c->data.valid[0].samples, 512);
    assert_true(c->mesh.pipeline == 4 && c->mesh.tensor == 2 && c->mesh.n_layers_per_stage == 0);
    assert_true(c->train.global_batch == 1024 && c->train.micro_batch == 1 && c->train.steps == 20000);
    assert_true(c->train.precision == DT_BF16);
    assert_true(c->optimizer.lr == 2e-5 && c->optimizer.beta1 == 0.9 && c->optimizer.beta2 == 0.95);
    assert_true(c->optimizer.eps == 1e-8 && c->optimizer.weight_decay == 0.1 && c->optimizer.clip_norm == 1);
    assert_true(c->schedule.kind == SCHED_WSD && c->schedule.warmup == 200 && c->schedule.decay == 2000);
    assert_true(c->schedule.min_lr == 2e-6);
    assert_true(c->checkpoint.every == 500 && c->checkpoint.keep == 3 && c->eval.every == 250);
    config_free(c);
}

static void defaults(void **state) {
    (void)state;
    config *c = parse(GOOD);
    assert_false(c->model.has_dus || c->model.random || c->eval.base || c->eval.stop_when_recovered);
    assert_false(c->data.allow_tokenizer_mismatch);
    assert_true(c->data.shuffle && c->data.n_valid == 0 && c->data.train[0].weight == 1);
    assert_string_equal(c->data.train[0].name, "t");
    assert_true(c->mesh.pipeline == 1 && c->mesh.tensor == 1 && !c->mesh.layers_per_stage);
    assert_true(c->train.micro_batch == 1 && c->train.precision == DT_F32 && c->train.threads == 0);
    assert_string_equal(c->train.device, "auto");
    assert_true(c->log.every == 10 && c->timeout.start == 1800 && c->timeout.step == 600);
    config_free(c);
}

static void the_base_is_measured_where_it_can_be(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool base;
    } cases[] = {
        {RUN "model: {base: b, dus: {m: 1}}\n" DATA TRAIN, false},
        {RUN "model: {base: b, dus: {m: 1}}\ndata: {seq_len: 8, train: [{files: t.h5}], valid: [{files: "
             "v.h5}]}\n" TRAIN,
         true},
        {RUN "model: {base: b, dus: {m: 1}}\ndata: {seq_len: 8, train: [{files: t.h5}], valid: [{files: "
             "v.h5}]}\n" TRAIN "eval: {base: false}\n",
         false},
        {RUN "model: {base: b}\ndata: {seq_len: 8, train: [{files: t.h5}], valid: [{files: v.h5}]}\n" TRAIN,
         false},
        {RUN "model: {base: b, init: random, dus: {m: 1}}\n"
             "data: {seq_len: 8, train: [{files: t.h5}], valid: [{files: v.h5}]}\n" TRAIN,
         false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        config *c = parse(cases[i].text);
        assert_int_equal(c->eval.base, cases[i].base);
        config_free(c);
    }
}

static void layers_are_read_in_both_forms(void **state) {
    (void)state;
    static const char *const form[] = {"[0-23, 8-31]", "'0-23,8-31'", "'0-23 , 8-31'", "[ '0-23,8-31' ]"};
    for (size_t i = 0; i < COUNT(form); i++) {
        char text[512];
        snprintf(text, sizeof text, RUN "model: {base: b, dus: {layers: %s}}\n" DATA TRAIN, form[i]);
        config *c = parse(text);
        assert_true(c->model.has_dus && c->model.dus_m == -1);
        assert_string_equal(c->model.dus_layers, "0-23,8-31");
        config_free(c);
    }
    config *c = parse(RUN "model:\n  base: b\n  dus:\n    layers: 0-2,2,4-4,3\n" DATA TRAIN);
    assert_string_equal(c->model.dus_layers, "0-2,2,4,3");
    config_free(c);
}

static void new_layers_are_asked_for(void **state) {
    (void)state;
    static const struct {
        const char *dus;
        depth_ask ask;
    } cases[] = {
        {"{insert: {every: 4}}", {-1, NULL, 4, NULL, NULL}},
        {"{m: 8, insert: {after: [3, 7-8], init: copy}}", {8, NULL, -1, "3,7-8", "copy"}},
        {"{layers: [0-3 , 3z, '4-7,7z', 2-5c]}", {-1, "0-3,3z,4-7,7z,2-5c", -1, NULL, NULL}},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[512];
        snprintf(text, sizeof text,
                 RUN "model: {base: b, dus: %s}\n" DATA TRAIN "lr_scale: {old: 0, new: 2}\n", cases[i].dus);
        config *c = parse(text);
        char *dump = config_dump(c);
        depth_ask a = config_depth(c);
        const depth_ask *want = &cases[i].ask;
        assert_true(c->model.has_dus && a.m == want->m && a.every == want->every);
        assert_true(c->lr_scale.old == 0 && c->lr_scale.fresh == 2);
        assert_string_equal(a.layers ? a.layers : "-", want->layers ? want->layers : "-");
        assert_string_equal(a.after ? a.after : "-", want->after ? want->after : "-");
        assert_string_equal(a.init ? a.init : "-", want->init ? want->init : "-");
        config *again = parse(dump);
        char *twice = config_dump(again);
        assert_string_equal(dump, twice);
        free(dump), free(twice), config_free(c), config_free(again);
    }
}

static void sources_are_named_by_their_files(void **state) {
    (void)state;
    static const char *const name[][2] = {
        {"t.h5", "t"},         {"web/train.h5", "train"}, {"web/*.h5", "web"}, {"web/part-*.h5", "part"},
        {"a.b.h5", "a.b"},     {"x/data", "data"},        {"/*.h5", "data"},   {"[ab]/*.h5", "data"},
        {"w/[ab]*/*.h5", "w"}, {"web/", "web"},           {"s?.h5", "s"},      {".h5", "data"},
    };
    for (size_t i = 0; i < COUNT(name); i++) {
        char text[512];
        snprintf(text, sizeof text, RUN MODEL "data: {seq_len: 8, train: [{files: '%s'}]}\n" TRAIN,
                 name[i][0]);
        config *c = parse(text);
        assert_string_equal(c->data.train[0].name, name[i][1]);
        config_free(c);
    }
}

// dump, parse, dump: the text is the same.
static void check_round_trip(const char *text) {
    config *c = parse(text);
    char *first = config_dump(c);
    assert_non_null(first);
    config *again = parse(first);
    char *second = config_dump(again);
    assert_non_null(second);
    assert_string_equal(first, second);
    free(first);
    free(second);
    config_free(c);
    config_free(again);
}

static void dumps_read_back(void **state) {
    (void)state;
    static const char *const texts[] = {
        GOOD,
        example,
        RUN "model: {base: b, init: random, dus: {layers: [0-3, 2, 5]}}\n" DATA TRAIN
            "mesh: {pipeline: 2, layout: [3, 4]}\n",
        "run: {dir: 'a b: \"c\" #d\\e', seed: 9007199254740991}\n"
        "model: {base: '12'}\n"
        "data: {seq_len: 8, train: [{files: 'null', name: 'true'}, {files: \"\xc3\xa9*.h5\", weight: 0.1}], "
        "shuffle: false}\n" TRAIN,
        GOOD "optimizer: {lr: 0.30000000000000004, eps: 4.9e-324, betas: [0, 0.99999999999999989], "
             "clip_norm: 1e300}\n"
             "schedule: {kind: linear, min_lr: 1.2345678901234567e-9}\ntimeout: {start: 0, step: 1e15}\n",
        GOOD "schedule: {warmup: 2, steps: 8, phases: [{at: 3, lr: 1e-3, warmup: 1}, {at: 5, kind: cosine, "
             "min_lr: 1e-6, "
             "steps: 90}]}\n",
        RUN MODEL "data: {seq_len: 8, train: [{files: t.h5}, {files: u.h5, weight: 0}], blend: [{at: 1, "
                  "weights: [1, 0]}, "
                  "{at: 9007199254740991, weights: [0.1, 2e-9]}]}\n" TRAIN,
    };
    for (size_t i = 0; i < COUNT(texts); i++) check_round_trip(texts[i]);
}

// Every key of the schema stands in a dump, and exact values survive.
static void dumps_are_complete(void **state) {
    (void)state;
    config *c =
        parse(RUN MODEL "data: {seq_len: 8, train: [{files: t.h5}], valid: [{files: v.h5}], blend: [{at: 1, "
                        "weights: [1]}]}\n" TRAIN
                        "schedule: {phases: [{at: 1}]}\noptimizer: {lr: 0.30000000000000004}\n");
    char *text = config_dump(c), leaf[80];
    for (int i = 0; i < schema_keys; i++) {
        snprintf(leaf, sizeof leaf, "%s:", key_leaf(&schema[i]));
        assert_non_null(strstr(text, leaf));
    }
    config *again = parse(text);
    assert_true(again->optimizer.lr == 0.30000000000000004);
    free(text);
    config_free(c);
    config_free(again);
}

static void paths_become_absolute(void **state) {
    place_to_write *p = *state;
    char expected[256];
    assert_int_equal(mkdir("jobs", 0777) || mkdir("jobs/base", 0777) || mkdir("near", 0777), 0);
    write_text("jobs/base/config.json", "{}");
    write_text("jobs/t1.h5", "");
    write_text("near/v[1].h5", ""); // a name that is no pattern
    write_text("jobs/c.yaml", RUN
               "model: {base: base}\n"
               "data: {seq_len: 8, train: [{files: 't*.h5'}], valid: [{files: './near/v[1].h5'}]}\n" TRAIN);
    config *c = load("jobs/c.yaml", NULL, 0, true);
    snprintf(expected, sizeof expected, "%s/r", p->dir);
    assert_string_equal(c->run.dir, expected);
    snprintf(expected, sizeof expected, "%s/jobs/base", p->dir);
    assert_string_equal(c->model.base, expected);
    snprintf(expected, sizeof expected, "%s/jobs/t*.h5", p->dir);
    assert_string_equal(c->data.train[0].files, expected);
    snprintf(expected, sizeof expected, "%s/near/v[1].h5", p->dir);
    assert_string_equal(c->data.valid[0].files, expected);
    // From another directory the dump still finds everything.
    char *text = config_dump(c);
    write_text("near/resolved.yaml", text);
    assert_int_equal(chdir("near"), 0);
    config *again = load("resolved.yaml", NULL, 0, true);
    char *second = config_dump(again);
    assert_string_equal(text, second);
    assert_int_equal(chdir(p->dir), 0);
    free(text);
    free(second);
    config_free(c);
    config_free(again);
}

// ---- the schema

// Bytes of an item of the list that a key is in.
static size_t list_of(const key *k) {
    while (strchr(k->path, '[')) k--;
    return item_bytes(k->type);
}

static void schema_is_sound(void **state) {
    (void)state;
    for (int i = 0; i < schema_keys; i++) {
        const key *k = &schema[i];
        char expected[EXPECTED_BYTES];
        key_expected(expected, k);
        assert_true(strlen(k->path) < 48 && strlen(expected) > 0 && strlen(k->meaning) > 10);
        for (int j = 0; j < i; j++) assert_string_not_equal(k->path, schema[j].path);
        assert_false(schema_is_section(k->path));
        if (strchr(k->path, '['))
            assert_true(k->offset < list_of(k));
        else
            assert_true(k->offset < sizeof(config));
        bool number = k->type == KEY_INT || k->type == KEY_REAL || k->type == KEY_PAIR ||
                      k->type == KEY_INTS || k->type == KEY_REALS;
        assert_true(!number || (k->legal && (k->legal[0] == '[' || k->legal[0] == '(')));
    }
}

static void schema_is_printed(void **state) {
    (void)state;
    static const char *const format[] = {"text", "markdown"};
    for (int f = 0; f < 2; f++) {
        char *text = NULL;
        size_t bytes = 0;
        FILE *out = open_memstream(&text, &bytes);
        config_schema(out, format[f]);
        fclose(out);
        for (int i = 0; i < schema_keys; i++) assert_non_null(strstr(text, schema[i].path));
        assert_non_null(strstr(text, "required"));
        free(text);
    }
}

static void numbers_are_read_strictly(void **state) {
    (void)state;
    int64_t i;
    double d;
    assert_true(parse_int("-9223372036854775808", &i) == NUMBER_OK && i == INT64_MIN);
    assert_true(parse_int("9223372036854775808", &i) == NUMBER_RANGE);
    static const char *const no_int[] = {"", "-", "1e3", "1.0", " 1", "1 ", "0x1", "1_0", "01"};
    for (size_t k = 0; k < COUNT(no_int); k++) assert_true(parse_int(no_int[k], &i) == NUMBER_SYNTAX);
    static const char *const no_real[] = {"", ".", "e1", "1e", "1e+", "inf", "nan", "0x1p3", "1.0.0", "1,5"};
    for (size_t k = 0; k < COUNT(no_real); k++) assert_true(parse_real(no_real[k], &d) == NUMBER_SYNTAX);
    assert_true(parse_real("2.0e-5", &d) == NUMBER_OK && d == 2e-5);
    assert_true(parse_real("1e-5", &d) == NUMBER_OK && d == 1e-5);
    assert_true(parse_real(".5", &d) == NUMBER_OK && d == 0.5);
    assert_true(parse_real("-0", &d) == NUMBER_OK && d == 0);
    assert_true(parse_real("0e-999", &d) == NUMBER_OK && d == 0);
}

static void reals_are_written_to_read_back(void **state) {
    (void)state;
    static const double value[] = {
        0, 1, -2, 0.1, 1800, 2e-5, 1e15, 1e16, 1e300, 4.9e-324, 0.30000000000000004, 1.0 / 3};
    for (size_t k = 0; k < COUNT(value); k++) {
        char text[32];
        double d;
        format_real(text, value[k]);
        assert_non_null(strchr(text, '.'));
        assert_true(parse_real(text, &d) == NUMBER_OK && d == value[k]);
    }
}

static void texts_are_shown_safely(void **state) {
    (void)state;
    char shown[SHOWN_BYTES], longer[400];
    show_text(shown, "a\x1b[31m\n\"");
    assert_string_equal(shown, "\"a\\x1b[31m\\x0a\"\"");
    for (int start = 0; start < 4; start++) { // cut inside of a character or not
        memset(longer, 'x', (size_t)start);
        for (int i = 0; i < 100; i++) memcpy(longer + start + 3 * i, "\xe2\x82\xac", 3);
        longer[start + 300] = 0;
        show_text(shown, longer);
        assert_true(strlen(shown) < SHOWN_BYTES);
        const char *end = shown + strlen(shown);
        assert_string_equal(end - 4, "...\"");
        assert_memory_equal(end - 7, "\xe2\x82\xac", 3);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_yaml_is_named_and_placed),
        cmocka_unit_test_setup_teardown(bad_sets_are_named, enter, leave),
        cmocka_unit_test_setup_teardown(sets_change_keys, enter, leave),
        cmocka_unit_test_setup_teardown(missing_files_are_placed, enter, leave),
        cmocka_unit_test_setup_teardown(unreadable_configs, enter, leave),
        cmocka_unit_test(bombs),
        cmocka_unit_test(the_example_is_read),
        cmocka_unit_test(defaults),
        cmocka_unit_test(the_base_is_measured_where_it_can_be),
        cmocka_unit_test(layers_are_read_in_both_forms),
        cmocka_unit_test(sources_are_named_by_their_files),
        cmocka_unit_test(new_layers_are_asked_for),
        cmocka_unit_test(dumps_read_back),
        cmocka_unit_test(dumps_are_complete),
        cmocka_unit_test_setup_teardown(paths_become_absolute, enter, leave),
        cmocka_unit_test(schema_is_sound),
        cmocka_unit_test(schema_is_printed),
        cmocka_unit_test(numbers_are_read_strictly),
        cmocka_unit_test(reals_are_written_to_read_back),
        cmocka_unit_test(texts_are_shown_safely),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
