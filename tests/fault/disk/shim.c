// A library to be preloaded that stands between a program and the disk. Only calls on paths below DISK_ROOT
// count.
//   DISK_LOG=FILE        appends every call that changes something, before it is made (disk/log.h)
//   DISK_FAIL=N:ERRNO    the Nth of these calls in this process fails with that number; errno 0: a write
//                        writes half; -1: the process is stopped before it; -2: killed
//   DISK_PATH=TEXT       only calls on paths with this in them count
//   DISK_RANK=N          of a job started by mpirun, only rank N fails, and only its calls are recorded
// Calls are told apart by position alone, so that each can be made to fail once.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

enum { MOST_FDS = 4096 };

static struct shim { // a library that is preloaded has nobody to hand its state to
    pthread_mutex_t lock;
    const char *root, *within;
    int log, fail_errno;
    long fail_at, calls;
    char *path[MOST_FDS]; // of open files below the root
} shim = {.lock = PTHREAD_MUTEX_INITIALIZER, .log = -1};

#define REAL(name, type, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *log = getenv("DISK_LOG"), *fail = getenv("DISK_FAIL");
    shim.root = getenv("DISK_ROOT");
    shim.within = getenv("DISK_PATH");
    const char *rank = getenv("DISK_RANK"), *mine = getenv("OMPI_COMM_WORLD_RANK");
    if (rank && (!mine || strcmp(rank, mine) != 0)) return;
    if (log)
        shim.log =
            REAL(open, int, const char *, int, ...)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fail && sscanf(fail, "%ld:%d", &shim.fail_at, &shim.fail_errno) != 2) abort();
}

static int watched(const char *path) {
    if (!shim.root || !path || strncmp(path, shim.root, strlen(shim.root)) != 0) return 0;
    return !shim.within || strstr(path, shim.within);
}

static const char *path_of(int fd) { return fd >= 0 && fd < MOST_FDS ? shim.path[fd] : NULL; }

static void note(disk_call kind, const char *path, const char *other, const void *data, size_t bytes,
                 off_t at) {
    disk_record r = {.kind = kind,
                     .path_bytes = (uint32_t)strlen(path) + 1,
                     .other_bytes = other ? (uint32_t)strlen(other) + 1 : 0,
                     .at = (uint64_t)at,
                     .bytes = bytes};
    size_t n = sizeof r + r.path_bytes + r.other_bytes + bytes;
    char *text = malloc(n), *to = text;
    if (!text) abort();
    to = mempcpy(to, &r, sizeof r);
    to = mempcpy(to, path, r.path_bytes);
    if (other) to = mempcpy(to, other, r.other_bytes);
    if (bytes) memcpy(to, data, bytes);
    if (REAL(write, ssize_t, int, const void *, size_t)(shim.log, text, n) != (ssize_t)n) abort();
    free(text);
}

// Counts and records a call; nonzero: it is this one's turn to fail.
static int turn(disk_call kind, const char *path, const char *other, const void *data, size_t bytes,
                off_t at) {
    pthread_mutex_lock(&shim.lock);
    int fails = ++shim.calls == shim.fail_at;
    if (shim.log >= 0 && !fails) note(kind, path, other, data, bytes, at);
    pthread_mutex_unlock(&shim.lock);
    if (fails && shim.fail_errno < 0) {
        kill(getpid(), shim.fail_errno == -2 ? SIGKILL : SIGSTOP);
        return 0;
    }
    if (fails) errno = shim.fail_errno;
    return fails;
}

static int turn_simple(disk_call kind, const char *path) { return turn(kind, path, NULL, NULL, 0, 0); }

static int open_watched(const char *path, int flags, mode_t mode) {
    struct stat st;
    int makes = flags & O_CREAT && stat(path, &st) != 0;
    if (turn_simple(makes ? DISK_CREATE : DISK_OPEN, path)) return -1;
    int fd = REAL(open, int, const char *, int, ...)(path, flags, mode);
    if (fd >= 0 && fd < MOST_FDS) {
        pthread_mutex_lock(&shim.lock);
        free(shim.path[fd]);
        shim.path[fd] = strdup(path);
        pthread_mutex_unlock(&shim.lock);
    }
    return fd;
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (watched(path)) return open_watched(path, flags, mode);
    return REAL(open, int, const char *, int, ...)(path, flags, mode);
}

int close(int fd) {
    const char *path = path_of(fd);
    int fails = path && turn_simple(DISK_CLOSE, path), why = errno;
    if (path) {
        pthread_mutex_lock(&shim.lock);
        free(shim.path[fd]);
        shim.path[fd] = NULL;
        pthread_mutex_unlock(&shim.lock);
    }
    int rc = REAL(close, int, int)(fd); // an error of close says nothing of whether the file is closed: it is
    if (!fails) return rc;
    errno = why;
    return -1;
}

ssize_t write(int fd, const void *data, size_t bytes) {
    const char *path = path_of(fd);
    if (path && turn(DISK_WRITE, path, NULL, data, bytes, lseek(fd, 0, SEEK_CUR))) {
        if (shim.fail_errno) return -1;
        bytes = (bytes + 1) / 2;
    }
    return REAL(write, ssize_t, int, const void *, size_t)(fd, data, bytes);
}

int fsync(int fd) {
    const char *path = path_of(fd);
    if (path && turn_simple(DISK_SYNC, path)) return -1;
    return REAL(fsync, int, int)(fd);
}

int rename(const char *from, const char *to) {
    if (watched(to) && turn(DISK_RENAME, from, to, NULL, 0, 0)) return -1;
    return REAL(rename, int, const char *, const char *)(from, to);
}

int mkdir(const char *path, mode_t mode) {
    struct stat st;
    if (watched(path) && stat(path, &st) != 0 && turn_simple(DISK_MKDIR, path)) return -1;
    return REAL(mkdir, int, const char *, mode_t)(path, mode);
}

int symlink(const char *target, const char *path) {
    if (watched(path) && turn(DISK_SYMLINK, path, target, NULL, 0, 0)) return -1;
    return REAL(symlink, int, const char *, const char *)(target, path);
}

int unlink(const char *path) {
    struct stat st;
    if (watched(path) && lstat(path, &st) == 0 && turn_simple(DISK_REMOVE, path)) return -1;
    return REAL(unlink, int, const char *)(path);
}

int remove(const char *path) {
    struct stat st;
    if (watched(path) && lstat(path, &st) == 0 && turn_simple(DISK_REMOVE, path)) return -1;
    return REAL(remove, int, const char *)(path);
}

// So that what is copied passes through write.
ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t bytes, unsigned flags) {
    (void)in, (void)in_at, (void)out, (void)out_at, (void)bytes, (void)flags;
    errno = EXDEV;
    return -1;
}
