// Hostile files: mutations of good ones, read as the program reads them. Each must be read or be an error
// that says something; a crash, a report of a sanitizer, a lost file descriptor or a case that takes seconds
// is a finding. usage: mutate TARGET SECONDS SEED DIR SAMPLE...     cases of TARGET, made in DIR from the
// samples, for so long
//        mutate TARGET --one DIR FILE                 one case, as DIR/FILE holds it
// The same seed and samples give the same cases. The case at work is in DIR until the next one replaces it.
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "checkpoint.h"
#include "config.h"
#include "fsutil.h"
#include "inspect.h"
#include "log.h"
#include "manifest.h"
#include "model_dir.h"
#include "text_input.h"
#include "tokenizer.h"
#include "tokens.h"

enum { MOST_BYTES = 1 << 20, SLOW_SECONDS = 20 };

static void die(const char *what) {
    fprintf(stderr, "mutate: %s: %s\n", what, strerror(errno));
    exit(2);
}

// ---- random numbers (splitmix64, https://prng.di.unimi.it/splitmix64.c)

static uint64_t next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}
static size_t below(uint64_t *state, size_t n) { return n ? (size_t)(next(state) % n) : 0; }

// ---- mutations

typedef struct bytes {
    unsigned char *at;
    size_t count;
} bytes;

// Replaces `cut` bytes at `where` by `put`; too long a result is left as it was.
static void splice(bytes *b, size_t where, size_t cut, const void *put, size_t count) {
    if (b->count - cut + count > MOST_BYTES) return;
    memmove(b->at + where + count, b->at + where + cut, b->count - where - cut);
    if (count) memcpy(b->at + where, put, count);
    b->count += count - cut;
}

static const char *const numbers[] = {
    "0",
    "-1",
    "1",
    "2",
    "7",
    "255",
    "65536",
    "1e9",
    "-0",
    "2147483647",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "1e308",
    "1e-320",
    "18446744073709551616",
    "0.5",
    "NaN",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "[0]",
    "1e999",
};
static const char *const words[] = {
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\n",
    "\t",
    " ",
    "\\u0000",
    "\\ud800",
    "\xff",
    "\xc0\x80",
    "\xed\xa0\x80",
    "- ",
    "? ",
    "&a ",
    "*a",
    "!!str ",
    "<<: ",
    "| \n",
    "# ",
    "---\n",
    "...\n",
    "\"dtype\"",
    "\"shape\"",
    "\"data_offsets\"",
    "\"F32\"",
    "\"__metadata__\"",
    "/",
    "..",
    "%s%n",
    "~",
    "*",
    "{\"a\":",
    "[[[[[[[[",
};

static void replace_number(bytes *b, uint64_t *r) {
    size_t from = below(r, b->count), to;
    while (from < b->count && (b->at[from] < '0' || b->at[from] > '9')) from++;
    for (to = from; to < b->count && b->at[to] >= '0' && b->at[to] <= '9';) to++;
    const char *put = numbers[below(r, sizeof numbers / sizeof *numbers)];
    splice(b, from, to - from, put, strlen(put));
}

static void overwrite_integer(bytes *b, uint64_t *r) {
    static const uint64_t edge[] = {0,      1,          0x7f,       0x80,      0xff,      0x7fff,
                                    0xffff, 0x7fffffff, 0xffffffff, INT64_MAX, UINT64_MAX};
    size_t width = (size_t)1 << below(r, 4);
    if (b->count < width) return;
    uint64_t v = edge[below(r, sizeof edge / sizeof *edge)] + below(r, 3) - 1;
    memcpy(b->at + below(r, b->count - width + 1), &v, width);
}

// A run of bytes taken out, doubled, or moved elsewhere.
static void move_run(bytes *b, uint64_t *r) {
    size_t from = below(r, b->count), n = 1 + below(r, b->count - from < 64 ? b->count - from : 64);
    unsigned char run[64];
    if (b->count == 0) return;
    memcpy(run, b->at + from, n);
    size_t kind = below(r, 3);
    if (kind != 1) splice(b, from, n, NULL, 0);
    if (kind != 0) splice(b, below(r, b->count + 1), 0, run, n);
}

