// Files and directories: every system call checked, every published file synced before it has its name.
#include "fsutil.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <fts.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COPY_BUFFER = 1 << 20 };

// Names: too small to fail for any reason that a caller could do something about.
static char *must(char *text) {
    if (text) return text;
    fputs("solar: out of memory\n", stderr);
    abort();
}

char *path_join(const char *dir, const char *name) {
    size_t n = strlen(dir);
    const char *slash = n > 0 && dir[n - 1] != '/' ? "/" : "";
    char *out = NULL;
    return must(asprintf(&out, "%s%s%s", dir, slash, name) < 0 ? NULL : out);
}

bool path_exists(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0;
}

bool is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static err *make_dir(const char *path) {
    if (mkdir(path, 0777) == 0) return NULL;
    int why = errno;
    return why == EEXIST && is_dir(path) ? NULL : err_errno(why, "cannot make directory %s", path);
}

err *make_dirs(const char *path) {
    char *part = must(strdup(path));
    err *e = NULL;
    for (char *slash = strchr(part + 1, '/'); *path && slash && !e; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        e = make_dir(part);
        *slash = '/';
    }
    if (!e) e = make_dir(part);
    free(part);
    return e;
}

err *remove_tree(const char *path) {
    if (!path_exists(path)) return NULL;
    char *const roots[] = {(char *)path, NULL};
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (!walk) return err_errno(errno, "cannot remove %s", path);
    err *e = NULL;
    for (FTSENT *f; !e && (f = fts_read(walk));) {
        if (f->fts_info == FTS_D) continue; // removed after its contents
        if (remove(f->fts_path) != 0 && errno != ENOENT)
            e = err_errno(errno, "cannot remove %s", f->fts_path);
    }
    fts_close(walk);
    return e;
}

// A file of the user's that cannot be opened is bad input; a machine that fails is not.
static err *open_error(int why, const char *path) {
    bool user = why == ENOENT || why == ENOTDIR || why == EACCES || why == ELOOP || why == ENAMETOOLONG;
    char reason[128];
    if (!user) return err_errno(why, "cannot open %s", path);
    return err_new(ERR_INPUT, "cannot open %s: %s", path, strerror_r(why, reason, sizeof reason));
}

err *open_input(const char *path, int *fd, uint64_t *bytes) {
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // never waits for the writer of a FIFO
    if (*fd < 0) return open_error(errno, path);
    err *e = NULL;
    if (fstat(*fd, &st) != 0)
        e = err_errno(errno, "cannot stat %s", path);
    else if (!S_ISREG(st.st_mode))
        e = err_new(ERR_INPUT, "%s is %s, expected a file", path,
                    S_ISDIR(st.st_mode) ? "a directory" : "a device, pipe or socket");
    if (!e) {
        *bytes = (uint64_t)st.st_size;
        return NULL;
    }
    close(*fd);
    *fd = -1;
    return e;
}

err *write_all(int fd, const void *data, size_t bytes, const char *path) {
    const char *p = data;
    while (bytes > 0) {
        ssize_t n = write(fd, p, bytes < (1u << 30) ? bytes : 1u << 30);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == ENOSPC || errno == EDQUOT))
            return err_errno(errno, "cannot write %s: the disk or quota is full, make room and run again",
                             path);
        if (n < 0) return err_errno(errno, "cannot write %s", path);
        p += n;
        bytes -= (size_t)n;
    }
    return NULL;
}

