// damages GOOD OTHER WORK COUNT SEED: does COUNT random damages to copies of the checkpoint GOOD, one at a
// time, and wants each of them found: flipped bits, bytes overwritten, files cut short, lengthened, emptied,
// gone, swapped for each other, or taken from the checkpoint OTHER of the same run (a stale manifest among
// them). A copy that is not damaged must be found whole. Prints how many of each kind there were.
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint.h"
#include "fsutil.h"

enum { MOST_FILES = 200, MOST_BYTES = 1 << 28 };

typedef struct image { // a file of the checkpoint
    char *name;
    char *text;
    size_t bytes;
} image;
typedef struct images {
    image at[MOST_FILES];
    int count;
} images;

static void die(const char *what, err *e) {
    fprintf(stderr, "damages: %s: %s\n", what, err_text(e));
    exit(2);
}

static void take(images *all, const char *dir, const char *sub) {
    char *path = path_join(dir, sub);
    DIR *d = opendir(path);
    if (!d) die(path, NULL);
    for (struct dirent *f; (f = readdir(d));) {
        char name[300];
        if (f->d_name[0] == '.' || !strcmp(f->d_name, "solar")) continue;
        snprintf(name, sizeof name, "%s%s%s", sub, *sub ? "/" : "", f->d_name);
        if (all->count == MOST_FILES) die("too many files", NULL);
        image *x = &all->at[all->count++];
        char *file = path_join(dir, name);
        x->name = strdup(name);
        err *e = read_file(file, MOST_BYTES, &x->text, &x->bytes);
        if (e) die(file, e);
        free(file);
    }
    closedir(d);
    free(path);
}

static void put(const char *dir, const char *name, const char *text, size_t bytes) {
    char *path = path_join(dir, name);
    FILE *f = fopen(path, "w");
    if (!f || fwrite(text, 1, bytes, f) != bytes || fclose(f)) die(path, NULL);
    free(path);
}

static const image *find(const images *all, const char *name) {
    for (int i = 0; i < all->count; i++)
        if (!strcmp(all->at[i].name, name)) return &all->at[i];
    return NULL;
}

// SplitMix64 (Steele, Lea & Flood 2014), begun by main.
static uint64_t random_state;

static uint64_t any_word(void) {
    uint64_t x = random_state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static size_t any(size_t below) { return (size_t)(any_word() % (below ? below : 1)); }

// ---- damages: each returns whether it made a difference

static bool overwrite(const char *dir, const image *x, size_t bytes) {
    if (!x->bytes) return false;
    if (bytes > x->bytes) bytes = x->bytes;
    char *text = memcpy(malloc(x->bytes), x->text, x->bytes);
    size_t at = any(x->bytes - bytes + 1);
    for (size_t i = 0; i < bytes; i++) text[at + i] = (char)any_word();
    bool differs = memcmp(text, x->text, x->bytes) != 0;
    put(dir, x->name, text, x->bytes);
    free(text);
    return differs;
}

static bool flip(const char *dir, const image *x) {
    if (!x->bytes) return false;
    char *text = memcpy(malloc(x->bytes), x->text, x->bytes);
    text[any(x->bytes)] ^= (char)(1 << any(8));
    put(dir, x->name, text, x->bytes);
    free(text);
    return true;
}

static bool cut(const char *dir, const image *x) {
    put(dir, x->name, x->text, any(x->bytes));
    return x->bytes > 0;
}

static bool lengthen(const char *dir, const image *x) {
    char *text = calloc(x->bytes + 100, 1);
    memcpy(text, x->text, x->bytes);
    put(dir, x->name, text, x->bytes + 1 + any(99));
    free(text);
    return true;
}

static bool gone(const char *dir, const image *x) {
    char *path = path_join(dir, x->name);
    bool done = unlink(path) == 0;
    free(path);
    return done;
}

static bool swap(const char *dir, const image *x, const image *y) {
    if (x->bytes == y->bytes && !memcmp(x->text, y->text, x->bytes)) return false;
    put(dir, x->name, y->text, y->bytes);
    put(dir, y->name, x->text, x->bytes);
    return true;
}

static bool stale(const char *dir, const image *x, const images *other) {
    const image *y = find(other, x->name);
    if (!y || (x->bytes == y->bytes && !memcmp(x->text, y->text, x->bytes))) return false;
    put(dir, x->name, y->text, y->bytes);
    return true;
}

static const char *const kind_name[] = {"bits", "bytes",   "cut",   "longer",
                                        "gone", "swapped", "stale", "stale manifests"};
enum { KINDS = sizeof kind_name / sizeof *kind_name };

static bool stale_manifest(const char *dir, const images *all, const images *other) {
    const image *x = find(all, "solar/manifest.json"), *sum = find(all, "solar/manifest.xxh3");
    return stale(dir, x, other) && stale(dir, sum, other); // which fit each other
}

static bool harm(const char *dir, const images *all, const images *other, int kind) {
    const image *x = &all->at[any((size_t)all->count)], *y = &all->at[any((size_t)all->count)];
    switch (kind) {
    case 0: return flip(dir, x);
    case 1: return overwrite(dir, x, 1 + any(4096));
    case 2: return cut(dir, x);
    case 3: return lengthen(dir, x);
    case 4: return gone(dir, x);
    case 5: return swap(dir, x, y);
    case 6: return stale(dir, x, other);
    default: return stale_manifest(dir, all, other);
    }
}

static void restore(const char *dir, const images *all) {
    char *solar = path_join(dir, "solar");
    err *e = make_dirs(solar);
    if (e) die(solar, e);
    for (int i = 0; i < all->count; i++) put(dir, all->at[i].name, all->at[i].text, all->at[i].bytes);
    free(solar);
}

static err_code verdict(const char *dir, char text[400]) {
    err *e = checkpoint_verify(dir, 0, 1, 1, NULL);
    err_code code = err_get_code(e);
    snprintf(text, 400, "%s", err_text(e));
    err_free(e);
    return code;
}

int main(int argc, char **argv) {
    static images all, other;
    int done[KINDS] = {0}, missed = 0, total = 0;
    char said[400];
    if (argc != 6) return fprintf(stderr, "usage: damages GOOD OTHER WORK COUNT SEED\n"), 2;
    const char *work = argv[3];
    random_state = (uint64_t)atoi(argv[5]);
    take(&all, argv[1], "");
    take(&all, argv[1], "solar");
    take(&other, argv[2], "");
    take(&other, argv[2], "solar");
    for (int i = 0; total < atoi(argv[4]) && i < 100 * atoi(argv[4]); i++) {
        restore(work, &all);
        if (i % 50 == 0 && verdict(work, said) != ERR_OK)
            return printf("a whole checkpoint is called damaged: %s\n", said), 1;
        if (!harm(work, &all, &other, i % KINDS)) continue;
        err_code code = verdict(work, said);
        done[i % KINDS]++;
        total++;
        if (code == ERR_MISMATCH || code == ERR_INPUT) continue;
        missed++;
        printf("%s: not found (%d: %s)\n", kind_name[i % KINDS], code, said);
    }
    printf("%d damages:", total);
    for (int k = 0; k < KINDS; k++) printf(" %d %s%s", done[k], kind_name[k], k + 1 < KINDS ? "," : "\n");
    return missed || total < atoi(argv[4]);
}
