// The part of the model that this rank holds: weights, gradients, optimizer state, activations and scratch,
// all from one arena. Nothing here communicates.
#ifndef SOLAR_PART_H
#define SOLAR_PART_H

#include "arena.h"
#include "mesh.h"
#include "recompute.h"
#include "samples.h"
#include "schedule.h"
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
    bool sequence; // sequence parallel: between the products every tensor rank has its share of the rows
    dtype grads;   // in which gradients are kept: DT_F32, or dt. Each micro-batch is summed in fp32
    dtype
        reduce; // in which gradients travel between data ranks, at most what they are kept in; summed in fp32
    moments_form moments;     // how the optimizer keeps them
    bool offload;             // in the host's memory; the device must not compute there
    bool shard;               // every data rank keeps its share of the optimizer state only (ZeRO-1)
    recompute_kind recompute; // of the layers whose index is a multiple of recompute_every
    int recompute_every;      // 0 is as 1
    int micro;                // micro-batches of a step; 1 unless TRAIN
    bool mask_documents;      // a row attends within its document, and is counted from the document's start
} part_shape;

// This rank's slice of one logical tensor.
typedef struct weight {
    const tensor_row *row;
    slice s;
    int64_t n;     // elements of the slice
    bool tied;     // the last stage's copy of a tied embedding
    void *w;       // [n] dt
    int16_t *rest; // [own_n] what bf16 weights lack of fp32 (float_split); NULL when dt is F32
    void *grad;    // [n] shape.grads
    int64_t flat;  // place in the order of all weights of the part, in elements
    // The optimizer state of elements own_at .. own_at+own_n-1 of the slice is this data rank's: m, v and
    // rest hold these alone. All of the slice where the optimizer is not sharded over data ranks.
    int64_t own_at, own_n;
    // Moments, [own_n] in the form shape.moments. Of MOMENTS_INT8 in blocks, the first of `lead` elements:
    // blocks begin at multiples of MOMENT_BLOCK of the flat order, so that the end of no data rank's share
    // cuts one.
    void *m, *v;
    float *m_largest, *v_largest; // of every block
    int64_t lead;
    float lr_scale; // multiplies the learning rate; 0: frozen. 1 when made
} weight;

typedef struct linear { // y[T,out] = x[T,in] w^T + b; w [out,in]
    int64_t in, out;
    void *w, *b; // b NULL: no bias
    void *dw, *db;
} linear;

typedef struct norm {
    void *w; // [hidden]
    void *dw;
} norm;

typedef struct layer {
    int index; // in the scaled model
    int64_t window;
    norm n1, n2;
    recompute_kind recompute;
    linear qkv, o, gate_up, down; // qkv: query heads, then key heads, then value heads of this rank
} layer;

// What one layer keeps of one micro-batch; T token rows. With sequence parallelism x, n1, x2, n2 and what
// else is [T,hidden] have this rank's rows only. What it does not keep lies in part.redo, which all layers
// share: it holds during a layer's own forward or backward only.
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
    layer_acts *acts; // [layers of the virtual stage]
    void *out;        // [T,hidden] what goes to the next stage; on the last stage the input of the final norm
    void *final;      // [T,hidden] last stage: final norm
    float *rstd;      // [T] last stage
} slot;

// Consecutive layers of this rank; without interleaving there is one such run of them.
typedef struct vstage {
    int index;          // among the virtual stages of the whole pipeline
    bool first, last;   // has the embedding; has the final norm and the head
    int layer0, layers; // part.layer[layer0 ..]
    int slots;          // micro-batches in flight, as the schedule promises
    slot *slot;         // [slots]
    void *spare;        // [T,hidden] where the input of the next micro-batch arrives while another is at work
} vstage;

// Weights whose gradients travel between data ranks together, as one range of the flat order. Data rank d
// sums and owns elements bucket_cut(b, dp, d) .. bucket_cut(b, dp, d+1)-1.
enum { FLAT_UNIT = 64 };
typedef struct bucket {
    int64_t lo, hi; // flat, multiples of FLAT_UNIT
    int layer; // complete once the backward pass is through part.layer[layer]; `layers`: through the head;
               // -1: at the end of the step
} bucket;