static void mutate_once(bytes *b, uint64_t *r) {
    const char *word = words[below(r, sizeof words / sizeof *words)];
    switch (below(r, 8)) {
    case 0:
        if (b->count) b->at[below(r, b->count)] ^= (unsigned char)(1U << below(r, 8));
        break;
    case 1:
        if (b->count) b->at[below(r, b->count)] = (unsigned char)next(r);
        break;
    case 2: splice(b, below(r, b->count + 1), 0, word, strlen(word)); break;
    case 3: overwrite_integer(b, r); break;
    case 4:
        if (below(r, 8) == 0) b->count = below(r, b->count + 1);
        break;
    case 5: move_run(b, r); break;
    default: replace_number(b, r); break;
    }
}

static void mutate(bytes *b, uint64_t *r) {
    for (size_t n = 1 + below(r, 4); n > 0; n--) mutate_once(b, r);
}

// ---- targets. Each reads DIR/file and gives back the error.

static err *read_tensors(const st_set *s) {
    err *e = NULL;
    char byte[64];
    for (int i = 0; i < st_count(s) && !e; i++) {
        const st_tensor *t = st_at(s, i);
        e = st_read(s, t, 0, byte, t->bytes < sizeof byte ? t->bytes : sizeof byte);
    }
    return e;
}

static err *try_safetensors(const char *path) {
    err *e = NULL;
    st_set *s = NULL;
    TRY(st_open(path, &s));
    TRY(read_tensors(s));
done:
    st_close(s);
    return e;
}

// The directory of the file as a model, with all that is said of it, deepened.
static err *try_model(const char *path) {
    err *e = NULL;
    char *dir = strdup(path), *slash = strrchr(dir, '/');
    model_dir m = {0};
    depth_plan *plan = NULL;
    model_spec *deep = NULL;
    table *t = NULL;
    json_t *said = NULL;
    *slash = 0;
    e = inspect(dir, &(inspect_options){.tensors = true}, &said);
    json_decref(said);
    if (e) goto done;
    TRY(model_dir_open(dir, &m));
    TRY(depth_from_m((int)m.spec->layers, (int)m.spec->layers / 2, &plan));
    TRY(spec_deepen(m.spec, plan, &deep));
    TRY(table_make(deep, plan, NULL, &t));
    TRY(table_check_files(t, m.files, true));
done:
    table_free(t);
    spec_free(deep);
    depth_free(plan);
    model_dir_close(&m);
    free(dir);
    return e;
}

// A config that is read is written and read again, to the same text.
static err *try_config(const char *path) {
    err *e = NULL;
    config *c = NULL, *again = NULL;
    char *text = NULL, *twice = NULL;
    TRY(config_load(path, NULL, 0, false, &c));
    text = config_dump(c);
    TRY(err_wrap(config_parse(text, "the resolved config", &again), "written config cannot be read"));
    twice = config_dump(again);
    if (strcmp(text, twice) != 0) {
        fprintf(stderr, "mutate: config_dump differs from itself:\n%s\n---\n%s", text, twice);
        abort();
    }
done:
    config_free(c);
    config_free(again);
    free(text);
    free(twice);
    return e;
}

static err *try_tokens(const char *path) {
    enum { STEP = 1024, STEPS = 64 };
    err *e = NULL;
    tokens_file *f = NULL;
    int32_t id[STEP];
    uint64_t start[STEP];
    TRY(tokens_open(path, &f));
    const tokens_info *info = tokens_get_info(f);
    for (uint64_t at = 0, i = 0; at < info->tokens && i < STEPS; at += STEP, i++)
        TRY(tokens_read(f, at, info->tokens - at < STEP ? info->tokens - at : STEP, id));
    for (uint64_t at = 0, i = 0; at < info->documents && i < STEPS; at += STEP, i++)
        TRY(tokens_documents(f, at, info->documents - at < STEP ? info->documents - at : STEP, start));
done:
    tokens_close(f);
    return e;
}

