// Every key of the run config, in the order in which people read it.
#include "schema.h"

#include <stdio.h>
#include <string.h>

#include "scalar.h"

#define AT(member)       offsetof(config, member)
#define OF(member)       offsetof(source_config, member)
#define IN_BLEND(member) offsetof(blend_config, member)
#define IN_PHASE(member) offsetof(schedule_phase, member)

_Static_assert(sizeof(schedule_kind) == sizeof(int) && sizeof(dtype) == sizeof(int),
               "KEY_CHOICE stores an int");
_Static_assert(SCHED_WSD == 0 && SCHED_COSINE == 1 && SCHED_LINEAR == 2 && SCHED_CONSTANT == 3,
               "the order of the words of schedule.kind");
_Static_assert(sizeof(recompute_kind) == sizeof(int) && RECOMPUTE_SELECTIVE == 1 && RECOMPUTE_FULL == 2,
               "the order of the words of train.recompute");
_Static_assert(sizeof(mesh_order) == sizeof(int) && MESH_TDP == 0 && MESH_TPD == 1 && MESH_DTP == 2 &&
                   MESH_DPT == 3 && MESH_PTD == 4 && MESH_PDT == 5,
               "the order of the words of mesh.order");
_Static_assert(MOMENTS_F32 == 0 && MOMENTS_BF16 == 1 && MOMENTS_INT8 == 2,
               "the order of the words of optimizer.moments");
_Static_assert(DT_F32 == 0 && DT_BF16 == 1, "the order of the words of train.precision");
_Static_assert(AT(optimizer.beta2) == AT(optimizer.beta1) + sizeof(double), "betas are a KEY_PAIR");

