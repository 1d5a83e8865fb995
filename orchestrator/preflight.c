#include "preflight.h"

#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <hdf5.h>
#include <math.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "fsutil.h"
#include "log.h"

enum { COPY_BYTES = 64 << 20, CHUNK = 4 << 20, PINGS = 9 };

// ---- one node

static void note_fault(node_facts *f, const char *what, int why) {
    if (!*f->fault) snprintf(f->fault, sizeof f->fault, "%s: %s", what, strerror(why));
}

static void read_versions(node_facts *f) {
    unsigned major = 0, minor = 0, release = 0;
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING] = "?", program[65] = "?";
    int length;
    struct utsname u;
    MPI_Get_library_version(mpi, &length);
    mpi[strcspn(mpi, ",\n")] = 0;
    H5get_libversion(&major, &minor, &release);
    err_free(sha256_file("/proc/self/exe", program));
    uname(&u);
    snprintf(f->versions, sizeof f->versions, "solar %.12s, %.60s, HDF5 %u.%u.%u, glibc %s, %.60s", program,
             mpi, major, minor, release, gnu_get_libc_version(), u.release);
}

static void measure_memory(node_facts *f) {
    char *a = malloc(COPY_BYTES), *b = malloc(COPY_BYTES);
    f->memory = (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (!a || !b) {
        note_fault(f, "memory", ENOMEM);
        goto done;
    }
    memset(a, 1, COPY_BYTES);
    memcpy(b, a, COPY_BYTES); // touches the pages
    double start = now_seconds(), now = start;
    do { // the best of many: what disturbs a moment is not the memory's fault
        double begin = now;
        memcpy(b, a, COPY_BYTES);
        a[0] = b[COPY_BYTES - 1]; // the copy is used
        now = now_seconds();
        f->copy_rate = fmax(f->copy_rate, COPY_BYTES / (now - begin));
    } while (now - start < 0.3);
done:
    free(a);
    free(b);
}

static void write_test_file(int fd, double bytes, node_facts *f) {
    char *chunk = malloc(CHUNK);
    double start = now_seconds(), written = 0;
    if (!chunk) {
        note_fault(f, "memory", ENOMEM);
        return;
    }
    memset(chunk, 0x5a, CHUNK);
    while (written < bytes) {
        ssize_t n = write(fd, chunk, CHUNK);
        if (n < 0) break;
        written += (double)n;
    }
    if (written < bytes || fsync(fd) != 0)
        note_fault(f, "writing at the run directory", errno);
    else
        f->write_rate = written / (now_seconds() - start);
    free(chunk);
}

static void measure_disk(const char *dir, double bytes, node_facts *f) {
    struct statvfs v;
    char *path = NULL;
    int fd = -1;
    if (statvfs(dir, &v) != 0) {
        note_fault(f, dir, errno);
        return;
    }
    f->disk_free = (double)v.f_bavail * (double)v.f_frsize;
    if (asprintf(&path, "%s/.preflight-%s", dir, f->host) < 0) return;
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        note_fault(f, "writing at the run directory", errno);
    else
        write_test_file(fd, bytes, f);
    if (fd >= 0) close(fd);
    unlink(path);
    free(path);
}

// Name, memory and uncorrected errors of each GPU, as its driver's tool prints them.
static void read_gpus(node_facts *f) {
    char line[256], first[200] = "";
    int count = 0;
    // NOLINTNEXTLINE(cert-env33-c): a fixed command
    FILE *p = popen("command -v nvidia-smi >/dev/null && nvidia-smi --format=csv,noheader,nounits "
                    "--query-gpu=name,memory.total,ecc.errors.uncorrected.volatile.total 2>&1",
                    "r");
    snprintf(f->gpus, sizeof f->gpus, "none");
    while (p && fgets(line, sizeof line, p)) {
        char name[160] = "", ecc[32] = "0";
        long mib = 0;
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "%159[^,], %ld, %31s", name, &mib, ecc) < 2) {
            snprintf(f->gpu_fault, sizeof f->gpu_fault, "nvidia-smi: %.100s", line);
            continue;
        }
        if (strtol(ecc, NULL, 10) > 0 && !*f->gpu_fault)
            snprintf(f->gpu_fault, sizeof f->gpu_fault, "GPU %d has %.20s uncorrected memory errors", count,
                     ecc);
        snprintf(line, sizeof line, "%s, %ld MiB", name, mib);
        if (!count++)
            snprintf(first, sizeof first, "%.190s", line);
        else if (strcmp(first, line) != 0)
            snprintf(f->gpu_fault, sizeof f->gpu_fault, "unlike GPUs: %.100s", line);
    }
    if (p) pclose(p);
    if (count) snprintf(f->gpus, sizeof f->gpus, "%d x %s", count, first);
}

