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

static err *busy(const char *dir, int fd) {
    char holder[256] = "";
    ssize_t n = pread(fd, holder, sizeof holder - 1, 0);
    holder[n > 0 ? (size_t)n : 0] = 0;
    holder[strcspn(holder, "\n")] = 0;
    return err_new(ERR_RUNTIME,
                   "%s is in use by another solar train (%s): wait for it or stop it, or set another run.dir",
                   dir, *holder ? holder : "which has not said its name");
}

// Who holds it, for the message that another one gets. That the note fails is no reason not to train.
static void sign(int fd) {
    char host[64] = "?", note[160];
    gethostname(host, sizeof host - 1);
    int n = snprintf(note, sizeof note, "host %s, process %ld\n", host, (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, note, (size_t)n, 0) != n)
        log_warn("the lock of the run directory could not be signed: %s", strerror(errno));
}

err *run_lock_take(const char *dir, run_lock *out) {
    err *e = NULL;
    char *path = path_join(dir, "lock");
    double start = now_seconds();
    int why;
    out->fd = 0;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        e = err_errno(errno, "%s cannot be opened: a run needs to write into its directory", path);
        goto done;
    }
    while (held_elsewhere(why = try_lock(fd)) && now_seconds() - start < patience)
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    if (held_elsewhere(why)) TRY(busy(dir, fd));
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