// clang-format off
const key schema[] = {
    {"run.dir", KEY_PATH, AT(run.dir), 0, NULL, NULL, NULL,
     "Directory of the run: resolved config, plan, metrics and checkpoints. Made if absent; relative to the "
     "current directory. Training on an existing one resumes."},
    {"run.seed", KEY_INT, AT(run.seed), 0, "1", "[0, 9007199254740991]", NULL,
     "Seed of the order of samples and of random weights. The mesh does not change what it gives."},

    {"run.deadline", KEY_TEXT, AT(run.deadline), 0, "null", NULL, NULL,
     "When the program has to have ended, as 2030-12-31T23:59:00 (local time; with a Z behind it UTC) or in seconds "
     "since 1970. By default the end of the Slurm job, if it is in one. It stops in time to save, by the step and "
     "save times that it measures."},
    {"run.margin", KEY_REAL, AT(run.margin), 0, "60.0", "[0, 1000000]", "seconds",
     "Time to spare before the deadline, beside what steps and saves take."},

    {"model.base", KEY_PATH, AT(model.base), 0, NULL, NULL, NULL,
     "Base model: a Hugging Face directory (config.json, safetensors, tokenizer files). Relative to the "
     "current directory, else to the config file. With init: random only config.json and tokenizer files are "
     "read."},
    {"model.init", KEY_CHOICE_BOOL, AT(model.random), 0, "pretrained", "pretrained|random", NULL,
     "Start from the base model's weights, or from random ones drawn from run.seed."},
    {"model.dus.m", KEY_INT, AT(model.dus_m), 0, "null", "[0, 100000]", "layers",
     "Depth up-scaling: layers cut from the end of copy A and from the start of copy B of the n base layers, "
     "giving 2(n-m). Without model.dus the base is trained as it is."},
    {"model.dus.layers", KEY_LAYERS, AT(model.dus_layers), 0, "null", "zc", "layers",
     "Depth up-scaling, general form: the base layer that each scaled layer is copied from, as inclusive "
     "ranges such as [0-23, 8-31]. Instead of m. With z behind it a part is new, and its outputs (o_proj, down_proj) "
     "begin as zeros, such as [0-3, 3z, 4-7, 7z]; with c it is new, and a plain copy."},
    {"model.dus.insert.every", KEY_INT, AT(model.insert_every), 0, "null", "[1, 100000]", "layers",
     "Inserts a new layer behind every k-th layer (of the base, or of what m or layers make): a copy of that layer."},
    {"model.dus.insert.after", KEY_LAYERS, AT(model.insert_after), 0, "null", "", "layers",
     "Instead of every: inserts a new layer behind each of these, such as [7, 15, 23, 31]; one named twice gets two."},
    {"model.dus.insert.init", KEY_CHOICE_TEXT, AT(model.insert_init), 0, "null", "zero_out|copy", NULL,
     "How new layers begin. zero_out (also when left out): o_proj and down_proj and their biases are zero, so that the "
     "deepened model computes what it computed before, as in LLaMA Pro; copy: as they were copied."},

    {"data.seq_len", KEY_INT, AT(data.seq_len), 0, NULL, "[1, 16777216]", "tokens",
     "Length of a training sequence."},
    {"data.train", KEY_SOURCES, AT(data.train), AT(data.n_train), NULL, NULL, NULL,
     "Sources of training samples, blended by weight."},
    {"data.train[].files", KEY_PATH, OF(files), 0, NULL, NULL, NULL,
     "Token file or pattern (*, ?, [...]), made by `solar tokenize`. Relative to the current directory, else "
     "to the config file."},
    {"data.train[].name", KEY_TEXT, OF(name), 0, "(from files)", NULL, NULL,
     "Name of the source in reports: by default the file's name without .h5, or for a pattern its "
     "directory."},
    {"data.train[].weight", KEY_REAL, OF(weight), 0, "1.0", "[0, inf)", NULL,
     "Share of the samples, relative to the sum of the weights. 0: none, until data.blend changes it."},
    {"data.blend", KEY_BLENDS, AT(data.blend), AT(data.n_blend), "[]", NULL, NULL,
     "Changes of the blend: from the sample `at` on, the sources of data.train have these weights. Every source goes on "
     "where it was, so that no sample is skipped or repeated. What lies ahead of a run may be changed when it resumes."},
    {"data.blend[].at", KEY_INT, IN_BLEND(at), 0, NULL, "[1, 9007199254740991]", "samples",
     "First sample of the run (as samples_consumed counts them) that this blend is for; ascending."},
    {"data.blend[].weights", KEY_REALS, IN_BLEND(weights), IN_BLEND(n_weights), NULL, "[0, inf)", NULL,
     "Weight of every source of data.train, in its order. 0: none."},
    {"data.valid", KEY_SOURCES, AT(data.valid), AT(data.n_valid), "[]", NULL, NULL,
     "Validation sets, each measured by itself."},
    {"data.valid[].files", KEY_PATH, OF(files), 0, NULL, NULL, NULL,
     "Token file or pattern, as in data.train."},
    {"data.valid[].name", KEY_TEXT, OF(name), 0, "(from files)", NULL, NULL,
     "Name of the set in reports, as in data.train."},
    {"data.valid[].samples", KEY_INT, OF(samples), 0, "0", "[0, 1000000000000]", "sequences",
     "Sequences to measure on, spread evenly over the files, the same every time. 0: all."},
    {"data.shuffle", KEY_BOOL, AT(data.shuffle), 0, "true", NULL, NULL,
     "Visit the sequences of a source in a random order given by run.seed, else in the order of the files."},
    {"data.mask_documents", KEY_BOOL, AT(data.mask_documents), 0, "false", NULL, NULL,
     "Keep the documents of a sequence apart: attention does not look across their boundaries (/documents of the token "
     "files), positions begin anew in each, and its first token is not predicted. Validation likewise."},
    {"data.allow_tokenizer_mismatch", KEY_BOOL, AT(data.allow_tokenizer_mismatch), 0, "false", NULL, NULL,
     "Train although the token files were made with another tokenizer than the model's."},

    {"mesh.auto", KEY_BOOL, AT(mesh.automatic), 0, "false", NULL, NULL,
     "Choose pipeline, interleave, tensor, train.micro_batch and train.recompute: of the meshes that fit the machine's memory, the "
     "one with the shortest estimated step. Of these keys, one that is not at its default stays as it is. `mesh: auto` is short for `mesh: {auto: true}`. A run keeps what it began "
     "with while the number of ranks allows it."},
    {"mesh.machine", KEY_TEXT, AT(mesh.machine), 0, "null", NULL, NULL,
     "Machine of slurm/machines.yaml that mesh.auto and `solar plan` estimate for. By default cpu with train.device "
     "cpu, else h100 in `solar plan`; `solar train` wants to be told."},
    {"mesh.pipeline", KEY_INT, AT(mesh.pipeline), 0, "1", "[1, 4096]", "ranks",
     "Pipeline stages. Ranks / (pipeline x tensor) are data parallel."},
    {"mesh.tensor", KEY_INT, AT(mesh.tensor), 0, "1", "[1, 4096]", "ranks",
     "Ranks that share every layer of a stage."},
    {"mesh.interleave", KEY_INT, AT(mesh.interleave), 0, "1", "[1, 1024]", "virtual stages",
     "Virtual stages of every pipeline rank. 1: 1F1B; v > 1: interleaved 1F1B, which divides the idle share of the "
     "pipeline by v and sends v times as many messages. pipeline x interleave may not exceed the layers."},
    {"mesh.order", KEY_CHOICE, AT(mesh.order), 0, "tdp", "tdp|tpd|dtp|dpt|ptd|pdt", NULL,
     "Which ranks are neighbours, innermost first: t tensor, d data, p pipeline. tdp keeps tensor ranks together (on "
     "one host, when they are as many as its ranks or divide them); dpt or pdt spreads them over hosts."},
    {"mesh.sequence_parallel", KEY_BOOL, AT(mesh.sequence_parallel), 0, "false", NULL, NULL,
     "Between the products of a layer (norms, residuals, what goes from stage to stage) every tensor rank has its share "
     "of the tokens instead of all: less memory, as many bytes sent."},
    {"mesh.layout", KEY_INTS, AT(mesh.layers_per_stage), AT(mesh.n_layers_per_stage), "null",
     "[1, 100000]", "layers",
     "Layers of each (virtual) pipeline stage, such as [12, 12, 12, 12]. By default such that the most expensive stage, "
     "head included, costs as little as it can, with the seams on stage boundaries."},
    {"mesh.seam_inside", KEY_BOOL, AT(mesh.seam_inside), 0, "false", NULL, NULL,
     "Let mesh.layout put a seam inside a stage although there are boundaries enough."},
    {"mesh.transport", KEY_CHOICE_TEXT, AT(mesh.transport), 0, "auto", "auto|mpi|nccl", NULL,
     "How the memory of GPUs travels between ranks. nccl: from GPU to GPU; every rank needs one of its own. mpi: through the "
     "host; ranks may share a GPU. auto: nccl where it can be, else mpi. Sums have the same order and the same bits "
     "either way."},

    {"train.global_batch", KEY_INT, AT(train.global_batch), 0, NULL, "[1, 16777216]", "sequences",
     "Sequences of one optimizer step, over all ranks."},
    {"train.micro_batch", KEY_INT, AT(train.micro_batch), 0, "1", "[1, 65536]", "sequences",
     "Sequences that a rank computes at once."},
    {"train.steps", KEY_INT, AT(train.steps), 0, NULL, "[1, 1000000000]", "steps",
     "Optimizer steps of the whole run."},
    {"train.precision", KEY_CHOICE, AT(train.precision), 0, "fp32", "fp32|bf16", NULL,
     "Arithmetic of the model. bf16 accumulates in fp32, and updates fp32 weights: the optimizer keeps the 16 bits that "
     "the bf16 ones lack."},
    {"train.grad_accum", KEY_CHOICE, AT(train.grad_accum), 0, "fp32", "fp32|bf16", NULL,
     "In which type gradients are kept and added over the micro-batches of a step. bf16, with precision bf16 only, takes half "
     "the memory: each micro-batch is summed in fp32 and rounded once as it is added (the head's gradient once a chunk of "
     "rows), so that the error grows with the number of micro-batches. With few of them it is that of bf16 itself; where memory "
     "allows, fp32 is better, and optimizer.moments saves more."},
    {"train.grad_reduce", KEY_CHOICE, AT(train.grad_reduce), 0, "fp32", "fp32|bf16", NULL,
     "In which type gradients travel between data ranks. bf16 halves the bytes; each rank's gradient is rounded, the sum is "
     "formed in fp32. Gradients that are kept in bf16 (grad_accum) travel so."},
    {"train.device", KEY_CHOICE_TEXT, AT(train.device), 0, "auto", "auto|cpu|cuda", NULL,
     "Where to compute. auto: a GPU when there is one and this build can use it."},
    {"train.threads", KEY_INT, AT(train.threads), 0, "0", "[0, 4096]", "threads",
     "Threads of each rank on the CPU. 0: from the cores that the launcher gave."},

    {"train.recompute", KEY_CHOICE, AT(train.recompute), 0, "none", "none|selective|full", NULL,
     "What the backward pass computes again instead of keeping it: none; selective: norms, attention and the "
     "gated product; full: whole layers from their input. The numbers are the same, bit for bit."},
    {"train.recompute_every", KEY_INT, AT(train.recompute_every), 0, "1", "[1, 100000]", "layers",
     "Recompute every k-th layer only; the others keep everything."},

    {"train.on_bad_step", KEY_CHOICE_BOOL, AT(train.skip_bad), 0, "stop", "stop|skip", NULL,
     "What to do with a step whose loss or gradient is not finite, or a spike: never an update. stop: end the run; "
     "skip: go on with the next samples."},
    {"train.max_skipped", KEY_INT, AT(train.max_skipped), 0, "10", "[1, 1000000]", "steps",
     "Bad steps in a row that end the run even so."},
    {"train.spike_sigma", KEY_REAL, AT(train.spike_sigma), 0, "0.0", "[0, 1000]", "standard deviations",
     "A step is bad too when its loss or gradient norm exceeds the mean of the last spike_window good steps by this "
     "many standard deviations. 0: off."},
    {"train.spike_window", KEY_INT, AT(train.spike_window), 0, "64", "[2, 1024]", "steps",
     "Good steps that spikes are judged by."},

    {"optimizer.kind", KEY_ONLY, 0, 0, "adamw", "adamw", NULL,
     "AdamW: Adam with decoupled weight decay."},
    {"optimizer.lr", KEY_REAL, AT(optimizer.lr), 0, "2e-5", "(0, 10]", NULL,
     "Highest learning rate."},
    {"optimizer.betas", KEY_PAIR, AT(optimizer.beta1), 0, "[0.9, 0.95]", "[0, 1)", NULL,
     "Decay of the running means of the gradient and of its square."},
    {"optimizer.eps", KEY_REAL, AT(optimizer.eps), 0, "1e-8", "(0, 1]", NULL,
     "Added to the square root in the update's denominator."},
    {"optimizer.weight_decay", KEY_REAL, AT(optimizer.weight_decay), 0, "0.1", "[0, 100]", NULL,
     "Decay of matrices, times the learning rate; norms and biases do not decay."},
    {"optimizer.clip_norm", KEY_REAL, AT(optimizer.clip_norm), 0, "1.0", "[0, inf)", NULL,
     "Gradients are scaled down to this global L2 norm. 0: off."},

    {"optimizer.moments", KEY_CHOICE, AT(optimizer.moments), 0, "fp32", "fp32|bf16|int8", NULL,
     "How the two running means are kept between updates: 8, 4 or 2.13 bytes a parameter. bf16: rounded at random, so that "
     "the mean is exact; int8: codes of 8 bits beside the largest of every 64. The random numbers depend on run.seed, the update "
     "and the element, not on the mesh."},
    {"optimizer.offload", KEY_BOOL, AT(optimizer.offload), 0, "false", NULL, NULL,
     "Keep the moments in the host's memory: every update copies them to the GPU, chunk by chunk, and back, which takes "
     "their bytes twice over its link to the host. The same numbers. Not with device cpu."},
    {"optimizer.shard", KEY_BOOL, AT(optimizer.shard), 0, "true", NULL, NULL,
     "ZeRO-1: every data rank keeps and updates its share of the optimizer state only. The same bits as without."},

    {"lr_scale.embedding", KEY_REAL, AT(lr_scale.embedding), 0, "1.0", "[0, 1000]", NULL,
     "Multiplies the learning rate of the embedding (and of a tied head). 0 freezes: no update, no decay, no share in "
     "the gradient norm. The same for the next six."},
    {"lr_scale.head", KEY_REAL, AT(lr_scale.head), 0, "1.0", "[0, 1000]", NULL, "Of the head and the final norm."},
    {"lr_scale.half_a", KEY_REAL, AT(lr_scale.half_a), 0, "1.0", "[0, 1000]", NULL,
     "Of the layers in front of the first seam; of all layers when there is no seam."},
    {"lr_scale.half_b", KEY_REAL, AT(lr_scale.half_b), 0, "1.0", "[0, 1000]", NULL, "Of the layers behind the first seam."},
    {"lr_scale.seam", KEY_REAL, AT(lr_scale.seam), 0, "1.0", "[0, 1000]", NULL,
     "Of the seam_width layers on either side of every seam, whichever half they are in."},
    {"lr_scale.new", KEY_REAL, AT(lr_scale.fresh), 0, "1.0", "[0, 1000]", NULL,
     "Of the layers that are new (model.dus.insert, or marked in model.dus.layers), wherever they are."},
    {"lr_scale.old", KEY_REAL, AT(lr_scale.old), 0, "1.0", "[0, 1000]", NULL,
     "Multiplies the rate of everything but new layers once more. 0: only new layers are trained, as in LLaMA Pro."},
    {"lr_scale.seam_width", KEY_INT, AT(lr_scale.seam_width), 0, "0", "[0, 100000]", "layers",
     "How many layers on either side of a seam lr_scale.seam is for."},
    {"lr_scale.until", KEY_INT, AT(lr_scale.until), 0, "0", "[0, 1000000000]", "steps",
     "Last step that the multipliers apply to, such as the end of a warm-up of the seam alone. 0: always."},

    {"schedule.kind", KEY_CHOICE, AT(schedule.kind), 0, "wsd", "wsd|cosine|linear|constant", NULL,
     "Learning rate after the warm-up. wsd: constant, then linear down to min_lr over the last `decay` "
     "steps; cosine, linear: down to min_lr over all steps."},
    {"schedule.warmup", KEY_INT, AT(schedule.warmup), 0, "0", "[0, 1000000000]", "steps",
     "First steps, over which the rate rises linearly from 0."},
    {"schedule.decay", KEY_INT, AT(schedule.decay), 0, "0", "[0, 1000000000]", "steps",
     "Last steps, over which the rate falls. Only wsd uses it."},
    {"schedule.min_lr", KEY_REAL, AT(schedule.min_lr), 0, "0.0", "[0, 10]", NULL,
     "Learning rate at the end. constant does not use it."},
    {"schedule.steps", KEY_INT, AT(schedule.steps), 0, "0", "[0, 1000000000]", "steps",
     "Steps that the schedule is drawn over. 0: up to the first of schedule.phases, else train.steps. Say how many were "
     "meant when a phase cuts it short, so that the rates up to there stay what they were."},
    {"schedule.phases", KEY_PHASES, AT(schedule.phases), AT(schedule.n_phases), "[]", NULL, NULL,
     "Schedules that follow, to warm up and decay once more: the warm-up rises (or falls) from the rate that the phase "
     "before has reached. A finished run goes on with a larger train.steps and a phase at its former one."},
    {"schedule.phases[].at", KEY_INT, IN_PHASE(at), 0, NULL, "[1, 1000000000]", "steps",
     "Step behind which the phase begins; ascending."},
    {"schedule.phases[].kind", KEY_CHOICE, IN_PHASE(kind), 0, "wsd", "wsd|cosine|linear|constant", NULL,
     "As schedule.kind; the phase ends where the next begins, the last at train.steps."},
    {"schedule.phases[].lr", KEY_REAL, IN_PHASE(lr), 0, "(optimizer.lr)", "(0, 10]", NULL,
     "Highest learning rate of the phase."},
    {"schedule.phases[].warmup", KEY_INT, IN_PHASE(warmup), 0, "0", "[0, 1000000000]", "steps",
     "First steps of the phase, over which the rate goes linearly to lr."},
    {"schedule.phases[].decay", KEY_INT, IN_PHASE(decay), 0, "0", "[0, 1000000000]", "steps",
     "Last steps of the phase, over which the rate falls. Only wsd uses it."},
    {"schedule.phases[].min_lr", KEY_REAL, IN_PHASE(min_lr), 0, "0.0", "[0, 10]", NULL,
     "Learning rate at the end of the phase."},
    {"schedule.phases[].steps", KEY_INT, IN_PHASE(steps), 0, "0", "[0, 1000000000]", "steps",
     "As schedule.steps, of the phase."},

    {"checkpoint.every", KEY_INT, AT(checkpoint.every), 0, "500", "[0, 1000000000]", "steps",
     "Steps between checkpoints; one is always written at the end. 0: only at the end."},
    {"checkpoint.keep", KEY_INT, AT(checkpoint.keep), 0, "3", "[0, 1000000]", "checkpoints",
     "Newest checkpoints to keep. 0: all."},
    {"checkpoint.keep_every", KEY_INT, AT(checkpoint.keep_every), 0, "0", "[0, 1000000000]", "steps",
     "Checkpoints of steps divisible by this stay for ever, beside the newest. 0: none."},
    {"checkpoint.keep_best", KEY_INT, AT(checkpoint.keep_best), 0, "0", "[0, 1000000]", "checkpoints",
     "So many checkpoints of the lowest validation loss stay, beside the newest. Only those of steps with a validation "
     "count. 0: none."},
    {"checkpoint.minutes", KEY_REAL, AT(checkpoint.minutes), 0, "0.0", "[0, 1000000]", "minutes",
     "Longest time without a checkpoint, counted from the last. 0: only steps count. A file named SAVE in run.dir, or "
     "SIGUSR2 to any rank, asks for one at the next step; a file named STOP for one and the end of the program."},
    {"checkpoint.when_busy", KEY_CHOICE_BOOL, AT(checkpoint.wait), 0, "later", "later|wait", NULL,
     "When a checkpoint is due while the last one is still being written: save at the first step at which it is "
     "done, or make training wait for it."},
    {"checkpoint.file_size", KEY_INT, AT(checkpoint.file_mib), 0, "4096", "[1, 1048576]", "MiB",
     "Size at which a rank begins another file. A tensor is never split."},

    {"eval.every", KEY_INT, AT(eval.every), 0, "250", "[0, 1000000000]", "steps",
     "Steps between validations; one is always made at the start and at the end. 0: only those."},
    {"eval.base", KEY_BOOL, AT(eval.base), 0, "(true with a dus)", NULL, NULL,
     "Measure the base model's own validation loss at the start, to judge recovery by. By default true where "
     "it can be: with model.dus, pretrained weights and data.valid."},
    {"eval.stop_when_recovered", KEY_BOOL, AT(eval.stop_when_recovered), 0, "false", NULL, NULL,
     "End the run at the first validation at or below the base model's loss."},

    {"log.every", KEY_INT, AT(log.every), 0, "10", "[1, 1000000000]", "steps",
     "Steps between lines of the log."},

    {"log.slow_factor", KEY_REAL, AT(log.slow_factor), 0, "1.5", "[0, 1000]", "times",
     "A rank that works so many times as long as the median of its peers (the ranks of its pipeline stage) is named, with "
     "host and phase, at every line of the log. 0: never."},

    {"log.seam_every", KEY_INT, AT(log.seam_every), 0, "0", "[0, 1000000000]", "steps",
     "Steps between reports of layers (in metrics.jsonl, and as a table in seam.txt of the run): gradient norm, "
     "distance from the donor, size and direction of the output. 0: none. Reads the base model's weights each time."},
    {"log.timeline_every", KEY_INT, AT(log.timeline_every), 0, "0", "[0, 1000000000]", "steps",
     "Steps between charts of a step in timeline.txt of the run: which stage worked on which micro-batch when, as measured "
     "and as planned, and the share of time that it waited. 0: none."},

    {"timeout.start", KEY_REAL, AT(timeout.start), 0, "1800.0", "[0, inf)", "seconds",
     "Before the first step: how long a silent rank may take before the job ends. 0: wait for ever."},
    {"timeout.step", KEY_REAL, AT(timeout.step), 0, "600.0", "[0, inf)", "seconds",
     "From the first step on: how long a silent rank may take before the job ends. 0: wait for ever. On GPUs the host waits once in a step, for about as long as the step takes: leave room for that."},
};
// clang-format on
const int schema_keys = (int)(sizeof schema / sizeof schema[0]);

