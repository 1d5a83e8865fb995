// Forward and backward of this rank's part of the model on one micro-batch. Every function that takes a `run`
// is collective over the tensor group of its communicator, and nothing else; messages between pipeline stages
// are the caller's business (step.c, infer.c).
#ifndef SOLAR_MODEL_H
#define SOLAR_MODEL_H

#include "comm.h"
#include "part.h"

// What a call works on: `batch` sequences of `rows` tokens in the buffers of a slot of a virtual stage. With
// first > 0 (batch 1, PART_CACHE) only rows first..rows-1 are computed; the keys and values before them are
// kept. With sequence parallelism [T,hidden] buffers hold this rank's rows (part_rows).
typedef struct run {
    part *p;
    comm *c;
    const vstage *v;
    slot *s;
    int64_t batch, rows, first;
    // [batch*rows] device, within those of the part: where documents are masked, the part's starts and
    // positions of the same rows are used on every stage; the tokens themselves on the first and the last
    // one.
    const int32_t *inputs, *targets;
    // After the backward pass of a layer (an index into part.layer); NULL: nobody asks.
    err *(*layer_done)(void *who, int layer);
    void *who;
} run;

// Elements of [T,hidden] that this rank has, and sends from stage to stage.
int64_t run_elements(const run *r);
// Input of the first stage: s->acts[0].x from the embedding (summed over the vocabulary parts).
err *model_embed(const run *r);
// All layers of the virtual stage; s->acts[0].x holds the input, s->out gets the output of the last layer.
err *model_layers(const run *r);
// Last stage: s->final = norm of s->out.
err *model_final_norm(const run *r);
// Last stage, after final norm: loss of every row to work.loss, without gradients.
err *model_loss(const run *r);
// Last stage: logits of `count` rows from row `at` of s->final (this rank's vocabulary rows) to work.logits,
// fp32 [count,vocab]; count <= chunk.
err *model_logits(const run *r, int64_t at, int64_t count);

// Last stage: loss to work.loss and its gradient, times `scale`, back through head and final norm:
// `grad` [T,hidden] = gradient of s->out.
err *model_head_grad(const run *r, float scale, void *grad);
// Back through all layers: `grad` holds the gradient of s->out, and of s->acts[0].x afterwards.
err *model_layers_grad(const run *r, void *grad);
// First stage: gradient of the embedding.
err *model_embed_grad(const run *r, void *grad);

#endif
