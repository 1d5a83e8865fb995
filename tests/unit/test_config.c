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

#include "config.h"
#include "fsutil.h"
#include "scalar.h"
#include "schema.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

// The four lines that a config needs; cases leave one out or add lines behind them.
#define RUN   "run: {dir: r}\n"
#define MODEL "model: {base: b}\n"
#define DATA  "data: {seq_len: 8, train: [{files: t.h5}]}\n"
#define TRAIN "train: {global_batch: 4, steps: 10}\n"
#define GOOD  RUN MODEL DATA TRAIN

typedef struct bad_case {
    const char *text;
    const char *message; // begins the error, which names the file "c.yaml"
    const char *also;    // stands somewhere in it
} bad_case;

static const bad_case bad_yaml[] = {
    // YAML itself
    {"", "c.yaml:1:1: found an empty file, expected a config", "--schema"},
    {"# nothing\n", "c.yaml:1:1: found an empty file", ""},
    {"--- # nothing\n", "c.yaml:2:1: found no value, expected a map of sections", ""},
    {"hello\n", "c.yaml:1:1: found text \"hello\", expected a map of sections", ""},
    {"- run\n", "c.yaml:1:1: found a list, expected a map of sections", ""},
    {"42\n", "c.yaml:1:1: found integer 42, expected a map of sections", ""},
    {"run: {dir: r\n", "c.yaml:2:1: found broken YAML", "flow mapping"},
    {"run: [dir\n", "c.yaml:2:1: found broken YAML", "flow sequence"},
    {"run:\n\tdir: r\n", "c.yaml:2:1: found broken YAML", "indent with spaces"},
    {"run:\n  dir: \"r\n", "c.yaml:3:1: found broken YAML", "quoted scalar"},
    {"run: {dir: @r}\n", "c.yaml:1:12: found broken YAML", "in quotes"},
    {"run: {dir: *.h5}\n", "c.yaml:1:13: found broken YAML", "* or & in quotes"},
    {"run:\n  dir: r\n seed: 1\n", "c.yaml:3:2: found broken YAML", ""},
    {"run: {dir: r}\nrun: {dir: s}\n", "c.yaml:2:1: found key \"run\" again (first in line 1)", ""},
    {"run: {dir: r, seed: 1, dir: s}\n", "c.yaml:1:24: found key \"dir\" again", ""},
    {"run: &a {dir: r}\n", "c.yaml:1:6: found an anchor", "write the value out"},
    {"run: {dir: r}\nmodel: *a\n", "c.yaml:2:8: found an alias", ""},
    {"run: {dir: !!str r}\n", "c.yaml:1:12: found a tag", ""},
    {"run:\n  <<: {dir: r}\n", "c.yaml:2:3: found a merge key", ""},
    {"? [a, b]\n: 1\n", "c.yaml:1:3: found a key that is not text", ""},
    {GOOD "---\n" GOOD, "c.yaml:5:1: found a second YAML document", ""},
    {"run: {dir: \"a\\0b\"}\n", "c.yaml:1:12: found text with a NUL byte", ""},
    {"run: {dir: \xff}\n", "c.yaml:1:12: found bytes that are not UTF-8", ""},
    {"\xff\xfe"
     "r",
     "c.yaml:1:1: found bytes that are not UTF-8", ""},
    {"\xc3\xa9: 1\n\xc3: 2\n", "c.yaml:2:2: found bytes that are not UTF-8", ""},
    // unknown keys
    {GOOD "trian: {steps: 1}\n", "c.yaml:5:1: found unknown key \"trian\" in the config",
     "did you mean train?"},
    {GOOD "schedule: {warmpu: 1}\n", "c.yaml:5:12: found unknown key \"warmpu\" in schedule",
     "did you mean schedule.warmup?"},
    {GOOD "optimizer:\n  kind: adamw\n  learning_rate: 1\n",
     "c.yaml:7:3: found unknown key \"learning_rate\"",
     "expected one of kind, lr, betas, eps, weight_decay, clip_norm"},
    {GOOD "checkpoint: {lr: 1}\n", "c.yaml:5:14: found unknown key \"lr\" in checkpoint",
     "did you mean optimizer.lr?"},
    {RUN MODEL "data: {seq_len: 8, train: [{file: t.h5}]}\n" TRAIN,
     "c.yaml:3:29: found unknown key \"file\" in data.train[]", "did you mean data.train[].files?"},
    {RUN MODEL "data: {seq_len: 8, train: [{files: t.h5, samples: 3}]}\n" TRAIN,
     "c.yaml:3:42: found unknown key \"samples\" in data.train[]", "expected one of files, name, weight"},
    {GOOD "? ''\n: 1\n", "c.yaml:5:3: found unknown key \"\"", ""},
    {RUN "model: {base: b, dus: {n: 8}}\n" DATA TRAIN, "c.yaml:2:24: found unknown key \"n\" in model.dus",
     "expected one of m, layers, insert"},
    {RUN "model: {base: b, dus: {insert: {}}}\n" DATA TRAIN,
     "c.yaml:2:32: model.dus.insert: found neither every nor after", ""},
    {RUN "model: {base: b, dus: {m: 1, insert: {init: copy}}}\n" DATA TRAIN,
     "c.yaml:2:38: model.dus.insert: found neither every nor after", ""},
    {RUN "model: {base: b, dus: {insert: {every: 2, after: [1]}}}\n" DATA TRAIN,
     "c.yaml:2:50: model.dus.insert: found both every and after", ""},
    {RUN "model: {base: b, dus: {insert: {every: 0}}}\n" DATA TRAIN,
     "c.yaml:2:40: model.dus.insert.every: found integer 0", ""},
    {RUN "model: {base: b, dus: {insert: {after: [1z]}}}\n" DATA TRAIN,
     "c.yaml:2:41: model.dus.insert.after: found text \"1z\"", "such as [7, 15]"},
    {RUN "model: {base: b, dus: {insert: {every: 1, init: zeros}}}\n" DATA TRAIN,
     "c.yaml:2:49: model.dus.insert.init: found text \"zeros\"", "one of zero_out, copy"},
    {RUN "model: {base: b, dus: {layers: [0zz]}}\n" DATA TRAIN, "c.yaml:2:33: model.dus.layers:", ""},
    {GOOD "lr_scale: {old: 0}\n", "c.yaml:5:17: lr_scale.old: found 0 without new layers",
     "model.dus.insert makes some"},
    {RUN "model: {base: b, dus: {m: 1}}\n" DATA TRAIN "lr_scale: {new: 2}\n",
     "c.yaml:5:17: lr_scale.new: found 2 without new layers", ""},
    // shapes
    {"run: r\n" MODEL DATA TRAIN, "c.yaml:1:6: run: found text \"r\", expected a map of keys", ""},
    {"run:\n" MODEL DATA TRAIN, "c.yaml:1:5: run: found no value, expected a map of keys", ""},
    {"run: [dir]\n" MODEL DATA TRAIN, "c.yaml:1:6: run: found a list, expected a map of keys", ""},
    {"run: {dir: [r]}\n" MODEL DATA TRAIN, "c.yaml:1:12: run.dir: found a list, expected path", ""},
    {"run: {dir: {a: b}}\n" MODEL DATA TRAIN, "c.yaml:1:12: run.dir: found a map, expected path", ""},
    {RUN MODEL "data: {seq_len: 8, train: t.h5}\n" TRAIN,
     "c.yaml:3:27: data.train: found text \"t.h5\", expected a list", ""},
    {RUN MODEL "data: {seq_len: 8, train: {files: t.h5}}\n" TRAIN, "c.yaml:3:27: data.train: found a map",
     "a list of maps, even of one"},
    {RUN MODEL "data: {seq_len: 8, train: [t.h5]}\n" TRAIN, "c.yaml:3:28: data.train: found text \"t.h5\"",
     "expected a map such as {files: web/*.h5}"},
    {RUN MODEL "data: {seq_len: 8, train: []}\n" TRAIN, "c.yaml:3:27: data.train: found an empty list", ""},
    {RUN MODEL "data: {seq_len: [8], train: [{files: t.h5}]}\n" TRAIN,
     "c.yaml:3:17: data.seq_len: found a list, expected integer from 1 to 16777216", ""},
    // types
    {RUN MODEL DATA "train: {global_batch: 4, steps: abc}\n",
     "c.yaml:4:33: train.steps: found text \"abc\", expected integer from 1 to 1000000000", ""},
    {RUN MODEL DATA "train: {global_batch: 4, steps: \"10\"}\n",
     "c.yaml:4:33: train.steps: found text \"10\"", "without quotes"},
    {RUN MODEL DATA "train: {global_batch: 4, steps: 1e3}\n", "c.yaml:4:33: train.steps: found real 1e3",
     "(write 1000)"},
    {RUN MODEL DATA "train: {global_batch: 4, steps: 10.5}\n", "c.yaml:4:33: train.steps: found real 10.5",
     "integer"},
    {RUN MODEL DATA "train: {global_batch: 4, steps: 1_000}\n",
     "c.yaml:4:33: train.steps: found text \"1_000\"", ""},
    {RUN MODEL DATA "train: {global_batch: 4, steps: 0x10}\n",
     "c.yaml:4:33: train.steps: found text \"0x10\"", ""},
    {RUN MODEL DATA "train: {global_batch: 4, steps: 010}\n", "c.yaml:4:33: train.steps: found integer 010",
     "(write 10)"},
    {RUN MODEL DATA "train: {global_batch: 4, steps: 99999999999999999999}\n",
     "c.yaml:4:33: train.steps: found integer 9999", "beyond what can be stored"},
    {RUN MODEL DATA "train: {global_batch: 4, steps: true}\n", "c.yaml:4:33: train.steps: found boolean true",
     ""},
    {RUN MODEL DATA "train: {global_batch: 4, steps: null}\n", "c.yaml:4:33: train.steps: found null", ""},
    {RUN MODEL DATA "train: {global_batch: 4, steps: }\n", "c.yaml:4:33: train.steps: found no value", ""},
    {GOOD "optimizer: {lr: fast}\n",
     "c.yaml:5:17: optimizer.lr: found text \"fast\", expected number > 0 and <= 10", ""},
    {GOOD "optimizer: {lr: .inf}\n", "c.yaml:5:17: optimizer.lr: found text \".inf\"", ""},
    {GOOD "optimizer: {lr: nan}\n", "c.yaml:5:17: optimizer.lr: found text \"nan\"", ""},
    {GOOD "optimizer: {lr: 1e400}\n", "c.yaml:5:17: optimizer.lr: found real 1e400",
     "beyond what can be stored"},
    {GOOD "optimizer: {lr: 1e-400}\n", "c.yaml:5:17: optimizer.lr: found real 1e-400",
     "beyond what can be stored"},
    {GOOD "optimizer: {lr: '1e-5'}\n", "c.yaml:5:17: optimizer.lr: found text \"1e-5\"", "without quotes"},
    {GOOD "optimizer: {lr: 2e}\n", "c.yaml:5:17: optimizer.lr: found text \"2e\"", ""},
    {GOOD "optimizer: {betas: 0.9}\n", "c.yaml:5:20: optimizer.betas: found real 0.9, expected two numbers",
     ""},
    {GOOD "optimizer: {betas: [0.9]}\n", "c.yaml:5:20: optimizer.betas: found a list, expected two numbers",
     ""},
    {GOOD "optimizer: {betas: [0.9, 0.95, 0.99]}\n", "c.yaml:5:20: optimizer.betas: found a list", ""},
    {GOOD "optimizer: {betas: [0.9, x]}\n", "c.yaml:5:26: optimizer.betas: found text \"x\"", ""},
    {GOOD "eval: {stop_when_recovered: yes}\n", "c.yaml:5:29: eval.stop_when_recovered: found text \"yes\"",
     "(write true)"},
    {GOOD "eval: {stop_when_recovered: Off}\n", "c.yaml:5:29: eval.stop_when_recovered: found text \"Off\"",
     "(write false)"},
    {GOOD "eval: {base: 1}\n", "c.yaml:5:14: eval.base: found integer 1, expected true or false",
     "(write true)"},
    {"run: {dir: 12}\n" MODEL DATA TRAIN, "c.yaml:1:12: run.dir: found integer 12, expected path",
     "put it in quotes"},
    {"run: {dir: true}\n" MODEL DATA TRAIN, "c.yaml:1:12: run.dir: found boolean true", "put it in quotes"},
    {"run: {dir: ''}\n" MODEL DATA TRAIN, "c.yaml:1:12: run.dir: found text \"\"", "not empty"},
    {"run: {dir: \"a\\nb\"}\n" MODEL DATA TRAIN, "c.yaml:1:12: run.dir: found text \"a\\x0ab\"",
     "without control"},
    {"run: {dir: \"a\\u2028b\"}\n" MODEL DATA TRAIN, "c.yaml:1:12: run.dir:", "without control"},
    {"run: {dir: ~}\n" MODEL DATA TRAIN, "c.yaml:1:12: run.dir: found null", ""},
    {GOOD "schedule: {kind: cosin}\n",
     "c.yaml:5:18: schedule.kind: found text \"cosin\", expected one of wsd, cosine", "did you mean cosine?"},
    {GOOD "optimizer: {kind: sgd}\n", "c.yaml:5:19: optimizer.kind: found text \"sgd\", expected adamw", ""},
    {RUN MODEL DATA "train: {global_batch: 4, steps: 10, precision: fp16}\n",
     "c.yaml:4:48: train.precision: found text \"fp16\", expected one of fp32, bf16", "did you mean"},
    {RUN "model: {base: b, init: [random]}\n" DATA TRAIN, "c.yaml:2:24: model.init: found a list", ""},
    {GOOD "mesh: {layout: []}\n", "c.yaml:5:16: mesh.layout: found a list", ""},
    {GOOD "mesh: {layout: [1, x]}\n", "c.yaml:5:20: mesh.layout: found text \"x\"", ""},
    // ranges
    {RUN MODEL DATA "train: {global_batch: 0, steps: 10}\n",
     "c.yaml:4:23: train.global_batch: found integer 0, expected integer from 1 to 16777216", ""},
    {RUN MODEL DATA "train: {global_batch: -4, steps: 10}\n",
     "c.yaml:4:23: train.global_batch: found integer -4", ""},
    {"run: {dir: r, seed: -1}\n" MODEL DATA TRAIN,
     "c.yaml:1:21: run.seed: found integer -1, expected integer from 0", ""},
    {"run: {dir: r, seed: 9007199254740992}\n" MODEL DATA TRAIN,
     "c.yaml:1:21: run.seed: found integer 9007199254740992", ""},
    {GOOD "optimizer: {lr: 0}\n", "c.yaml:5:17: optimizer.lr: found integer 0, expected number > 0", ""},
    {GOOD "optimizer: {betas: [0.9, 1.0]}\n", "c.yaml:5:26: optimizer.betas: found real 1.0", "< 1"},
    {GOOD "checkpoint: {keep: -1}\n", "c.yaml:5:20: checkpoint.keep: found integer -1", ""},
    {RUN "model: {base: b, dus: {m: -1}}\n" DATA TRAIN, "c.yaml:2:27: model.dus.m: found integer -1", ""},
    {RUN MODEL "data: {seq_len: 8, train: [{files: t.h5, weight: -1}]}\n" TRAIN,
     "c.yaml:3:50: data.train[].weight: found integer -1, expected number >= 0", ""},
    {RUN MODEL "data: {seq_len: 8, train: [{files: t.h5, weight: 0}]}\n" TRAIN,
     "c.yaml:3:27: data.train: found weights with a sum of 0", ""},
    {RUN MODEL "data: {seq_len: 8, train: [{files: t.h5}, {files: u.h5, weight: 0}]}\n" TRAIN,
     "c.yaml:3:43: data.train[1].weight: found 0 in every blend", "never used"},
    {RUN MODEL "data: {seq_len: 8, train: [{files: t.h5}], blend: [{at: 5}]}\n" TRAIN,
     "c.yaml:3:52: data.blend[].weights: found no such key", "list of numbers, each >= 0"},
    {RUN MODEL "data: {seq_len: 8, train: [{files: t.h5}], blend: [{at: 5, weights: [1, 1]}]}\n" TRAIN,
     "c.yaml:3:52: data.blend[0].weights: found 2, expected one for each of the 1 sources", ""},
    {RUN MODEL "data: {seq_len: 8, train: [{files: t.h5}], blend: [{at: 5, weights: [0]}]}\n" TRAIN,
     "c.yaml:3:52: data.blend[0].weights: found a sum of 0", ""},
    {RUN MODEL "data: {seq_len: 8, train: [{files: t.h5}], blend: [{at: 5, weights: [x]}]}\n" TRAIN,
     "c.yaml:3:70: data.blend[].weights: found text \"x\"", ""},
    {RUN MODEL "data: {seq_len: 8, train: [{files: t.h5}], blend: [{at: 5, weights: [1]}, {at: 5, weights: "
               "[1]}]}\n" TRAIN,
     "c.yaml:3:75: data.blend[1].at: found 5, expected more than 5", ""},
    {RUN MODEL "data: {seq_len: 8, train: [{files: t.h5}], blend: [5]}\n" TRAIN,
     "c.yaml:3:52: data.blend: found integer 5", "expected a map such as {at: 1000000, weights"},
    {GOOD "schedule: {phases: [{at: 10}]}\n",
     "c.yaml:5:26: schedule.phases[0].at: found 10, expected more than 0 and less than train.steps, which is "
     "10",
     ""},
    {GOOD "schedule: {phases: [{at: 3}, {at: 3}]}\n",
     "c.yaml:5:35: schedule.phases[1].at: found 3, expected more than 3", ""},
    {GOOD "schedule: {warmup: 4, phases: [{at: 3}]}\n",
     "c.yaml:5:20: schedule: found warmup 4 + decay 0 = 4 steps",
     "the distance to the next phase or the end, which is 3"},
    {GOOD "schedule: {phases: [{at: 3, warmup: 4, decay: 4}]}\n",
     "c.yaml:5:47: schedule.phases[0]: found warmup 4 + decay 4 = 8 steps", "which is 7"},
    {GOOD "schedule: {phases: [{at: 3, kind: linear, decay: 4}]}\n",
     "c.yaml:5:50: schedule.phases[0].decay: found 4 with schedule.phases[0].kind linear", ""},
    {GOOD "schedule: {phases: [{at: 3, min_lr: 1e-3}]}\n",
     "c.yaml:5:37: schedule.phases[0].min_lr: found 0.001, expected at most lr, which is 2e-05", ""},
    {GOOD "schedule: {phases: [{lr: 1}]}\n", "c.yaml:5:21: schedule.phases[].at: found no such key", ""},
    {GOOD "mesh: {layout: [1, 0]}\n", "c.yaml:5:20: mesh.layout: found integer 0", ""},
    // required keys: the place is the map that should hold them
    {MODEL DATA TRAIN, "c.yaml:1:1: run.dir: found no such key", "required"},
    {"run: {seed: 1}\n" MODEL DATA TRAIN, "c.yaml:1:6: run.dir: found no such key, expected path", ""},
    {RUN "model: {init: random}\n" DATA TRAIN, "c.yaml:2:8: model.base: found no such key", ""},
    {RUN MODEL "data: {train: [{files: t.h5}]}\n" TRAIN, "c.yaml:3:7: data.seq_len: found no such key", ""},
    {RUN MODEL "data: {seq_len: 8}\n" TRAIN, "c.yaml:3:7: data.train: found no such key", ""},
    {RUN MODEL "data:\n  seq_len: 8\n  train:\n    - {weight: 1.0}\n" TRAIN,
     "c.yaml:6:7: data.train[].files: found no such key", ""},
    {RUN MODEL DATA "train: {steps: 10}\n", "c.yaml:4:8: train.global_batch: found no such key", "Sequences"},
    {RUN MODEL DATA "train: {global_batch: 4}\n", "c.yaml:4:8: train.steps: found no such key", ""},
    // depth
    {RUN "model: {base: b, dus: {}}\n" DATA TRAIN, "c.yaml:2:23: model.dus: found an empty map",
     "m, layers or insert"},
    {RUN "model: {base: b, dus: {m: 1, layers: [0-3]}}\n" DATA TRAIN,
     "c.yaml:2:38: model.dus: found both m and layers", ""},
    {RUN "model: {base: b, dus: 8}\n" DATA TRAIN, "c.yaml:2:23: model.dus: found integer 8, expected a map",
     ""},
    {RUN "model: {base: b, dus: {layers: [3-1]}}\n" DATA TRAIN,
     "c.yaml:2:33: model.dus.layers: found text \"3-1\"", "first <= last"},
    {RUN "model: {base: b, dus: {layers: [0-3, a]}}\n" DATA TRAIN,
     "c.yaml:2:38: model.dus.layers: found text \"a\"", ""},
    {RUN "model: {base: b, dus: {layers: 0..3}}\n" DATA TRAIN,
     "c.yaml:2:32: model.dus.layers: found text \"0..3\"", ""},
    {RUN "model: {base: b, dus: {layers: \"0-3,\"}}\n" DATA TRAIN, "c.yaml:2:32: model.dus.layers:", ""},
    {RUN "model: {base: b, dus: {layers: []}}\n" DATA TRAIN, "c.yaml:2:32: model.dus.layers: found a list",
     ""},
    {RUN "model: {base: b, dus: {layers: [[0]]}}\n" DATA TRAIN, "c.yaml:2:33: model.dus.layers: found a list",
     ""},
    {RUN "model: {base: b, dus: {layers: [-1]}}\n" DATA TRAIN,
     "c.yaml:2:33: model.dus.layers: found integer -1", ""},
    {RUN "model: {base: b, dus: {layers: [0-99999999999999999999]}}\n" DATA TRAIN,
     "c.yaml:2:33: model.dus.layers:", ""},
    // keys against each other
    {RUN MODEL DATA "train: {global_batch: 4, micro_batch: 3, steps: 10}\n",
     "c.yaml:4:39: train.micro_batch: found 3, expected a divisor of train.global_batch, which is 4", ""},
    {RUN MODEL "data: {seq_len: 16777216, train: [{files: t.h5}]}\ntrain: {global_batch: 16777216, steps: "
               "1000000000}\n",
     "c.yaml:4:40: train.steps: found steps x global_batch x seq_len", ""},
    {GOOD "schedule: {warmup: 6, decay: 5}\n", "c.yaml:5:30: schedule: found warmup 6 + decay 5 = 11 steps",
     "train.steps, which is 10"},
    {GOOD "schedule: {kind: cosine, warmup: 11}\n", "c.yaml:5:34: schedule: found warmup 11", ""},
    {GOOD "schedule: {kind: cosine, decay: 5}\n",
     "c.yaml:5:33: schedule.decay: found 5 with schedule.kind cosine", "only wsd uses it"},
    {GOOD "schedule: {kind: constant, min_lr: 1e-6}\n", "c.yaml:5:36: schedule.min_lr: found 1e-06",
     "constant"},
    {GOOD "schedule: {min_lr: 1.0}\n", "c.yaml:5:20: schedule.min_lr: found 1, expected at most optimizer.lr",
     "2e-05"},
    {GOOD "mesh: {pipeline: 2, layout: [1, 2, 3]}\n", "c.yaml:5:29: mesh.layout: found 3 numbers",
     "mesh.pipeline"},
    {GOOD "eval: {base: true}\n", "c.yaml:5:14: eval.base: found true without model.dus", ""},
    {RUN "model: {base: b, dus: {m: 1}}\n" DATA TRAIN "eval: {base: true}\n",
     "c.yaml:5:14: eval.base: found true without data.valid", ""},
    {RUN "model: {base: b, init: random}\n" DATA TRAIN "eval: {base: true}\n",
     "c.yaml:5:14: eval.base: found true with model.init random", ""},
    {GOOD "eval: {stop_when_recovered: true}\n", "c.yaml:5:29: eval.stop_when_recovered: found true",
     "without model.dus"},
    {RUN MODEL "data:\n  seq_len: 8\n  train:\n    - files: a/t.h5\n    - files: b/t.h5\n" TRAIN,
     "c.yaml:7:7: data.train: found two sources named \"t\" (number 1 and 2)", "give `name`"},
};

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