// Slurm's name for the node, which may be another than its own.
static void name_node(node_facts *f) {
    const char *name = getenv("SLURMD_NODENAME");
    if (name && *name)
        snprintf(f->host, sizeof f->host, "%s", name);
    else
        gethostname(f->host, sizeof f->host - 1);
}

void preflight_node(const char *dir, double write_bytes, node_facts *f) {
    *f = (node_facts){.host = "?"};
    name_node(f);
    read_versions(f);
    read_gpus(f);
    measure_memory(f);
    measure_disk(dir, write_bytes, f);
}

// ---- between nodes

static double wall_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static err *wait_for(MPI_Request *requests, int n, double limit, int peer) {
    double start = now_seconds();
    for (int done = 0; !done;) {
        MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE);
        if (!done && now_seconds() - start > limit)
            return err_new(ERR_PEER, "no answer from the node of rank %d within %.0f s", peer, limit);
    }
    return NULL;
}

static err *exchange(const void *out, int to, void *in, int from, size_t bytes, double limit) {
    MPI_Request r[2];
    MPI_Irecv(in, (int)bytes, MPI_BYTE, from, 1, MPI_COMM_WORLD, &r[0]);
    MPI_Isend(out, (int)bytes, MPI_BYTE, to, 1, MPI_COMM_WORLD, &r[1]);
    return wait_for(r, 2, limit, from);
}

// Of several questions the quickest answer tells best: the peer's time was that of its middle.
static err *compare_clock(int rank, int peer, double limit, double *offset) {
    err *e = NULL;
    double best = 1e9, theirs = 0, mine;
    for (int i = 0; i < PINGS; i++) {
        double start = mine = wall_clock();
        TRY(exchange(&mine, peer, &theirs, peer, sizeof mine, limit));
        double end = wall_clock();
        if (rank == 0) mine = end;
        if (end - start >= best) continue;
        best = end - start;
        *offset = (start + end) / 2 - theirs;
    }
done:
    return e;
}

static err *compare_clocks(int rank, int size, double limit, node_facts *f) {
    err *e = NULL;
    double ignored;
    if (rank) return compare_clock(rank, 0, limit, &f->clock_offset);
    for (int peer = 1; peer < size; peer++) TRY(compare_clock(0, peer, limit, &ignored));
done:
    return e;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, ascending);
    return n ? values[n / 2] : 0;
}

// In round k every rank sends to the one k behind it and receives from the one k before: all links at once.
static err *exchange_all(int rank, int size, size_t bytes, double limit, const char *hosts, node_facts *f) {
    err *e = NULL;
    char *out = calloc(1, bytes), *in = malloc(bytes);
    double *rates = calloc((size_t)size, sizeof *rates);
    if (!out || !in || !rates) FAIL(ERR_SYSTEM, "out of memory for messages of %zu bytes", bytes);
    for (int k = 1; k < size; k++) {
        int to = (rank + k) % size, from = (rank - k + size) % size;
        TRY(exchange(out, to, in, from, 1, limit)); // opens the connection, outside the measurement
        double start = now_seconds();
        TRY(exchange(out, to, in, from, bytes, limit));
        rates[k - 1] = (double)bytes / (now_seconds() - start);
        if (k > 1 && rates[k - 1] >= f->net_slowest) continue;
        f->net_slowest = rates[k - 1];
        snprintf(f->net_peer, sizeof f->net_peer, "%s", hosts + (size_t)from * sizeof f->host);
    }
    f->net_rate = median(rates, size - 1);
done:
    free(out);
    free(in);
    free(rates);
    return e;
}

