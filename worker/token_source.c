#include "token_source.h"

#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static err *find_files(const char *pattern, glob_t *found) {
    int rc = glob(pattern, GLOB_ERR, NULL, found);
    if (rc == GLOB_NOMATCH || (rc == 0 && found->gl_pathc == 0))
        return err_new(ERR_INPUT, "no file is named %s; `solar tokenize` makes token files", pattern);
    if (rc != 0) return err_errno(rc == GLOB_NOSPACE ? ENOMEM : errno, "cannot look for %s", pattern);
    // glob's own order follows the locale, and the order of samples must not
    qsort(found->gl_pathv, found->gl_pathc, sizeof *found->gl_pathv, by_bytes);
    return NULL;
}

// Every file is kept open: lets the process have that many, as far as its hard limit goes.
static err *allow_files(size_t more) {
    struct rlimit limit;
    rlim_t want = (rlim_t)more + 256;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= want) return NULL;
    if (limit.rlim_max < want)
        return err_new(
            ERR_SYSTEM,
            "%zu token files cannot be open at once: the limit is %llu; raise it (ulimit -n), or make "
            "fewer and larger files",
            more, (unsigned long long)limit.rlim_max);
    limit.rlim_cur = want;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? NULL
                                                 : err_errno(errno, "cannot allow %zu open files", more);
}

static const char *describe(const tokens_info *info) {
    return info->sha256[0] ? info->sha256 : "none (bytes)";
}

static err *check_file(const token_source *s, const tokens_file *f, const stream_check *check) {
    const tokens_info *info = tokens_get_info(f), *first = tokens_get_info(s->file[0]);
    const char *model = check->tokenizer_sha256;
    if (info->vocab > check->vocab)
        return err_new(
            ERR_INPUT,
            "%s: made with a vocabulary of %lld ids, the model has %lld (legal ids 0 to %lld); tokenize "
            "the text with the model's tokenizer",
            tokens_path(f), (long long)info->vocab, (long long)check->vocab, (long long)check->vocab - 1);
    if (check->allow_mismatch) return NULL;
    if (model && model[0] && strcmp(model, info->sha256) != 0)
        return err_new(
            ERR_INPUT,
            "%s: made with the tokenizer %s, SHA-256 %s, the model's is %s; tokenize the text again, or "
            "allow it (data.allow_tokenizer_mismatch, --allow-tokenizer-mismatch) if you know them to be the "
            "same vocabulary",
            tokens_path(f), info->tokenizer, describe(info), model);
    if (strcmp(first->sha256, info->sha256) != 0)
        return err_new(
            ERR_INPUT,
            "%s: made with the tokenizer %s, SHA-256 %s, but %s with %s, %s; tokenize them alike, or "
            "allow it (data.allow_tokenizer_mismatch, --allow-tokenizer-mismatch) if you know them to be the "
            "same vocabulary",
            tokens_path(f), info->tokenizer, describe(info), tokens_path(s->file[0]), first->tokenizer,
            describe(first));
    return NULL;
}

static err *add_file(token_source *s, const char *path, const stream_check *check) {
    err *e = NULL;
    tokens_file *f = NULL;
    TRY(tokens_open(path, &f));
    s->file[s->files] = f;
    uint64_t tokens = tokens_get_info(f)->tokens;
    uint64_t windows = tokens ? (tokens - 1) / (uint64_t)s->seq_len : 0;
    s->first[s->files + 1] = s->first[s->files] + windows;
    s->files++;
    s->tokens += tokens;
    if (s->documents) TRY(document_index_open(f, &s->documents[s->files - 1]));
    TRY(check_file(s, f, check));
done:
    return e;
}

err *token_source_open(const source_config *config, int64_t seq_len, const stream_check *check,
                       token_source *out) {
    err *e = NULL;
    glob_t found = {0};
    token_source s = {.seq_len = seq_len};
    if (seq_len < 1) FAIL(ERR_CONFIG, "seq_len is %lld; expected at least 1", (long long)seq_len);
    TRY(find_files(config->files, &found));
    TRY(allow_files(found.gl_pathc));
    s.file = calloc(found.gl_pathc, sizeof *s.file);
    s.first = calloc(found.gl_pathc + 1, sizeof *s.first);
    if (check->mark_documents) s.documents = calloc(found.gl_pathc, sizeof *s.documents);
    if (!s.file || !s.first || (check->mark_documents && !s.documents)) FAIL(ERR_SYSTEM, "no memory");
    for (size_t i = 0; i < found.gl_pathc; i++) TRY(add_file(&s, found.gl_pathv[i], check));
    if (token_source_windows(&s) == 0)
        FAIL(ERR_INPUT,
             "%s: %llu tokens in %d files are too few for one sample of %lld + 1 tokens; give more text or a "
             "smaller data.seq_len",
             config->files, (unsigned long long)s.tokens, s.files, (long long)seq_len);
    *out = s;
    s = (token_source){0};
done:
    globfree(&found);
    token_source_close(&s);
    return e;
}

void token_source_close(token_source *s) {
    for (int i = 0; i < s->files; i++) {
        if (s->documents) document_index_close(s->documents[i]);
        tokens_close(s->file[i]);
    }
    free(s->documents);
    free(s->file);
    free(s->first);
    *s = (token_source){0};
}

uint64_t token_source_windows(const token_source *s) { return s->first[s->files]; }

static int file_of(const token_source *s, uint64_t window, uint64_t *token) {
    int low = 0, high = s->files; // the last file that starts at or before the window
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (s->first[middle] <= window)
            low = middle;
        else
            high = middle;
    }
    *token = (window - s->first[low]) * (uint64_t)s->seq_len;
    return low;
}

tokens_file *token_source_find(const token_source *s, uint64_t window, uint64_t *token) {
    return s->file[file_of(s, window, token)];
}

err *token_source_read(const token_source *s, uint64_t window, int32_t *out) {
    uint64_t token, count = (uint64_t)s->seq_len + 1;
    int file = file_of(s, window, &token);
    err *e = tokens_read(s->file[file], token, count, out);
    return e || !s->documents ? e : document_index_mark(s->documents[file], token, count, out);
}