const key *schema_find(const char *path) {
    for (const key *k = schema; k < schema + schema_keys; k++)
        if (!strcmp(k->path, path)) return k;
    return NULL;
}

bool schema_is_section(const char *path) {
    size_t length = strlen(path);
    for (const key *k = schema; k < schema + schema_keys; k++)
        if (!strncmp(k->path, path, length) && k->path[length] == '.') return true;
    return false;
}

size_t item_bytes(key_type t) {
    return t == KEY_SOURCES  ? sizeof(source_config)
           : t == KEY_BLENDS ? sizeof(blend_config)
           : t == KEY_PHASES ? sizeof(schedule_phase)
                             : 0;
}

const char *item_example(key_type t) {
    return t == KEY_SOURCES  ? "{files: web/*.h5}"
           : t == KEY_BLENDS ? "{at: 1000000, weights: [0.5, 0.5]}"
                             : "{at: 20000, lr: 1e-5, warmup: 100, decay: 2000}";
}

const key *schema_items(const key *list, int *count) {
    size_t length = strlen(list->path);
    const key *first = list + 1, *k = first;
    while (k < schema + schema_keys && !strncmp(k->path, list->path, length) && k->path[length] == '[') k++;
    *count = (int)(k - first);
    return first;
}

bool key_is_optional(const key *k) {
    return k->preset && (!strcmp(k->preset, "null") || k->preset[0] == '(');
}

