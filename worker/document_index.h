// Which tokens of a token file begin a document. The starts stay in the file: a few thousand of them are read
// for a window, found by bisection over blocks whose first start is remembered once it was asked for.
#ifndef SOLAR_DOCUMENT_INDEX_H
#define SOLAR_DOCUMENT_INDEX_H

#include "tokens.h"

typedef struct document_index document_index;
// The file is borrowed. Not collective; one thread at a time.
err *document_index_open(tokens_file *f, document_index **out);
void document_index_close(document_index *x); // NULL is fine
// ids: tokens first .. first+count-1 of the file. Those that begin a document become their complement, ~id,
// which is negative. ERR_INPUT: the file's starts are damaged.
err *document_index_mark(document_index *x, uint64_t first, uint64_t count, int32_t *ids);

#endif
