#include "document_index.h"

#include <stdlib.h>

enum { BLOCK = 1024 }; // starts read at a time

struct document_index {
    tokens_file *file;
    uint64_t documents, blocks;
    uint64_t *first; // [blocks] first start of every block + 1; 0: not read yet
    uint64_t start[BLOCK];
};

err *document_index_open(tokens_file *f, document_index **out) {
    document_index *x = calloc(1, sizeof *x);
    *out = NULL;
    if (x) {
        x->file = f;
        x->documents = tokens_get_info(f)->documents;
        x->blocks = (x->documents + BLOCK - 1) / BLOCK;
        x->first = calloc(x->blocks + 1, sizeof *x->first);
    }
    if (!x || !x->first) {
        free(x);
        return err_new(ERR_SYSTEM, "%s: no memory for an index of documents", tokens_path(f));
    }
    *out = x;
    return NULL;
}

void document_index_close(document_index *x) {
    if (!x) return;
    free(x->first);
    free(x);
}

static err *first_start(document_index *x, uint64_t block, uint64_t *start) {
    err *e = NULL;
    if (!x->first[block]) {
        TRY(tokens_documents(x->file, block * BLOCK, 1, start));
        x->first[block] = *start + 1;
    }
    *start = x->first[block] - 1;
done:
    return e;
}

// The last block that starts at or before a token. The first starts at 0.
static err *find_block(document_index *x, uint64_t token, uint64_t *block) {
    err *e = NULL;
    uint64_t low = 0, high = x->blocks, start;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        TRY(first_start(x, middle, &start));
        if (start <= token)
            low = middle;
        else
            high = middle;
    }
    *block = low;
done:
    return e;
}

err *document_index_mark(document_index *x, uint64_t first, uint64_t count, int32_t *ids) {
    err *e = NULL;
    uint64_t block;
    TRY(find_block(x, first, &block));
    for (; block < x->blocks; block++) {
        uint64_t left = x->documents - block * BLOCK, n = left < BLOCK ? left : BLOCK;
        TRY(tokens_documents(x->file, block * BLOCK, n, x->start));
        for (uint64_t i = 0; i < n; i++) {
            if (x->start[i] < first) continue;
            if (x->start[i] - first >= count) goto done;
            ids[x->start[i] - first] = ~ids[x->start[i] - first];
        }
    }
done:
    return e;
}
