// A device on paper: it computes nothing and tells what each operation would cost. The training step, run on
// it, is the plan of itself. Its memory has addresses and no contents: what it allocates is what a real
// device would be asked for, and a download gives zeros.
#ifndef SOLAR_COST_H
#define SOLAR_COST_H

#include "ops.h"

typedef enum op_kind {
    OP_PRODUCT,   // matrix products
    OP_ATTENTION, // scores, softmax and their products
    OP_LAYER,     // norms, rotation, gate, biases, sums, embedding, copies
    OP_LOSS,      // cross-entropy
    OP_OPTIMIZER, // AdamW, gradient norms, clearing of gradients
    OP_KINDS,
} op_kind;
const char *op_kind_name(op_kind k); // "products", ...

// FLOP are multiplications and additions of products and attention only; what else an operation computes is
// in the time that its bytes take. Attention counts the pairs of query and key that the causal mask and the
// window leave; full_flop counts all pairs, the other usual convention. Documents inside a sequence are not
// known here.
typedef struct op_cost {
    op_kind kind;
    dtype dt;
    double flop, full_flop;
    double bytes; // read and written, each operand once
} op_cost;

typedef struct cost_listener cost_listener;
struct cost_listener {
    void (*op)(cost_listener *self, const op_cost *c);
};

// The listener (or NULL) hears every operation in call order and outlives the device. Not collective.
err *plan_device_open(cost_listener *l, device **out);
size_t plan_device_allocated(const device *d); // bytes asked for since it was opened

#endif
