#include "tokens.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "h5.h"

// Larger chunks than anybody needs; a hostile file could otherwise ask for any amount of memory.
static const hsize_t CHUNK_LIMIT = (hsize_t)1 << 26;

struct tokens_file {
    char *path;
    tokens_info info;
    hid_t file, tokens, documents;
    // Chunks stored as they are can be read past the library, with pread: shuffled windows are short,
    // and the library's cost of a read is several times that of the system call.
    int fd; // the library's own; -1: the library reads
    uint64_t chunk;
    uint64_t *chunk_at; // offset in the file + 1; 0: not asked for yet
    uint16_t *narrow;   // scratch of one read
    uint64_t narrow_capacity;
};

static hid_t access_list(void) {
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
#if H5_VERSION_GE(1, 10, 7)
    // parallel file systems often have no locks, and nobody writes a published token file
    H5Pset_file_locking(list, false, true);
#endif
    return list;
}

static err *open_file(tokens_file *f) {
    err *e = NULL;
    hid_t list = -1;
    if (access(f->path, R_OK) != 0) return err_new(ERR_INPUT, "cannot read %s: %s", f->path, strerror(errno));
    list = access_list();
    f->file = H5Fopen(f->path, H5F_ACC_RDONLY, list);
    if (f->file < 0) TRY(h5_err(ERR_INPUT, "not an HDF5 file that can be opened, or a damaged one"));
done:
    if (list >= 0) H5Pclose(list);
    return e;
}

static err *read_attributes(tokens_file *f) {
    err *e = NULL;
    int64_t version, eos;
    TRY(h5_read_int(f->file, "format_version", &version));
    if (version != 1)
        FAIL(ERR_INPUT, "format_version is %lld; this program reads version 1", (long long)version);
    TRY(h5_read_int(f->file, "vocab_size", &f->info.vocab));
    if (f->info.vocab < 1 || f->info.vocab > INT32_MAX)
        FAIL(ERR_INPUT, "vocab_size is %lld; expected 1 to %d", (long long)f->info.vocab, INT32_MAX);
    TRY(h5_read_int(f->file, "eos_id", &eos));
    if (eos < -1 || eos >= f->info.vocab)
        FAIL(ERR_INPUT, "eos_id is %lld; expected -1 (none) to %lld", (long long)eos,
             (long long)f->info.vocab - 1);
    f->info.eos = (int32_t)eos;
    TRY(h5_read_text(f->file, "tokenizer", f->info.tokenizer, sizeof f->info.tokenizer));
    TRY(h5_read_text(f->file, "tokenizer_sha256", f->info.sha256, sizeof f->info.sha256));
    TRY(h5_read_text(f->file, "source", f->info.source, sizeof f->info.source));
done:
    return e;
}

static err *check_type(hid_t set, const char *name, size_t least, size_t most, int *width) {
    hid_t type = H5Dget_type(set);
    bool whole = type >= 0 && H5Tget_class(type) == H5T_INTEGER && H5Tget_sign(type) == H5T_SGN_NONE;
    size_t n = type >= 0 ? H5Tget_size(type) : 0;
    if (type >= 0) H5Tclose(type);
    if (!whole || (n != least && n != most))
        return err_new(ERR_INPUT, "%s has elements of %zu bytes that are %s; expected uint%zu%s", name, n,
                       whole ? "unsigned integers" : "not unsigned integers", 8 * most,
                       least == most ? "" : " or uint16");
    *width = (int)n;
    return NULL;
}

static err *check_length(hid_t set, const char *name, uint64_t *count) {
    hid_t space = H5Dget_space(set);
    hsize_t size = 0;
    int rank = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
    if (rank == 1) H5Sget_simple_extent_dims(space, &size, NULL);
    if (space >= 0) H5Sclose(space);
    if (rank != 1) return err_new(ERR_INPUT, "%s has %d dimensions; expected 1", name, rank);
    *count = size;
    return NULL;
}