static err *try_tokenizer(const char *path) {
    static const char text[] = "The quick brown fox, 1234 \xe2\x82\xac \xff  end";
    err *e = NULL;
    tokenizer *t = NULL;
    ids v = {0};
    char *back = NULL;
    TRY(tokenizer_open(path, &t));
    TRY(tokenizer_encode(t, text, sizeof text - 1, &v));
    TRY(tokenizer_decode(t, v.id, v.count, &back));
done:
    free(back);
    ids_free(&v);
    tokenizer_close(t);
    return e;
}

static err *read_text(const char *path, bool strict) {
    err *e = NULL;
    text_input *in = NULL;
    text_options o = {.strict = strict};
    bool end = false;
    TRY(text_open(&path, 1, &o, &in));
    while (!end) {
        const char *text;
        size_t n;
        TRY(text_next(in, &text, &n, &end));
        if (!end && text[n] != 0) abort();
    }
done:
    text_close(in);
    return e;
}

static err *try_text(const char *path) {
    err_free(read_text(path, true));
    return read_text(path, false);
}

static char *parent(const char *path) {
    char *dir = strdup(path);
    *strrchr(dir, '/') = 0;
    return dir;
}

// A manifest that is damaged but for its own checksum, which anybody can make.
static err *try_manifest(const char *path) {
    err *e = NULL;
    char *solar = parent(path), *dir = parent(solar), *sum_path = path_join(solar, "manifest.xxh3"),
         *text = NULL;
    size_t n;
    manifest *m = NULL;
    TRY(read_file(path, MOST_BYTES + 1, &text, &n));
    XXH128_hash_t h = XXH3_128bits(text, n);
    FILE *f = fopen(sum_path, "w");
    if (!f ||
        fprintf(f, "%016llx%016llx\n", (unsigned long long)h.high64, (unsigned long long)h.low64) != 33 ||
        fclose(f))
        die(sum_path);
    TRY(manifest_open(dir, &m));
    TRY(manifest_check(m, CHECK_PAPERS | CHECK_TENSORS, 0, 1, 1, NULL));
done:
    manifest_close(m);
    free(text);
    free(sum_path);
    free(dir);
    free(solar);
    return e;
}

static err *try_state(const char *path) {
    char *solar = parent(path), *dir = parent(solar);
    run_state s = {0};
    err *e = checkpoint_state(dir, &s);
    run_state_free(&s);
    free(dir);
    free(solar);
    return e;
}

static err *try_layers(const char *path) {
    err *e = NULL;
    char *text = NULL;
    size_t n;
    depth_plan *plan = NULL;
    TRY(read_file(path, MOST_BYTES + 1, &text, &n));
    TRY(depth_from_ranges(32, text, &plan));
done:
    depth_free(plan);
    free(text);
    return e;
}

typedef struct target {
    const char *name, *file; // made as DIR/file
    err *(*read)(const char *path);
    bool header; // of safetensors: the text is mutated, and its length in front mostly made right
} target;

static const target targets[] = {
    {"safetensors", "x.safetensors", try_safetensors, true},
    {"model", "model.safetensors", try_model, true},
    {"index", "model.safetensors.index.json", try_model, false},
    {"config.json", "config.json", try_model, false},
    {"yaml", "x.yaml", try_config, false},
    {"tokens", "x.h5", try_tokens, false},
    {"tokenizer", "x.model", try_tokenizer, false},
    {"jsonl", "x.jsonl", try_text, false},
    {"gz", "x.jsonl.gz", try_text, false},
    {"zst", "x.jsonl.zst", try_text, false},
    {"manifest", "solar/manifest.json", try_manifest, false},
    {"state", "solar/state.json", try_state, false},
    {"layers", "x.txt", try_layers, false},
};

// ---- the loop