const char *key_leaf(const key *k) {
    const char *dot = strrchr(k->path, '.');
    return dot ? dot + 1 : k->path;
}

bool choice_word(char out[32], const char *legal, int i) {
    for (; i > 0; i--) {
        legal = strchr(legal, '|');
        if (!legal) return false;
        legal++;
    }
    snprintf(out, 32, "%.*s", (int)strcspn(legal, "|"), legal);
    return true;
}

const char *key_type_name(key_type t) {
    static const char *const name[] = {
        [KEY_INT] = "integer",
        [KEY_REAL] = "number",
        [KEY_BOOL] = "true or false",
        [KEY_TEXT] = "text",
        [KEY_PATH] = "path",
        [KEY_CHOICE] = "word",
        [KEY_CHOICE_BOOL] = "word",
        [KEY_CHOICE_TEXT] = "word",
        [KEY_ONLY] = "word",
        [KEY_PAIR] = "two numbers",
        [KEY_INTS] = "list of integers",
        [KEY_LAYERS] = "list of ranges of layers",
        [KEY_REALS] = "list of numbers",
        [KEY_SOURCES] = "list of maps",
        [KEY_BLENDS] = "list of maps",
        [KEY_PHASES] = "list of maps",
    };
    return name[t];
}

static void expected_word(char out[EXPECTED_BYTES], const char *legal) {
    char word[32];
    bool several = strchr(legal, '|');
    int used = snprintf(out, EXPECTED_BYTES, "%s", several ? "one of " : "");
    for (int i = 0; choice_word(word, legal, i); i++)
        used += snprintf(out + used, EXPECTED_BYTES - (size_t)used, "%s%s", i ? ", " : "", word);
}

