// Is every node fit for a run? One rank on each node measures it, rank 0 judges.
#ifndef SOLAR_PREFLIGHT_H
#define SOLAR_PREFLIGHT_H

#include <stdio.h>

#include "err.h"

typedef struct node_facts {
    char host[64];
    char versions[256];  // program, MPI, HDF5, C library, kernel
    char gpus[256];      // "8 x NVIDIA H100 80GB HBM3, 81559 MiB"; "none"
    char gpu_fault[128]; // "" when they are healthy
    char fault[256];     // what could not be measured, ""
    double copy_rate;    // bytes/s of memory
    double memory;       // bytes available
    double disk_free;    // bytes at the run directory
    double write_rate;   // bytes/s there, with fsync
    double clock_offset; // seconds against the first node
    double net_rate;     // bytes/s: the median over its peers, both directions at once; 0 with one node
    double net_slowest;  // to the slowest of them
    char net_peer[64];   // which that is
} node_facts;

// Floors below which a node is unfit. Beside them a node is compared with the others: GPUs and versions with
// those of most nodes; memory and network with the median, of which it must reach `share`.
typedef struct preflight_limits {
    double disk, write, copy, net; // bytes, bytes/s
    double clock;                  // seconds
    double share;
} preflight_limits;

// Measures this node: `dir` is written to (a file of `write_bytes`, removed again). Never fails: what could
// not be measured is in `fault`. Not collective.
void preflight_node(const char *dir, double write_bytes, node_facts *f);
// Clocks and the exchange of `bytes` between every two ranks; nobody waits longer than `limit` seconds for a
// peer. ERR_PEER names the one that did not answer. Collective over MPI_COMM_WORLD, one rank on each node.
err *preflight_network(size_t bytes, double limit, node_facts *f);
// Why node i is unfit, into why[256]; "" when it is fit.
void preflight_judge(const node_facts *all, int n, int i, const preflight_limits *limits, char why[256]);
void preflight_table(const node_facts *all, int n, FILE *out);

#endif
