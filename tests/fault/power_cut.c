// power_cut LOG ROOT WORK SEED VARIANTS: replays the record of a run's calls (disk/log.h) and cuts the power
// after each of them. What a sync has not confirmed may be there or not, in any order: names in directories,
// bytes in files. In every state that may be left, `latest` and all checkpoints that have their name must be
// whole, and the newest that was confirmed must not be lost. With --list LOG it only prints the calls.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint.h"
#include "disk/log.h"
#include "fsutil.h"

enum { MOST_NODES = 20000, MOST_NAMES = 400 };

typedef struct node node;
typedef struct change { // of a directory, not yet confirmed
    char name[128];
    node *to; // NULL: the name goes
    int call; // a rename's two changes are of one call: both happen or none
} change;
typedef struct entry {
    char name[128];
    node *to;
} entry;

struct node {
    char kind; // 'f', 'd', 'l'
    unsigned id;
    // a file's or link's bytes: confirmed, and as the program sees them
    char *safe, *seen;
    size_t safe_bytes, seen_bytes;
    // a directory's names: the same
    entry safe_names[MOST_NAMES], seen_names[MOST_NAMES];
    int safe_count, seen_count;
    change changes[MOST_NAMES];
    int change_count;
};

typedef struct disk {
    node **all;
    int count;
    node *root;
    const char *root_path;
    int call;
} disk;

static void die(const char *what) {
    fprintf(stderr, "power_cut: %s\n", what);
    exit(2);
}

static node *make_node(disk *d, char kind) {
    node *n = calloc(1, sizeof *n);
    if (!n || d->count == MOST_NODES) die("too many files");
    n->kind = kind;
    n->id = (unsigned)d->count;
    d->all[d->count++] = n;
    return n;
}

// ---- names

static node *find_in(const entry *list, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (!strcmp(list[i].name, name)) return list[i].to;
    return NULL;
}

static void put_in(entry *list, int *count, const char *name, node *to) {
    int i = 0;
    while (i < *count && strcmp(list[i].name, name) != 0) i++;
    if (!to && i < *count) list[i] = list[--*count];
    if (!to) return;
    if (i == MOST_NAMES) die("too many names");
    snprintf(list[i].name, sizeof list[i].name, "%s", name);
    list[i].to = to;
    if (i == *count) ++*count;
}

static void change_name(disk *d, node *dir, const char *name, node *to) {
    put_in(dir->seen_names, &dir->seen_count, name, to);
    if (dir->change_count == MOST_NAMES) die("too many changes");
    change *c = &dir->changes[dir->change_count++];
    snprintf(c->name, sizeof c->name, "%s", name);
    c->to = to;
    c->call = d->call;
}

// The directory of a path and the last part of its name; NULL: not below the root, or gone.
static node *walk(disk *d, const char *path, char last[128]) {
    size_t n = strlen(d->root_path);
    node *at = d->root;
    if (strncmp(path, d->root_path, n) != 0) return NULL;
    path += n;
    last[0] = 0;
    while (*path) {
        path += strspn(path, "/");
        size_t length = strcspn(path, "/");
        if (!length) break;
        if (last[0] && !(at = find_in(at->seen_names, at->seen_count, last))) return NULL;
        snprintf(last, 128, "%.*s", (int)length, path);
        path += length;
    }
    return at;
}

static node *lookup(disk *d, const char *path) {
    char last[128];
    node *dir = walk(d, path, last);
    return dir && last[0] ? find_in(dir->seen_names, dir->seen_count, last) : dir;
}

// ---- calls

static void store(node *n, const char *data, uint64_t at, uint64_t bytes) {
    if (at + bytes > n->seen_bytes) {
        n->seen = realloc(n->seen, at + bytes + 1);
        if (!n->seen) die("out of memory");
        memset(n->seen + n->seen_bytes, 0, at + bytes - n->seen_bytes);
        n->seen_bytes = at + bytes;
    }
    // NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): there is room where there are bytes
    if (bytes) memcpy(n->seen + at, data, bytes);
}

