// The part of the model that this rank holds: weights, gradients, optimizer state, activations and scratch,
// all from one arena. Nothing here communicates.
#ifndef SOLAR_PART_H
#define SOLAR_PART_H

#include "arena.h"
#include "mesh.h"
#include "recompute.h"
#include "spec.h"
#include "table.h"

typedef enum part_use {
    PART_TRAIN, // gradients, optimizer, activations kept for the backward pass
    PART_INFER, // one set of activations shared by all layers
    PART_CACHE, // as INFER, but every layer keeps its keys and values (generation)
} part_use;

typedef struct part_shape {
    dtype dt;
    part_use use;
    int64_t batch, rows; // most sequences of a micro-batch, most tokens of a sequence
    int slots;           // micro-batches in flight (1F1B: min(stages - stage, micro-batches)); 1 unless TRAIN
    recompute_kind recompute; // of the layers whose index is a multiple of recompute_every
    int recompute_every;      // 0 is as 1
    int micro;                // micro-batches of a step; 1 unless TRAIN
} part_shape;

// This rank's slice of one logical tensor.
typedef struct weight {
    const tensor_row *row;
    slice s;
    int64_t n;     // elements of the slice
    bool tied;     // the last stage's copy of a tied embedding
    void *w;       // [n] dt
    float *master; // [own_n] fp32; when dt is F32 it is w itself, [n]
    float *grad;   // [n]
    // The optimizer state of elements own_at .. own_at+own_n-1 of the slice is this data rank's: m, v and the
    // master copy hold these alone. All of the slice where the optimizer is not sharded over data ranks.
    int64_t own_at, own_n;
    float *m, *v;   // [own_n]
    float lr_scale; // multiplies the learning rate; 0: frozen. 1 when made
} weight;

typedef struct linear { // y[T,out] = x[T,in] w^T + b; w [out,in]
    int64_t in, out;
    void *w, *b; // b NULL: no bias
    float *dw, *db;
} linear;

typedef struct norm {
    void *w; // [hidden]
    float *dw;
} norm;

typedef struct layer {
    int index; // in the scaled model
    int64_t window;
    norm n1, n2;
    recompute_kind recompute;
    linear qkv, o, gate_up, down; // qkv: query heads, then key heads, then value heads of this rank
} layer;

// What one layer keeps of one micro-batch; T token rows. What it does not keep lies in part.redo, which all
// layers share: it holds during a layer's own forward or backward only.
typedef struct layer_acts {
    void *x;   // [T,hidden] input of the layer
    void *n1;  // [T,hidden] its norm
    void *qkv; // [T,qkv.out] after rope
    void *att; // [T,o.in]
    void *x2;  // [T,hidden] after attention
    void *n2;  // [T,hidden]
    void *gu;  // [T,2 ffn]
    void *act; // [T,ffn]
    float *rstd1, *rstd2, *lse;
} layer_acts;

typedef struct slot { // one micro-batch in flight
    layer_acts *acts; // [layers]
    void *out;        // [T,hidden] what goes to the next stage; on the last stage the input of the final norm
    void *final;      // [T,hidden] last stage: final norm
    float *rstd;      // [T] last stage
} slot;

typedef struct scratch {
    void *delta;         // [T,hidden] output of a block before it is added
    void *grad[2];       // [T,hidden] gradient of the residual stream, by parity of the micro-batch
    void *dn;            // [T,hidden]
    void *dqkv;          // [T,qkv.out]
    void *datt;          // [T,o.in]
    void *dact, *dgu;    // [T,ffn], [T,2 ffn]
    float *delta_att;    // [batch*heads*rows]
    float *norm_partial; //
    float *logits;       // [chunk,vocabulary rows]
    void *dlogits;       // the same in dt
    float *stats;        // [chunk,3]
    float *all_stats;    // [tp,chunk,3]
    float *lse, *loss;   // [chunk], [T]
    double *sums;        // [weights + micro + 1] results of reductions on the device
} scratch;

typedef struct part {
    const model_spec *spec; // borrowed, as are the next four: they outlive the part
    const depth_plan *plan;
    const layout *stages;
    const table *table;
    mesh m;
    part_shape shape;
    device *dev; // NULL when only counted
    arena mem;
    int64_t heads, kv_heads, ffn; // of this rank
    int64_t vocab_first, vocab;   // vocabulary rows of this rank
    int64_t tokens;               // batch*rows: T at most
    int64_t chunk;                // rows of logits at a time
    bool first, last;             // pipeline ends
    int weights, layers;
    weight *weight;
    bool sharded; // data ranks own different parts of the optimizer's state (weight.own_at, own_n)
    layer *layer;
    void *embed; // [vocab,hidden], first stage
    float *d_embed;
    norm fnorm;      // last stage
    linear head;     // last stage; the embedding itself when tied and there is one stage
    slot *slot;      // [slots]
    layer_acts redo; // what recomputed layers do not keep
    scratch work;
    float *cos, *sin;          // [rows, head_dim/2]
    int32_t *positions;        // [T] 0..rows-1 for every sequence
    int32_t *inputs, *targets; // [micro*T] tokens of the step
} part;

// Counts (dev NULL) or builds. Not collective. The counted part has arena sizes and no memory: free it too.
err *part_make(const model_spec *spec, const depth_plan *plan, const layout *stages, const table *t,
               const mesh *m, const part_shape *shape, device *dev, part **out);
void part_free(part *p);
// Micro-batches in flight of a stage under 1F1B.
int part_slots(const mesh *m, int64_t micro);

#endif
