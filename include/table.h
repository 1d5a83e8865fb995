// The tensor table: one row for every logical tensor of a model. Loading, saving, the optimizer,
// verification and the plan iterate over this table and nothing else.
#ifndef SOLAR_TABLE_H
#define SOLAR_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "depth.h"
#include "err.h"
#include "mesh.h"
#include "safetensors.h"
#include "spec.h"

typedef enum role {
    R_EMBED,
    R_NORM1, // input_layernorm
    R_Q,
    R_K,
    R_V,
    R_QB,
    R_KB,
    R_VB,
    R_O,
    R_OB,
    R_NORM2, // post_attention_layernorm
    R_GATE,
    R_UP,
    R_GATEB,
    R_UPB,
    R_DOWN,
    R_DOWNB,
    R_FNORM, // model.norm
    R_HEAD,  // lm_head; no row when tied
    R_COUNT,
} role;

bool role_is_output(role r); // o_proj, down_proj and their biases: what a layer adds to the residual stream

typedef struct tensor_row {
    char name[80];  // Hugging Face name in the scaled model
    char donor[80]; // name in the base model
    role role;
    int layer; // -1 outside the layers
    int stage; // pipeline rank that holds it: 0 for the embedding, the last for final norm and head
    int ndim;
    int64_t shape[2]; // shape[1] is 1 for vectors
    int axis;         // tensor-parallel axis: 0 rows, 1 columns, -1 replicated
    int64_t units;    // things dealt out along the axis: heads, kv heads, features, vocabulary rows
    bool decay;       // weight decay applies (matrices)
    bool zero;        // begins as zeros, not as its donor: outputs of LAYER_ZERO
} tensor_row;

typedef struct table {
    int count;
    int base_layers; // of the model that the donors are in
    bool tied;       // the head is the embedding
    tensor_row *row; // in the order of the model: embedding, layers, final norm, head
} table;

// `stages` may be NULL: everything is on stage 0.
err *table_make(const model_spec *scaled, const depth_plan *plan, const layout *stages, table **out);
void table_free(table *t);
const tensor_row *table_find(const table *t, const char *name);
int64_t tensor_elements(const tensor_row *r);

// Are the tensors of `files` those of the table (under their donors' names with donor_names)? One missing,
// of the wrong shape, or not of this model: ERR_INPUT naming it. With donor_names, layers of the base
// model that the plan leaves out may be there. Two harmless extras are allowed: `*.rotary_emb.inv_freq`
// silently, a `lm_head.weight` of a tied model with a warning, as Transformers ignores it too.
err *table_check_files(const table *t, const st_set *files, bool donor_names);

// The part of a tensor that tensor rank t of tp holds.
typedef struct slice {
    int64_t row0, rows, col0, cols; // within shape
    int copies;                     // tensor ranks that hold this very slice (kv heads replicated, axis -1)
    int copy;                       // which of them this is, 0 first
} slice;

// Heads must divide evenly by tp, and kv heads by tp or tp by kv heads; features and vocabulary rows may
// be dealt unevenly (rank t gets units*t/tp .. units*(t+1)/tp-1). Whether a model can be split by tp at
// all is asked of table_check_tp once; slices are then plain arithmetic.
slice tensor_slice(const tensor_row *r, int tp, int t);
err *table_check_tp(const model_spec *s, int tp); // ERR_CONFIG says what would divide

#endif
