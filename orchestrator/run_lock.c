#include "run_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fsutil.h"
#include "log.h"

static const double patience = 3; // seconds: what a killed life may take to end

// Locks belong to the open file, not to a name in it, so that a lock never outlives its process.
static int try_lock(int fd) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &whole) == 0 ? 0 : errno;
}

static bool held_elsewhere(int why) { return why == EAGAIN || why == EACCES; }

typedef struct holder {
    char note[256]; // "host H, process P, job J"
    bool same_job;
} holder;

static void read_holder(int fd, holder *h) {
    const char *job = getenv("SLURM_JOB_ID");
    char mine[80];
    ssize_t n = pread(fd, h->note, sizeof h->note - 1, 0);
    h->note[n > 0 ? (size_t)n : 0] = 0;
    h->note[strcspn(h->note, "\n")] = 0;
    snprintf(mine, sizeof mine, ", job %.60s", job ? job : "");
    size_t length = strlen(h->note), tail = strlen(mine);
    h->same_job = job && length > tail && strcmp(h->note + length - tail, mine) == 0;
}

static err *busy(const char *dir, const holder *h) {
    return err_new(
        ERR_RUNTIME,
        "%s is in use by another solar train (%s): wait for it or stop it, or set another run.dir. If it "
        "cannot be reached any more, --take-over ends its hold on the run",
        dir, *h->note ? h->note : "which has not said its name");
}

// Who holds it, for the message that another one gets. That the note fails is no reason not to train.
static void sign(int fd) {
    char host[64] = "?", note[256];
    const char *job = getenv("SLURM_JOB_ID");
    gethostname(host, sizeof host - 1);
    int n = snprintf(note, sizeof note, "host %s, process %ld%s%.60s\n", host, (long)getpid(),
                     job ? ", job " : "", job ? job : "");
    if (ftruncate(fd, 0) != 0 || pwrite(fd, note, (size_t)n, 0) != n)
        log_warn("the lock of the run directory could not be signed: %s", strerror(errno));
}

static err *open_lock(const char *path, int *fd) {
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    return *fd >= 0 ? NULL
                    : err_errno(errno, "%s cannot be opened: a run needs to write into its directory", path);
}

static int try_for_a_while(int fd) {
    double start = now_seconds();
    int why;
    while (held_elsewhere(why = try_lock(fd)) && now_seconds() - start < patience)
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    return why;
}

// Leaves the holder its lock on a file that has no name any more.
static err *replace_lock(const char *path, const holder *h, int *fd) {
    log_warn("taking the run over from another life (%s), which will end before it publishes anything more",
             h->note);
    close(*fd);
    *fd = -1;
    if (unlink(path) != 0 && errno != ENOENT) return err_errno(errno, "%s cannot be replaced", path);
    return open_lock(path, fd);
}

err *run_lock_take(const char *dir, bool take_over, run_lock *out) {
    err *e = NULL;
    char *path = path_join(dir, "lock");
    holder h;
    int fd = -1;
    out->fd = 0;
    TRY(open_lock(path, &fd));
    int why = try_for_a_while(fd);
    if (held_elsewhere(why)) {
        read_holder(fd, &h);
        if (!take_over && !h.same_job) TRY(busy(dir, &h));
        TRY(replace_lock(path, &h, &fd));
        why = try_lock(fd);
        if (held_elsewhere(why))
            FAIL(ERR_RUNTIME, "%s is being taken over by two at once: this one ends", dir);
    }
    if (why)
        log_warn("%s cannot be locked (%s): see to it that only one run uses the directory", path,
                 strerror(why));
    sign(fd);
    out->fd = fd;
    fd = -1;
done:
    if (fd >= 0) close(fd);
    free(path);
    return e;
}

void run_lock_release(run_lock *l) {
    if (l->fd > 0) close(l->fd);
    l->fd = 0;
}