err *preflight_network(size_t bytes, double limit, node_facts *f) {
    err *e = NULL;
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    char *hosts = calloc((size_t)size, sizeof f->host);
    if (!hosts) return err_new(ERR_SYSTEM, "out of memory for %d names of hosts", size);
    MPI_Allgather(f->host, sizeof f->host, MPI_CHAR, hosts, sizeof f->host, MPI_CHAR, MPI_COMM_WORLD);
    TRY(compare_clocks(rank, size, limit, f));
    TRY(exchange_all(rank, size, bytes, limit, hosts, f));
done:
    free(hosts);
    return e;
}

// ---- judgement

// The text that most nodes have at `offset` in their facts.
static const char *usual(const node_facts *all, int n, size_t offset) {
    const char *best = NULL;
    int most = 0;
    for (int i = 0; i < n; i++) {
        const char *t = (const char *)&all[i] + offset;
        int count = 0;
        for (int k = 0; k < n; k++) count += strcmp(t, (const char *)&all[k] + offset) == 0;
        if (count > most) most = count, best = t;
    }
    return best;
}

static double usual_rate(const node_facts *all, int n, size_t offset) {
    double *values = calloc((size_t)n, sizeof *values);
    if (!values) return 0;
    for (int i = 0; i < n; i++) memcpy(&values[i], (const char *)&all[i] + offset, sizeof *values);
    double m = median(values, n);
    free(values);
    return m;
}

// Below the floor, or far below what the others reach.
static bool too_slow(double rate, double floor, double others, double share, const char *what,
                     char why[256]) {
    double least = floor > share * others ? floor : share * others;
    if (rate >= least) return false;
    snprintf(why, 256, "%s %.3g MB/s, expected at least %.3g", what, rate / 1e6, least / 1e6);
    return true;
}

static bool unlike(const node_facts *all, int n, int i, size_t offset, const char *what, char why[256]) {
    const char *mine = (const char *)&all[i] + offset, *most = usual(all, n, offset);
    if (strcmp(mine, most) == 0) return false;
    snprintf(why, 256, "%s %.90s, most nodes have %.90s", what, mine, most);
    return true;
}

void preflight_judge(const node_facts *all, int n, int i, const preflight_limits *l, char why[256]) {
    const node_facts *f = &all[i];
    double copy = usual_rate(all, n, offsetof(node_facts, copy_rate)),
           net = usual_rate(all, n, offsetof(node_facts, net_rate));
    *why = 0;
    if (*f->fault)
        snprintf(why, 256, "%s", f->fault);
    else if (*f->gpu_fault)
        snprintf(why, 256, "%s", f->gpu_fault);
    else if (f->disk_free < l->disk)
        snprintf(why, 256, "disk: %.3g GB free, expected at least %.3g", f->disk_free / 1e9, l->disk / 1e9);
    else if (!(f->clock_offset <= l->clock && f->clock_offset >= -l->clock))
        snprintf(why, 256, "clock: %.3f s off that of %s", f->clock_offset, all[0].host);
    else if (unlike(all, n, i, offsetof(node_facts, gpus), "GPUs:", why) ||
             unlike(all, n, i, offsetof(node_facts, versions), "versions:", why) ||
             too_slow(f->write_rate, l->write, 0, 0, "disk:", why) ||
             too_slow(f->copy_rate, l->copy, copy, l->share, "memory:", why))
        return;
    else if (n > 1)
        too_slow(f->net_rate, l->net, net, l->share, "network:", why);
}

void preflight_table(const node_facts *all, int n, FILE *out) {
    fprintf(out, "%-16s %-28s %9s %10s %9s %9s %8s %9s  %s\n", "node", "GPUs", "copy GB/s", "memory GB",
            "disk GB", "write MB/s", "clock ms", "net MB/s", "slowest peer");
    for (int i = 0; i < n; i++) {
        const node_facts *f = &all[i];
        fprintf(out, "%-16.16s %-28.28s %9.1f %10.1f %9.1f %10.0f %8.2f %9.0f  %.0f from %s\n", f->host,
                f->gpus, f->copy_rate / 1e9, f->memory / 1e9, f->disk_free / 1e9, f->write_rate / 1e6,
                f->clock_offset * 1e3, f->net_rate / 1e6, f->net_slowest / 1e6,
                *f->net_peer ? f->net_peer : "-");
    }
    fprintf(out, "versions: %s\n", n ? usual(all, n, offsetof(node_facts, versions)) : "");
}
