#include "text_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

struct text_source {
    char *path;
    int fd;
    gzFile gz; // owns fd once open
    ZSTD_DCtx *zstd;
    char *packed; // zstd: bytes read and not yet unpacked
    ZSTD_inBuffer in;
    size_t frame_left; // zstd: not 0 inside a frame
    uint64_t used;
};

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static err *open_gz(text_source *s) {
    s->gz = gzdopen(s->fd, "rb");
    if (!s->gz) return err_new(ERR_SYSTEM, "no memory to unpack %s", s->path);
    s->fd = -1;
    gzbuffer(s->gz, 1 << 18);
    if (gzdirect(s->gz))
        return err_new(ERR_INPUT,
                       "%s is not gzip data, though its name ends in .gz: rename it, or pack it again",
                       s->path);
    return NULL;
}

static err *open_zstd(text_source *s) {
    s->zstd = ZSTD_createDCtx();
    s->packed = malloc(ZSTD_DStreamInSize());
    if (!s->zstd || !s->packed) return err_new(ERR_SYSTEM, "no memory to unpack %s", s->path);
    s->in = (ZSTD_inBuffer){.src = s->packed};
    return NULL;
}

err *source_open(const char *path, text_source **out) {
    err *e = NULL;
    *out = NULL;
    text_source *s = calloc(1, sizeof *s);
    if (!s) return err_new(ERR_SYSTEM, "no memory");
    s->fd = -1;
    s->path = strdup(path);
    if (!s->path) FAIL(ERR_SYSTEM, "no memory");
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) TRY(err_errno(errno, "cannot open %s", path));
    (void)posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    if (ends_with(path, ".gz")) TRY(open_gz(s));
    if (ends_with(path, ".zst")) TRY(open_zstd(s));
    *out = s;
    s = NULL;
done:
    source_close(s);
    return e;
}

static err *read_fd(text_source *s, char *buffer, size_t capacity, size_t *got) {
    ssize_t n;
    do n = read(s->fd, buffer, capacity);
    while (n < 0 && errno == EINTR);
    if (n < 0) return err_errno(errno, "cannot read %s", s->path);
    s->used += (uint64_t)n;
    *got = (size_t)n;
    return NULL;
}

static err *read_gz(text_source *s, char *buffer, size_t capacity, size_t *got) {
    int n = gzread(s->gz, buffer, capacity > 1 << 30 ? 1 << 30 : (unsigned)capacity);
    int code = Z_OK;
    const char *why = gzerror(s->gz, &code);
    // Z_BUF_ERROR is zlib's word for "the file ends inside a member"
    if (n < 0 || code == Z_BUF_ERROR)
        return err_new(ERR_INPUT, "%s is damaged or cut short (%s): get the file again", s->path, why);
    z_off_t at = gzoffset(s->gz);
    if (at > 0) s->used = (uint64_t)at;
    *got = (size_t)n;
    return NULL;
}

static err *refill(text_source *s, bool *end) {
    size_t n = 0;
    err *e = read_fd(s, s->packed, ZSTD_DStreamInSize(), &n);
    s->in.pos = 0;
    s->in.size = n;
    *end = n == 0;
    return e;
}

static err *read_zstd(text_source *s, char *buffer, size_t capacity, size_t *got) {
    err *e = NULL;
    ZSTD_outBuffer out = {.dst = buffer, .size = capacity};
    while (out.pos == 0) {
        bool end = false;
        if (s->in.pos == s->in.size) {
            TRY(refill(s, &end));
            if (end && s->used == 0) FAIL(ERR_INPUT, "%s is empty: not a .zst file", s->path);
            if (end && s->frame_left == 0) break; // else the context may still hold text
        }
        s->frame_left = ZSTD_decompressStream(s->zstd, &out, &s->in);
        if (ZSTD_isError(s->frame_left))
            FAIL(ERR_INPUT, "%s is not good Zstandard data (%s)", s->path, ZSTD_getErrorName(s->frame_left));
        if (end && out.pos == 0)
            FAIL(ERR_INPUT, "%s is cut short inside a Zstandard frame: get the file again", s->path);
    }
    *got = out.pos;
done:
    return e;
}

err *source_read(text_source *s, char *buffer, size_t capacity, size_t *got) {
    *got = 0;
    if (s->gz) return read_gz(s, buffer, capacity, got);
    if (s->zstd) return read_zstd(s, buffer, capacity, got);
    return read_fd(s, buffer, capacity, got);
}

uint64_t source_position(const text_source *s) { return s->used; }

void source_close(text_source *s) {
    if (!s) return;
    if (s->gz) gzclose(s->gz);
    if (s->fd >= 0) close(s->fd);
    ZSTD_freeDCtx(s->zstd);
    free(s->packed);
    free(s->path);
    free(s);
}
