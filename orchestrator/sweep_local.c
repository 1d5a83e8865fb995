// The cells of a sweep on this machine, several at once.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fsutil.h"
#include "log.h"
#include "sweep.h"

typedef enum cell_state { TO_DO, RUNNING, OVER, FAILED } cell_state;

typedef struct local {
    const sweep *s;
    const char *program;
    cell_state *state;
    pid_t *process;
    int running, over, failed;
} local;

static err *command_of(const local *l, const cell *c, char ***out) {
    char **args = NULL, ranks[24];
    err *e = cell_arguments(l->s, c, &args);
    if (e) return e;
    int n = 0, k = 0;
    while (args[n]) n++;
    char **list = *out = calloc((size_t)n + 6, sizeof *list);
    if (!list) return err_new(ERR_SYSTEM, "out of memory for arguments");
    snprintf(ranks, sizeof ranks, "%lld", (long long)c->ranks);
    if (c->ranks > 1) {
        list[k++] = strdup("mpirun");
        list[k++] = strdup("-np");
        list[k++] = strdup(ranks);
    }
    list[k++] = strdup(l->program);
    list[k++] = strdup("train");
    memcpy(list + k, args, (size_t)n * sizeof *args);
    free(args);
    return NULL;
}

// The child: its words go to DIR/log.
static void become(const char *dir, char *const *command) {
    char *path = path_join(dir, "log");
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666), none = open("/dev/null", O_RDONLY);
    if (log < 0 || none < 0 || dup2(none, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) _exit(ERR_SYSTEM);
    execvp(command[0], command);
    fprintf(stderr, "solar sweep: %s cannot be started: %s\n", command[0], strerror(errno));
    _exit(ERR_SYSTEM);
}

static err *start(local *l, int i) {
    err *e = NULL;
    const cell *c = &l->s->cell[i];
    char **command = NULL;
    TRY(make_dirs(c->dir));
    TRY(command_of(l, c, &command));
    fflush(NULL);
    pid_t p = fork();
    if (p == 0) become(c->dir, command);
    if (p < 0) FAIL(ERR_SYSTEM, "no process for cell %s: %s", c->name, strerror(errno));
    l->process[i] = p;
    l->state[i] = RUNNING;
    l->running++;
    log_info("cell %d of %d, %s: %d layers, %lld steps", i + 1, l->s->cells, c->name, c->depth,
             (long long)c->steps);
done:
    for (char **a = command; a && *a; a++) free(*a);
    free(command);
    return e;
}

static void settle(local *l, int i, int status) {
    const cell *c = &l->s->cell[i];
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    l->running--;
    l->state[i] = code ? FAILED : OVER;
    if (!code)
        l->over++;
    else {
        l->failed++;
        log_warn("cell %s ended with exit status %d: see %s/log", c->name, code, c->dir);
    }
}

static err *await_one(local *l) {
    int status;
    pid_t p;
    do p = wait(&status);
    while (p < 0 && errno == EINTR);
    if (p < 0) return err_errno(errno, "waiting for a cell");
    for (int i = 0; i < l->s->cells; i++)
        if (l->state[i] == RUNNING && l->process[i] == p) settle(l, i, status);
    return NULL;
}

// The first cell that can run now; -1: none.
static int next_cell(const local *l) {
    for (int i = 0; i < l->s->cells; i++) {
        int base = l->s->cell[i].waits_for;
        if (l->state[i] == TO_DO && (base < 0 || l->state[base] == OVER)) return i;
    }
    return -1;
}

err *sweep_local(const sweep *s, const char *program, int jobs) {
    err *e = NULL;
    local l = {.s = s,
               .program = program,
               .state = calloc((size_t)s->cells, sizeof(cell_state)),
               .process = calloc((size_t)s->cells, sizeof(pid_t))};
    if (!l.state || !l.process) FAIL(ERR_SYSTEM, "out of memory for %d cells", s->cells);
    for (int i = 0; i < s->cells; i++)
        if (cell_done(&s->cell[i])) l.state[i] = OVER, l.over++;
    log_info("%d cells, %d done before, %d at once", s->cells, l.over, jobs);
    for (;;) {
        int i = next_cell(&l);
        if (i >= 0 && l.running < jobs)
            TRY(start(&l, i));
        else if (l.running)
            TRY(await_one(&l));
        else
            break;
    }
    if (l.over < s->cells)
        FAIL(ERR_MISMATCH,
             "%d of %d cells are not done (%d failed, the others wait for their base): run the same command "
             "again",
             s->cells - l.over, s->cells, l.failed);
done:
    while (e && l.running && !await_one(&l)) {}
    free(l.state);
    free(l.process);
    return e;
}