// Storage of an ordinary kind, and enough of it. *chunk 0: contiguous.
static err *check_storage(hid_t set, const char *name, uint64_t bytes, uint64_t *chunk, bool *filtered) {
    err *e = NULL;
    hid_t list = H5Dget_create_plist(set);
    hsize_t chunk_size = 0;
    H5D_layout_t layout = list >= 0 ? H5Pget_layout(list) : H5D_LAYOUT_ERROR;
    if ((layout != H5D_CHUNKED && layout != H5D_CONTIGUOUS) || H5Pget_external_count(list) != 0)
        FAIL(ERR_INPUT, "%s is stored neither in chunks nor in one piece of this file", name);
    if (layout == H5D_CHUNKED) H5Pget_chunk(list, 1, &chunk_size);
    if (chunk_size > CHUNK_LIMIT)
        FAIL(ERR_INPUT, "%s is stored in chunks of %llu elements; at most %llu are read", name,
             (unsigned long long)chunk_size, (unsigned long long)CHUNK_LIMIT);
    *filtered = H5Pget_nfilters(list) != 0;
    uint64_t stored = H5Dget_storage_size(set);
    if (bytes > 0 && (stored == 0 || (!*filtered && stored < bytes)))
        FAIL(ERR_INPUT,
             "%s says it has %llu bytes, but only %llu are stored: the file was not written to its end", name,
             (unsigned long long)bytes, (unsigned long long)stored);
    *chunk = chunk_size;
done:
    if (list >= 0) H5Pclose(list);
    return e;
}

static err *open_set(tokens_file *f, const char *name, hid_t access, hid_t *out) {
    if (H5Lexists(f->file, name, H5P_DEFAULT) <= 0)
        return err_new(ERR_INPUT, "there is no dataset %s; was the file written by `solar tokenize`?", name);
    *out = H5Dopen2(f->file, name, access);
    return *out < 0 ? h5_err(ERR_INPUT, "the dataset %s cannot be opened", name) : NULL;
}

// The descriptor under an open file, -1 when it is not an ordinary one.
static int descriptor(hid_t file) {
    void *handle = NULL;
    hid_t list = H5Fget_access_plist(file);
    bool ordinary = H5Pget_driver(list) == H5FD_SEC2;
    if (!ordinary || H5Fget_vfd_handle(file, list, &handle) < 0) handle = NULL;
    H5Pclose(list);
    return handle ? *(int *)handle : -1;
}

// Sets f up to read chunks past the library where their bytes are the tokens.
static err *open_direct(tokens_file *f, bool filtered) {
    hsize_t user_block = 0;
    hid_t list = H5Fget_create_plist(f->file), type = H5Dget_type(f->tokens);
    H5Pget_userblock(list, &user_block);
    bool plain = !filtered && f->chunk > 0 && user_block == 0 && f->info.tokens > 0 &&
                 H5Tequal(type, f->info.width == 2 ? H5T_NATIVE_UINT16 : H5T_NATIVE_UINT32) > 0;
    H5Tclose(type);
    H5Pclose(list);
    if (!plain) return NULL;
    uint64_t chunks = (f->info.tokens + f->chunk - 1) / f->chunk;
    f->chunk_at = calloc(chunks, sizeof *f->chunk_at);
    if (!f->chunk_at)
        return err_new(ERR_SYSTEM, "no memory for the places of %llu chunks", (unsigned long long)chunks);
    f->fd = descriptor(f->file);
    return NULL;
}

static err *open_tokens(tokens_file *f) {
    err *e = NULL;
    bool filtered = false;
    hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
    // room for a few packed chunks, each of which has to be unpacked whole for any token of it
    H5Pset_chunk_cache(access, 521, (size_t)16 << 20, 1.0);
    TRY(open_set(f, "tokens", access, &f->tokens));
    TRY(check_type(f->tokens, "/tokens", 2, 4, &f->info.width));
    TRY(check_length(f->tokens, "/tokens", &f->info.tokens));
    if (f->info.tokens > UINT64_MAX / 8) FAIL(ERR_INPUT, "/tokens claims an impossible length");
    TRY(check_storage(f->tokens, "/tokens", f->info.tokens * (uint64_t)f->info.width, &f->chunk, &filtered));
    TRY(open_direct(f, filtered));
done:
    H5Pclose(access);
    return e;
}

