#include "life.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fsutil.h"
#include "log.h"

enum { NAME_BYTES = 32, TRIES = 200 }; // tries to remove what a former life keeps filling, 50 ms apart

// "00000003-5f0c9a1be2d47788": generation, then token; as text they sort as they rank.
static bool is_life(const char *name) {
    return strspn(name, "0123456789") == 8 && name[8] == '-' && strspn(name + 9, "0123456789abcdef") == 16 &&
           !name[25];
}

typedef struct lives {
    char (*name)[NAME_BYTES];
    int count;
} lives;

static err *list_lives(const char *home, lives *out) {
    *out = (lives){0};
    DIR *d = opendir(home);
    if (!d) return err_errno(errno, "cannot list %s", home);
    err *e = NULL;
    for (struct dirent *f; !e && (f = readdir(d));) {
        if (!is_life(f->d_name)) continue;
        void *more = realloc(out->name, (size_t)(out->count + 1) * sizeof *out->name);
        if (!more) e = err_new(ERR_SYSTEM, "out of memory for the list of lives");
        if (!more) break;
        out->name = more;
        snprintf(out->name[out->count++], NAME_BYTES, "%.31s", f->d_name);
    }
    closedir(d);
    return e;
}

static err *make_life(const char *home, const lives *former, char name[NAME_BYTES], char **dir) {
    unsigned long newest = 0;
    uint64_t token;
    for (int i = 0; i < former->count; i++) {
        unsigned long g = strtoul(former->name[i], NULL, 10);
        if (g > newest) newest = g;
    }
    if (getrandom(&token, sizeof token, 0) != sizeof token)
        return err_errno(errno, "no random token for this life");
    snprintf(name, NAME_BYTES, "%08lu-%016llx", newest + 1, (unsigned long long)token);
    *dir = path_join(home, name);
    return mkdir(*dir, 0777) == 0 ? NULL : err_errno(errno, "cannot make directory %s", *dir);
}

// Who it is, for messages; that it cannot be written is no reason not to train.
static void sign(const char *dir) {
    char host[64] = "?", note[200], *path = path_join(dir, "owner");
    const char *job = getenv("SLURM_JOB_ID");
    gethostname(host, sizeof host - 1);
    snprintf(note, sizeof note, "host %s, process %ld%s%.40s\n", host, (long)getpid(), job ? ", job " : "",
             job ? job : "");
    err *e = write_file_atomic(path, note, strlen(note));
    if (e) log_warn("this life could not be signed: %s", err_text(e));
    err_free(e);
    free(path);
}

// A former life may still be making files in it: until the directory itself is gone it is not over.
static err *end_life(const char *home, const char *name) {
    char *path = path_join(home, name);
    err *e = NULL;
    for (int i = 0; i < TRIES; i++) {
        err_free(e);
        e = remove_tree(path);
        if (!e && !path_exists(path)) break;
        if (!e) e = err_new(ERR_SYSTEM, "%s is still there", path);
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    free(path);
    return err_wrap(e, "a former life of this run keeps writing, end it");
}

static err *end_former(const char *home, const char *mine) {
    lives all;
    err *e = list_lives(home, &all);
    for (int i = 0; !e && i < all.count; i++) {
        int order = strcmp(all.name[i], mine);
        if (order > 0)
            e = err_new(ERR_RUNTIME,
                        "another life of this run began at the same moment: it goes on, this one ends");
        if (order < 0) e = end_life(home, all.name[i]);
    }
    free(all.name);
    return e;
}

err *life_begin(const char *run_dir, char **dir) {
    err *e = NULL;
    char *home = path_join(run_dir, ".life"), name[NAME_BYTES];
    lives former = {0};
    *dir = NULL;
    TRY(make_dirs(home));
    TRY(list_lives(home, &former));
    TRY(make_life(home, &former, name, dir));
    sign(*dir);
    TRY(fsync_path(home));
    TRY(end_former(home, name));
done:
    free(former.name);
    free(home);
    if (e) {
        free(*dir);
        *dir = NULL;
    }
    return err_wrap(e, "beginning a life of the run %s", run_dir);
}

// Whose the run is now; false: nobody's.
static bool find_owner(const char *home, char out[200]) {
    lives all;
    err *e = list_lives(home, &all);
    const char *newest = "";
    for (int i = 0; !e && i < all.count; i++)
        if (strcmp(all.name[i], newest) > 0) newest = all.name[i];
    snprintf(out, 200, "life %s", newest);
    bool found = *newest;
    if (found) {
        char *dir = path_join(home, newest), *path = path_join(dir, "owner"), *text = NULL;
        err *unread = read_file(path, 1000, &text, NULL);
        if (!unread) snprintf(out, 200, "%.*s", (int)strcspn(text, "\n"), text);
        err_free(unread);
        free(text);
        free(path);
        free(dir);
    }
    err_free(e);
    free(all.name);
    return found;
}

err *life_check(const char *run_dir, const char *dir) {
    struct stat st;
    char owner[200], *home;
    if (stat(dir, &st) == 0) return NULL;
    if (errno != ENOENT && errno != ENOTDIR && errno != ESTALE)
        return err_errno(errno, "cannot look at %s", dir);
    home = path_join(run_dir, ".life");
    bool taken = find_owner(home, owner);
    free(home);
    if (!taken) return err_new(ERR_SYSTEM, "%s has been removed: put the run's directory back", dir);
    return err_new(
        ERR_RUNTIME,
        "the run %s has been taken over by another solar train (%s): this life ends, what it had not "
        "yet published is void",
        run_dir, owner);
}