static void sync_node(node *n) {
    free(n->safe);
    n->safe = n->seen_bytes ? malloc(n->seen_bytes) : NULL;
    if (n->seen_bytes) memcpy(n->safe, n->seen, n->seen_bytes);
    n->safe_bytes = n->seen_bytes;
    memcpy(n->safe_names, n->seen_names, sizeof n->safe_names);
    n->safe_count = n->seen_count;
    n->change_count = 0;
}

static void apply(disk *d, const disk_record *r, const char *path, const char *other, const char *data) {
    char last[128], other_last[128];
    node *dir = walk(d, path, last), *n = lookup(d, path), *to;
    if (!dir || !last[0]) {
        if (r->kind == DISK_SYNC && dir) sync_node(dir);
        return;
    }
    switch ((disk_call)r->kind) {
    case DISK_CREATE: change_name(d, dir, last, make_node(d, 'f')); break;
    case DISK_MKDIR: change_name(d, dir, last, make_node(d, 'd')); break;
    case DISK_REMOVE: change_name(d, dir, last, NULL); break;
    case DISK_SYMLINK:
        change_name(d, dir, last, make_node(d, 'l'));
        n = lookup(d, path);
        store(n, other, 0, r->other_bytes);
        sync_node(n); // a link is as safe as its name
        break;
    case DISK_WRITE:
        if (n) store(n, data, r->at, r->bytes);
        break;
    case DISK_SYNC:
        if (n) sync_node(n);
        break;
    case DISK_RENAME:
        to = walk(d, other, other_last);
        if (!n || !to) break;
        change_name(d, to, other_last, n);
        change_name(d, dir, last, NULL);
        break;
    default: break;
    }
}

// ---- what is left

typedef enum fate { ALL_LOST, ALL_KEPT, NAMES_KEPT, BYTES_KEPT, BY_CHANCE } fate;

static bool survives(fate f, bool name, unsigned seed) {
    if (f == ALL_LOST) return false;
    if (f == ALL_KEPT) return true;
    if (f == NAMES_KEPT) return name;
    if (f == BYTES_KEPT) return !name;
    return (seed * 2654435761u >> 16 & 1) != 0; // Knuth's multiplicative hash
}

static void leave_bytes(const node *n, const char *path, fate f, unsigned seed) {
    seed += n->id * 17;
    FILE *out = fopen(path, "w");
    bool kept = survives(f, false, seed);
    const char *data = kept ? n->seen : n->safe;
    size_t bytes = kept ? n->seen_bytes : n->safe_bytes;
    if (kept && f == BY_CHANCE && seed % 3 == 0) bytes = n->safe_bytes + (n->seen_bytes - n->safe_bytes) / 2;
    if (!out || fwrite(data ? data : "", 1, bytes, out) != bytes || fclose(out))
        die("cannot lay out a state");
}

static void leave(const node *n, const char *path, fate f, unsigned seed) {
    entry names[MOST_NAMES];
    int count = n->safe_count;
    if (n->kind == 'f') leave_bytes(n, path, f, seed);
    if (n->kind == 'l' && symlink(n->seen, path) != 0) die("cannot lay out a link");
    if (n->kind != 'd') return;
    if (mkdir(path, 0777) != 0) die("cannot lay out a directory");
    memcpy(names, n->safe_names, sizeof names);
    for (int i = 0; i < n->change_count; i++)
        if (survives(f, true, seed * 31 + (unsigned)n->changes[i].call))
            put_in(names, &count, n->changes[i].name, n->changes[i].to);
    for (int i = 0; i < count; i++) {
        char *sub = path_join(path, names[i].name);
        leave(names[i].to, sub, f, seed);
        free(sub);
    }
}

// ---- what must hold

static long step_of(const char *target) {
    const char *dash = target ? strrchr(target, '-') : NULL;
    return dash ? strtol(dash + 1, NULL, 10) : -1;
}