static err *open_documents(tokens_file *f) {
    err *e = NULL;
    int width;
    bool filtered;
    uint64_t chunk;
    TRY(open_set(f, "documents", H5P_DEFAULT, &f->documents));
    TRY(check_type(f->documents, "/documents", 8, 8, &width));
    TRY(check_length(f->documents, "/documents", &f->info.documents));
    if (f->info.documents > f->info.tokens)
        FAIL(ERR_INPUT, "%llu documents cannot share %llu tokens", (unsigned long long)f->info.documents,
             (unsigned long long)f->info.tokens);
    if (f->info.documents == 0 && f->info.tokens > 0)
        FAIL(ERR_INPUT, "/documents is empty, but there are %llu tokens", (unsigned long long)f->info.tokens);
    TRY(check_storage(f->documents, "/documents", f->info.documents * 8, &chunk, &filtered));
done:
    return e;
}

err *tokens_open(const char *path, tokens_file **out) {
    err *e = NULL;
    *out = NULL;
    tokens_file *f = calloc(1, sizeof *f);
    if (!f) return err_new(ERR_SYSTEM, "no memory");
    f->file = f->tokens = f->documents = -1;
    f->fd = -1;
    h5_lock();
    f->path = strdup(path);
    if (!f->path) FAIL(ERR_SYSTEM, "no memory");
    TRY(open_file(f));
    TRY(read_attributes(f));
    TRY(open_tokens(f));
    TRY(open_documents(f));
    *out = f;
    f = NULL;
done:
    h5_unlock();
    tokens_close(f);
    return err_wrap(e, "%s", path);
}

void tokens_close(tokens_file *f) {
    if (!f) return;
    h5_lock();
    if (f->documents >= 0) H5Dclose(f->documents);
    if (f->tokens >= 0) H5Dclose(f->tokens);
    if (f->file >= 0) H5Fclose(f->file);
    h5_unlock();
    free(f->chunk_at);
    free(f->narrow);
    free(f->path);
    free(f);
}

const tokens_info *tokens_get_info(const tokens_file *f) { return &f->info; }
const char *tokens_path(const tokens_file *f) { return f->path; }

static err *read_range(hid_t set, hid_t memory_type, uint64_t first, uint64_t count, void *out) {
    err *e = NULL;
    hsize_t start = first, n = count;
    hid_t space = H5Dget_space(set), memory = H5Screate_simple(1, &n, NULL);
    if (H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &n, NULL) < 0 ||
        H5Dread(set, memory_type, memory, space, H5P_DEFAULT, out) < 0)
        e = h5_err(ERR_INPUT, "elements %llu to %llu cannot be read: is the file damaged?",
                   (unsigned long long)first, (unsigned long long)(first + count - 1));
    H5Sclose(memory);
    H5Sclose(space);
    return e;
}

static err *find_chunk(tokens_file *f, uint64_t chunk) {
    hsize_t offset = chunk * f->chunk, bytes = 0;
    haddr_t at = HADDR_UNDEF;
    unsigned mask = 0;
    h5_lock();
    herr_t failed = H5Dget_chunk_info_by_coord(f->tokens, &offset, &mask, &at, &bytes);
    err *e = failed < 0 ? h5_err(ERR_INPUT, "chunk %llu cannot be found", (unsigned long long)chunk) : NULL;
    h5_unlock();
    if (!e && (at == HADDR_UNDEF || bytes != f->chunk * (uint64_t)f->info.width))
        e = err_new(ERR_INPUT, "chunk %llu of /tokens is not there: the file was not written to its end",
                    (unsigned long long)chunk);
    if (!e) f->chunk_at[chunk] = at + 1;
    return e;
}