static void expected_number(char out[EXPECTED_BYTES], const key *k) {
    char words[80];
    range r = range_read(k->legal);
    range_words(words, &r);
    bool several = k->type == KEY_PAIR || k->type == KEY_INTS || k->type == KEY_REALS;
    const char *each = several ? ", each" : "";
    snprintf(out, EXPECTED_BYTES, "%s%s %s", key_type_name(k->type), each, words);
}

void key_expected(char out[EXPECTED_BYTES], const key *k) {
    switch (k->type) {
    case KEY_CHOICE:
    case KEY_CHOICE_BOOL:
    case KEY_CHOICE_TEXT:
    case KEY_ONLY: expected_word(out, k->legal); break;
    case KEY_INT:
    case KEY_REAL:
    case KEY_PAIR:
    case KEY_INTS:
    case KEY_REALS: expected_number(out, k); break;
    case KEY_LAYERS:
        snprintf(out, EXPECTED_BYTES, "ranges of layers such as %s", *k->legal ? "[0-23, 8-31]" : "[7, 15]");
        break;
    case KEY_SOURCES:
    case KEY_BLENDS:
    case KEY_PHASES: snprintf(out, EXPECTED_BYTES, "a list such as [%s]", item_example(k->type)); break;
    default: snprintf(out, EXPECTED_BYTES, "%s", key_type_name(k->type));
    }
}