err *pread_all(int fd, void *dst, size_t bytes, uint64_t offset, const char *path) {
    char *p = dst;
    while (bytes > 0) {
        ssize_t n = pread(fd, p, bytes < (1u << 30) ? bytes : 1u << 30, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_errno(errno, "cannot read %s at byte %llu", path, (unsigned long long)offset);
        if (n == 0)
            return err_new(ERR_SYSTEM, "%s ends at byte %llu, %zu bytes early: it was cut short while in use",
                           path, (unsigned long long)offset, bytes);
        p += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return NULL;
}

err *read_file(const char *path, size_t limit, char **out, size_t *bytes) {
    err *e = NULL;
    char *text = NULL;
    int fd = -1;
    uint64_t size = 0;
    TRY(open_input(path, &fd, &size));
    if (size > limit)
        FAIL(ERR_INPUT, "%s has %llu bytes, more than the %zu allowed", path, (unsigned long long)size,
             limit);
    text = malloc((size_t)size + 1);
    if (!text) FAIL(ERR_SYSTEM, "no memory for the %llu bytes of %s", (unsigned long long)size, path);
    TRY(pread_all(fd, text, (size_t)size, 0, path));
    text[size] = '\0';
    *out = text;
    text = NULL;
    if (bytes) *bytes = (size_t)size;
done:
    free(text);
    if (fd >= 0) close(fd);
    return e;
}

err *fsync_path(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_errno(errno, "cannot open %s to sync it", path);
    err *e = fsync(fd) == 0 ? NULL : err_errno(errno, "cannot sync %s", path);
    close(fd);
    return e;
}

static err *fsync_parent(const char *path) {
    const char *slash = strrchr(path, '/');
    char *dir = must(slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup("."));
    err *e = fsync_path(dir);
    free(dir);
    return e;
}

// Syncs and closes a file just written; the close is checked too, network file systems report there.
static err *finish_fd(int fd, const char *path) {
    err *e = fsync(fd) == 0 ? NULL : err_errno(errno, "cannot sync %s", path);
    if (close(fd) != 0) e = err_first(e, err_errno(errno, "cannot close %s", path));
    return e;
}

// A new file beside path. The name may be taken by another host's process of the same id: try on.
static err *open_neighbour(const char *path, char **name, int *fd) {
    for (int i = 0; i < 100; i++) {
        char *tmp = NULL;
        if (asprintf(&tmp, "%s.tmp-%ld-%d", path, (long)getpid(), i) < 0) must(NULL);
        *fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        *name = tmp;
        if (*fd >= 0) return NULL;
        int why = errno;
        *name = NULL;
        free(tmp);
        if (why != EEXIST) return err_errno(why, "cannot write %s", path);
    }
    return err_new(ERR_SYSTEM, "cannot write %s: 100 temporary files %s.tmp-* are in the way, remove them",
                   path, path);
}

err *write_file_atomic(const char *path, const void *data, size_t bytes) {
    char *tmp = NULL;
    int fd = -1;
    err *e = open_neighbour(path, &tmp, &fd);
    if (e) return e;
    e = write_all(fd, data, bytes, tmp);
    e = err_first(e, finish_fd(fd, tmp));
    if (!e && rename(tmp, path) != 0) e = err_errno(errno, "cannot rename %s to %s", tmp, path);
    if (e)
        unlink(tmp);
    else
        e = fsync_parent(path);
    free(tmp);
    return e;
}

// Bytes the kernel copies by itself (shared extents where the file system can); 0: do it by hand.
static uint64_t copy_in_kernel(int in, int out, uint64_t bytes) {
    uint64_t done = 0;
    while (done < bytes) {
        ssize_t n = copy_file_range(in, NULL, out, NULL, (size_t)(bytes - done), 0);
        if (n <= 0) break;
        done += (uint64_t)n;
    }
    return done;
}

static err *copy_by_hand(int in, int out, uint64_t at, uint64_t bytes, const char *from, const char *to) {
    char *buf = malloc(COPY_BUFFER);
    err *e = buf ? NULL : err_new(ERR_SYSTEM, "no memory to copy %s", from);
    while (!e && at < bytes) {
        size_t n = bytes - at < COPY_BUFFER ? (size_t)(bytes - at) : COPY_BUFFER;
        e = pread_all(in, buf, n, at, from);
        if (!e) e = write_all(out, buf, n, to);
        at += n;
    }
    free(buf);
    return e;
}

err *copy_file(const char *from, const char *to) {
    int in = -1;
    uint64_t bytes = 0;
    err *e = open_input(from, &in, &bytes);
    if (e) return e;
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (out < 0) {
        e = err_errno(errno, "cannot create %s", to);
    } else {
        uint64_t done = copy_in_kernel(in, out, bytes);
        e = copy_by_hand(in, out, done, bytes, from, to);
        e = err_first(e, finish_fd(out, to));
        if (e) unlink(to);
    }
    close(in);
    return e;
}

static void to_hex(const unsigned char digest[32], char out[65]) {
    static const char hex[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++) {
        out[2 * i] = hex[digest[i] >> 4];
        out[2 * i + 1] = hex[digest[i] & 15];
    }
    out[64] = '\0';
}

static err *digest_fd(EVP_MD_CTX *ctx, int fd, uint64_t bytes, const char *path) {
    char *buf = malloc(COPY_BUFFER);
    err *e = buf ? NULL : err_new(ERR_SYSTEM, "no memory to read %s", path);
    for (uint64_t at = 0; !e && at < bytes;) {
        size_t n = bytes - at < COPY_BUFFER ? (size_t)(bytes - at) : COPY_BUFFER;
        e = pread_all(fd, buf, n, at, path);
        if (!e && EVP_DigestUpdate(ctx, buf, n) != 1) e = err_new(ERR_RUNTIME, "SHA-256 of %s failed", path);
        at += n;
    }
    free(buf);
    return e;
}

err *sha256_file(const char *path, char out[65]) {
    err *e = NULL;
    int fd = -1;
    uint64_t bytes = 0;
    unsigned char digest[32];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (!ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1)
        FAIL(ERR_RUNTIME, "libcrypto has no SHA-256");
    TRY(open_input(path, &fd, &bytes));
    TRY(digest_fd(ctx, fd, bytes, path));
    if (EVP_DigestFinal_ex(ctx, digest, NULL) != 1) FAIL(ERR_RUNTIME, "SHA-256 of %s failed", path);
    to_hex(digest, out);
done:
    if (fd >= 0) close(fd);
    EVP_MD_CTX_free(ctx);
    return e;
}

void sha256_bytes(const void *data, size_t bytes, char out[65]) {
    unsigned char digest[32];
    if (EVP_Digest(data, bytes, digest, NULL, EVP_sha256(), NULL) != 1) {
        fputs("solar: libcrypto cannot compute SHA-256\n", stderr);
        abort();
    }
    to_hex(digest, out);
}

// Files that go with the weights unchanged. config.json and the index are written anew; params.json is
// Mistral's own config, which states a layer count.
static bool is_extra(const char *name) {
    static const char *const never[] = {"config.json", "params.json", "*.index.json"};
    static const char *const extra[] = {"*.json",     "tokenizer.*", "*.model",    "*.tiktoken",
                                        "merges.txt", "vocab.*",     "*.jinja",    "chat_template.*",
                                        "LICENSE*",   "NOTICE*",     "USE_POLICY*"};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (fnmatch(never[i], name, 0) == 0) return false;
    for (size_t i = 0; i < sizeof extra / sizeof *extra; i++)
        if (fnmatch(extra[i], name, FNM_PERIOD) == 0) return true;
    return false;
}

// Copies a regular file, passes over anything else. A link to nowhere is an error: something is missing.
static err *copy_extra(const char *from, const char *to, const char *name) {
    struct stat st;
    char *a = path_join(from, name), *b = path_join(to, name);
    err *e = NULL;
    if (stat(a, &st) != 0)
        e = open_error(errno, a);
    else if (S_ISREG(st.st_mode))
        e = copy_file(a, b);
    free(a);
    free(b);
    return e;
}

err *copy_model_extras(const char *from, const char *to) {
    DIR *d = opendir(from);
    if (!d) return open_error(errno, from);
    err *e = NULL;
    for (struct dirent *f; !e && (f = readdir(d));)
        if (is_extra(f->d_name)) e = copy_extra(from, to, f->d_name);
    closedir(d);
    return e;
}