static err *check_whole(const char *work) {
    int64_t *steps = NULL;
    int count = 0;
    err *e = checkpoint_list(work, &steps, &count);
    for (int i = 0; !e && i < count; i++) {
        char *path = checkpoint_path(work, "step-", steps[i]);
        e = checkpoint_verify(path, 0, 1, 1, NULL);
        free(path);
    }
    free(steps);
    return e;
}

static err *check_state_left(const char *work, long confirmed) {
    char *link = path_join(work, "latest"), target[256];
    ssize_t n = readlink(link, target, sizeof target - 1);
    target[n > 0 ? n : 0] = 0;
    err *e = check_whole(work);
    if (!e && n > 0 && !is_dir(link))
        e = err_new(ERR_MISMATCH, "latest points to %s, which is not there", target);
    if (!e && confirmed >= 0 && step_of(n > 0 ? target : NULL) < confirmed)
        e = err_new(ERR_MISMATCH, "latest is %s, step %ld was confirmed", n > 0 ? target : "gone", confirmed);
    free(link);
    return e;
}

static long confirmed_step(disk *d) {
    const node *link = find_in(d->root->safe_names, d->root->safe_count, "latest");
    return link ? step_of(link->seen) : -1;
}

static int try_states(disk *d, const char *work, unsigned seed, int variants) {
    for (int v = 0; v < variants; v++) {
        fate f = v < BY_CHANCE ? (fate)v : BY_CHANCE;
        err *e = remove_tree(work);
        if (e) die(err_text(e));
        leave(d->root, work, f, seed + (unsigned)v * 7919u);
        e = check_state_left(work, confirmed_step(d));
        if (!e) continue;
        printf("power cut after call %d, variant %d: %s\n", d->call, v, err_text(e));
        err_free(e);
        return 1;
    }
    return 0;
}

// ---- the record

static const char *const call_name[DISK_CALLS] = {"create", "open",  "close",   "write", "sync",
                                                  "rename", "mkdir", "symlink", "remove"};

typedef struct call {
    disk_record r;
    char *path, *other, *data;
} call;

static char *read_part(FILE *f, size_t bytes) {
    char *p = malloc(bytes + 1);
    if (!p || fread(p, 1, bytes, f) != bytes) die("the record ends early");
    p[bytes] = 0;
    return p;
}

static bool next_call(FILE *f, call *c) {
    if (fread(&c->r, sizeof c->r, 1, f) != 1) return false;
    c->path = read_part(f, c->r.path_bytes);
    c->other = read_part(f, c->r.other_bytes);
    c->data = read_part(f, c->r.bytes);
    return true;
}

static void free_call(call *c) {
    free(c->path);
    free(c->other);
    free(c->data);
}

static int list(FILE *f) {
    call c;
    for (; next_call(f, &c); free_call(&c)) printf("%s %s %s\n", call_name[c.r.kind], c.path, c.other);
    return 0;
}

int main(int argc, char **argv) {
    FILE *f = argc > 2 ? fopen(argv[argc == 3 ? 2 : 1], "r") : NULL;
    if (!f || (argc != 3 && argc != 6))
        return fprintf(stderr, "usage: power_cut LOG ROOT WORK SEED VARIANTS | --list LOG\n"), 2;
    if (argc == 3) return list(f);
    disk d = {.all = calloc(MOST_NODES, sizeof(node *)), .root_path = argv[2]};
    unsigned seed = (unsigned)atoi(argv[4]);
    int variants = atoi(argv[5]), failed = 0, states = 0;
    const char *forget = getenv("FORGET");
    call c;
    if (!d.all) die("out of memory");
    d.root = make_node(&d, 'd');
    for (; !failed && next_call(f, &c); free_call(&c)) {
        d.call++;
        if (forget && c.r.kind == DISK_SYNC && strstr(c.path, forget)) continue;
        apply(&d, &c.r, c.path, c.other, c.data);
        if (c.r.kind == DISK_OPEN || c.r.kind == DISK_CLOSE) continue; // change nothing
        failed = try_states(&d, argv[3], seed + (unsigned)d.call, variants);
        states += variants;
    }
    printf("%d calls, %d states\n", d.call, states);
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the process ends here
    return failed || confirmed_step(&d) < 0;
}