static bytes load(const char *path) {
    err *e = NULL;
    char *text = NULL;
    bytes b = {NULL, 0};
    e = read_file(path, MOST_BYTES, &text, &b.count);
    if (e) {
        fprintf(stderr, "mutate: %s\n", err_text(e));
        exit(2);
    }
    b.at = (unsigned char *)text;
    return b;
}

static void store(const char *path, const bytes *b) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(b->at, 1, b->count, f) != b->count || fclose(f)) die(path);
}

static int open_files(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    if (!d) die("/proc/self/fd");
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void make_case(const target *t, const bytes *sample, uint64_t *r, bytes *out) {
    if (sample->count) memcpy(out->at, sample->at, sample->count);
    out->count = sample->count;
    uint64_t length = 0;
    if (t->header && out->count > 8 && below(r, 8) > 0) {
        memcpy(&length, out->at, 8);
        size_t data = out->count - 8 - (size_t)length;
        bytes head = {out->at + 8, (size_t)length};
        unsigned char *tail = malloc(data + 1);
        if (!tail) die("memory");
        memcpy(tail, head.at + length, data);
        mutate(&head, r);
        memcpy(head.at + head.count, tail, data);
        free(tail);
        length = head.count;
        memcpy(out->at, &length, 8);
        out->count = 8 + head.count + data;
    } else {
        mutate(out, r);
    }
}

// An error has words and a code that is not a bug's.
static bool judge(err *e) {
    err_code code = err_get_code(e);
    bool good =
        !e || (strlen(err_text(e)) > 10 && (code == ERR_INPUT || code == ERR_CONFIG || code == ERR_MISMATCH));
    if (!good) fprintf(stderr, "mutate: error of code %d: %s\n", code, err_text(e));
    err_free(e);
    return good;
}

static void run_case(const target *t, const char *path, long *read) {
    alarm(SLOW_SECONDS); // its signal ends the program: a finding
    err *e = t->read(path);
    alarm(0);
    *read += e == NULL;
    if (!judge(e)) exit(1);
}

static void run_cases(const target *t, double seconds, uint64_t seed, const char *path, char **sample,
                      int samples) {
    bytes *from = calloc((size_t)samples, sizeof *from), now = {malloc(3 * (size_t)MOST_BYTES), 0};
    double end = now_seconds() + seconds;
    long cases = 0, read = 0;
    int files = 0;
    if (!from || !now.at) die("memory");
    for (int i = 0; i < samples; i++) from[i] = load(sample[i]);
    for (; now_seconds() < end; cases++) {
        uint64_t r = seed * 1000003 + (uint64_t)cases;
        make_case(t, &from[cases % samples], &r, &now);
        store(path, &now);
        run_case(t, path, &read);
        if (cases == 20) files = open_files();
        if (cases > 20 && cases % 64 == 0 && open_files() > files) die("a file stayed open");
    }
    printf("%-12s %7ld cases, %ld read, %ld refused\n", t->name, cases, read, cases - read);
    for (int i = 0; i < samples; i++) free(from[i].at);
    free(from);
    free(now.at);
}

// HDF5 itself loses memory when it gives up on damaged metadata, and so does the reader of SentencePiece
// models.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libhdf5\nleak:libprotobuf\nleak:libsentencepiece\n";
}

int main(int argc, char **argv) {
    const target *t = NULL;
    bool one = argc == 5 && strcmp(argv[2], "--one") == 0;
    for (size_t i = 0; argc > 1 && i < sizeof targets / sizeof *targets; i++)
        if (strcmp(targets[i].name, argv[1]) == 0) t = &targets[i];
    if (!t || (!one && argc < 6)) {
        fprintf(stderr, "usage: mutate TARGET SECONDS SEED DIR SAMPLE... | mutate TARGET --one DIR FILE\n");
        return 2;
    }
    char *path = one ? path_join(argv[3], argv[4]) : path_join(argv[4], t->file);
    long read = 0;
    if (one)
        run_case(t, path, &read);
    else
        run_cases(t, strtod(argv[2], NULL), strtoull(argv[3], NULL, 10), path, argv + 5, argc - 5);
    free(path);
    return 0;
}
