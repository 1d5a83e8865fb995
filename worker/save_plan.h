// Who writes what of a checkpoint. Every tensor of the model is written whole, by one of the ranks of its
// stage; the optimizer's state as it lies, in pieces: a range of a tensor rank's slice. All data and tensor
// ranks of a stage share the work, largest first to the one that has least; nothing is sent for the
// optimizer, and of the model only what tensor ranks hold of a tensor goes to the one that writes it.
#ifndef SOLAR_SAVE_PLAN_H
#define SOLAR_SAVE_PLAN_H

#include "optim.h"

enum { KIND_MODEL = -1 }; // else an optim_kind

typedef struct save_piece { // consecutive bytes of one file, written by this rank
    const tensor_row *row;
    int kind;
    slice s;       // optimizer: the slice that it is a range of; model: the whole tensor
    int64_t at, n; // elements of the slice
    // In the snapshot, from `offset` on: a model tensor as its slices, one tensor rank's after another; a
    // piece of the optimizer as it lay on the device.
    size_t offset;
    optim_copy copy; // how
    dtype dt;        // in the file
    size_t bytes;    // in the file
    int file;        // of this rank, 0..; a file holds either model tensors or optimizer pieces
} save_piece;

typedef struct save_plan {
    save_piece *piece;
    int pieces;
    int *writer;     // [table->count] data*tp + tensor rank that writes the model tensor, in its stage
    int files;       // of this rank
    int first_model; // number of this rank's first model file among all ranks' model files
    int model_files; // of this rank: files 0..model_files-1
    int all_models;  // model files of all ranks
    size_t bytes;    // of the snapshot: all pieces, each on 64 bytes
} save_plan;

// p's weights must be listed (own_at and own_n set); memory is not looked at. file_bytes: no file grows
// larger than this by another tensor. Not collective, and the same on every rank but for what is the rank's
// own.
err *save_plan_make(const part *p, int64_t file_bytes, save_plan *out);
void save_plan_free(save_plan *s);
const char *save_kind_suffix(int kind); // "", ".exp_avg", ...

#endif
