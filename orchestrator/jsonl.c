#include "jsonl.h"

#include <stdlib.h>
#include <string.h>

#include "fsutil.h"

static const size_t most_bytes = (size_t)1 << 32;

err *jsonl_read(const char *path, void (*take)(void *context, json_t *line), void *context) {
    err *e = NULL;
    char *text = NULL;
    size_t bytes = 0;
    if (!path_exists(path)) return NULL;
    TRY(read_file(path, most_bytes, &text, &bytes));
    for (char *line = text, *end; (end = memchr(line, '\n', bytes - (size_t)(line - text))); line = end + 1) {
        json_t *value = json_loadb(line, (size_t)(end - line), 0, NULL);
        if (json_is_object(value)) take(context, value);
        json_decref(value);
    }
done:
    free(text);
    return e;
}