static err *pread_all(tokens_file *f, void *to, size_t bytes, uint64_t at) {
    char *p = to;
    while (bytes > 0) {
        ssize_t n = pread(f->fd, p, bytes, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_errno(errno, "cannot read %zu bytes at %llu", bytes, (unsigned long long)at);
        if (n == 0) return err_new(ERR_INPUT, "ends at a place where tokens should stand: cut short?");
        p += n;
        at += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return NULL;
}

// Stored tokens, as they are, chunk by chunk.
static err *read_direct(tokens_file *f, uint64_t first, uint64_t count, void *to) {
    err *e = NULL;
    char *p = to;
    uint64_t width = (uint64_t)f->info.width;
    while (count > 0) {
        uint64_t chunk = first / f->chunk, inside = first % f->chunk;
        uint64_t n = count < f->chunk - inside ? count : f->chunk - inside;
        if (f->chunk_at[chunk] == 0) TRY(find_chunk(f, chunk));
        TRY(pread_all(f, p, n * width, f->chunk_at[chunk] - 1 + inside * width));
        p += n * width;
        first += n;
        count -= n;
    }
done:
    return e;
}

static err *reserve_narrow(tokens_file *f, uint64_t count) {
    if (count <= f->narrow_capacity) return NULL;
    free(f->narrow);
    f->narrow_capacity = 0;
    f->narrow = calloc(count, sizeof *f->narrow);
    if (!f->narrow) return err_new(ERR_SYSTEM, "no memory to read %llu tokens", (unsigned long long)count);
    f->narrow_capacity = count;
    return NULL;
}

static err *read_tokens(tokens_file *f, uint64_t first, uint64_t count, uint32_t *out) {
    err *e = NULL;
    if (f->fd < 0) {
        h5_lock();
        e = read_range(f->tokens, H5T_NATIVE_UINT32, first, count, out);
        h5_unlock();
    } else if (f->info.width == 4) {
        e = read_direct(f, first, count, out);
    } else {
        TRY(reserve_narrow(f, count));
        TRY(read_direct(f, first, count, f->narrow));
        for (uint64_t i = 0; i < count; i++) out[i] = f->narrow[i];
    }
done:
    return e;
}

static err *check_ids(const tokens_file *f, uint64_t first, uint64_t count, const uint32_t *id) {
    uint32_t largest = 0;
    for (uint64_t i = 0; i < count; i++) largest = id[i] > largest ? id[i] : largest;
    if (largest < f->info.vocab) return NULL;
    uint64_t i = 0;
    while (id[i] < f->info.vocab) i++;
    return err_new(ERR_INPUT, "token %llu is %u, outside the vocabulary of %lld ids that the file names",
                   (unsigned long long)(first + i), id[i], (long long)f->info.vocab);
}

err *tokens_read(tokens_file *f, uint64_t first, uint64_t count, int32_t *out) {
    err *e = NULL;
    if (count == 0) return NULL;
    if (first > f->info.tokens || count > f->info.tokens - first)
        FAIL(ERR_INPUT, "tokens %llu to %llu were asked for, there are %llu", (unsigned long long)first,
             (unsigned long long)(first + count - 1), (unsigned long long)f->info.tokens);
    TRY(read_tokens(f, first, count, (uint32_t *)out));
    TRY(check_ids(f, first, count, (const uint32_t *)out));
done:
    return err_wrap(e, "%s", f->path);
}

static err *check_offsets(const tokens_file *f, uint64_t first, uint64_t count, const uint64_t *at) {
    for (uint64_t i = 0; i < count; i++) {
        bool good = first + i == 0 ? at[0] == 0 : at[i] < f->info.tokens && (i == 0 || at[i] > at[i - 1]);
        if (!good)
            return err_new(ERR_INPUT,
                           "document %llu starts at token %llu; starts must be 0 first, then ascend, "
                           "and stay below %llu",
                           (unsigned long long)(first + i), (unsigned long long)at[i],
                           (unsigned long long)f->info.tokens);
    }
    return NULL;
}

err *tokens_documents(tokens_file *f, uint64_t first, uint64_t count, uint64_t *out) {
    err *e = NULL;
    if (count == 0) return NULL;
    if (first > f->info.documents || count > f->info.documents - first)
        FAIL(ERR_INPUT, "documents %llu to %llu were asked for, there are %llu", (unsigned long long)first,
             (unsigned long long)(first + count - 1), (unsigned long long)f->info.documents);
    h5_lock();
    e = read_range(f->documents, H5T_NATIVE_UINT64, first, count, out);
    h5_unlock();
    if (!e) e = check_offsets(f, first, count, out);
done:
    return err_wrap(e, "%s", f->path);
}