typedef struct scratch {
    void *delta;         // [T,hidden] output of a block before it is added
    void *grad[3];       // [T,hidden] gradient of the residual stream: one at work, one leaving, one arriving
    void *dn;            // [T,hidden]
    void *whole;         // [all rows,hidden] sequence parallel: rows of all tensor ranks
    void *partial;       // [all rows,hidden] sequence parallel: this rank's share of a sum
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
    int32_t *chain;      // [T] first stage: for the embedding's gradient
    char *stream[2];     // offloaded moments on their way through the device: room for stream_elements
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
    int64_t local;                // rows of [T,hidden] arrays: tokens, or this rank's share of them at most
    int64_t chunk;                // rows of logits at a time
    bool first, last;             // holds the embedding; holds the final norm and the head
    int weights, layers, vstages, buckets;
    weight *weight;
    bool sharded;            // data ranks own different parts of the optimizer's state (weight.own_at, own_n)
    layer *layer;            // [layers] of all virtual stages
    vstage *vstage;          // [vstages]
    bucket *bucket;          // [buckets] in the order in which they become complete
    int64_t flat;            // elements of all weights, each padded to a multiple of FLAT_UNIT
    int64_t stream_elements; // of moments that are on their way at a time; a multiple of MOMENT_BLOCK
    action *schedule;        // [2*micro*vstages]; TRAIN
    // Of a copy of weights and optimizer state (snapshot.h): what it waits for; what an update waits for.
    event *unsaved, *saved;
    void *embed; // [vocab,hidden], first stage
    void *d_embed;
    norm fnorm;      // last stage
    linear head;     // last stage; the embedding itself when tied and there is one stage
    layer_acts redo; // what recomputed layers do not keep
    scratch work;
    float *cos, *sin;          // [rows, head_dim/2]
    int32_t *positions;        // [T] 0..rows-1 for every sequence
    int32_t *inputs, *targets; // [micro*T] tokens of the step
    int32_t *doc_start;        // [micro*T] first row of every row's document, and
    int32_t *doc_positions;    // the row's position in it; NULL unless documents are masked
} part;

// Bytes from one moment to the other in scratch.stream, and from the largest of one's blocks to the other's.
size_t part_stream_bytes(const part *p, size_t *largest);
// Counts (dev NULL) or builds. Not collective. ERR_CONFIG: moments are to be offloaded from the host's
// memory. The counted part has arena sizes and no memory: free it too.
err *part_make(const model_spec *spec, const depth_plan *plan, const layout *stages, const table *t,
               const mesh *m, const part_shape *shape, device *dev, part **out);
void part_free(part *p);
// Does this rank work on tokens? The ends of the pipeline do; all, where documents are masked.
bool part_takes_samples(const part *p);
// n rows of a step, from row 0 on; rows->target may be NULL. Only on a rank that takes samples.
void part_upload_rows(part *p, const token_rows *rows, int64_t n);
// The same, queued: by way of staged[4*n], pinned memory that is left alone until the device has done it.
void part_take_rows(part *p, const token_rows *rows, int64_t n, int32_t *staged);

int64_t bucket_cut(const bucket *b, int dp, int d);
// The elements of a weight within the range lo..hi-1 of the flat order, from *at on; 0 when there are none.
int64_t weight_within(const weight *w, int64_t lo, int64_t hi, int64_t *at);
void *weight_gradient(const part *p, const weight *w, int64_t at); // of its elements from `at` on
// Elements of a weight, from *at on, whose gradient this data rank sums over all and counts; maybe none.
// Equal to own_at and own_n when the optimizer is sharded.
int64_t weight_share(const part *p, const weight *w, int64_t *at);
// Rows of T that this tensor rank has between the products: all, or its share; *first is the first of them.
int64_t part_rows(const part *p, bool sequence, int64_t T, int64_t *first);

#endif
