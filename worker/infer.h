// Forward passes without gradients: losses of documents and validation sets, logits, generation. They use
// slot 0 of a part (of any use), so that a training part evaluates itself between steps.
#ifndef SOLAR_INFER_H
#define SOLAR_INFER_H

#include "comm.h"
#include "model.h"

// Runs `batch` sequences of `rows` tokens (host, [batch*rows]; t->start and t->position exactly when the part
// masks documents) through all stages. batch 1, or rows equal to the part's; first > 0 continues a PART_CACHE
// sequence. On the last stage *out describes the run (final norm done; out->targets set from t->target when
// not NULL). Collective over the ranks of one data-parallel place.
err *infer_forward(part *p, comm *c, const token_rows *t, int64_t batch, int64_t rows, int64_t first,
                   run *out);
// As above and the loss, added to *sum: the summed loss of the rows whose target is >= 0, and their number
// (nothing on other ranks than the last stage's tensor rank 0, so that a sum over ranks counts it once).
typedef struct loss_sum {
    double loss, predicted;
} loss_sum;
err *infer_loss(part *p, comm *c, const token_rows *t, int64_t batch, int64_t rows, loss_sum *sum);
// Logits of the last row, all vocab of them, to host `logits` on every rank of this data place.
// Collective over the ranks of one data-parallel place.
err *infer_last_logits(part *p, comm *c, const run *r, float *logits);

#endif
