#include "deadline.h"

#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

extern char **environ;

enum { ANSWER = 16384, PATIENCE_MS = 10000 };

bool deadline_parse(const char *text, double *when) {
    struct tm tm = {.tm_isdst = -1};
    char *end;
    double seconds = strtod(text, &end);
    if (end != text && *end == 0 && seconds > 1e9 && seconds < 1e11) {
        *when = seconds;
        return true;
    }
    end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!end || (*end && strcmp(end, "Z") != 0)) return false;
    time_t t = *end ? timegm(&tm) : mktime(&tm);
    *when = (double)t;
    return t > 0;
}

// ---- asking a program

static void read_all(int fd, char *out) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    double start = now_seconds();
    size_t n = 0;
    while (n < ANSWER - 1) {
        int left = PATIENCE_MS - (int)((now_seconds() - start) * 1000);
        if (left <= 0 || poll(&p, 1, left) <= 0) break;
        ssize_t got = read(fd, out + n, ANSWER - 1 - n);
        if (got <= 0) break;
        n += (size_t)got;
    }
    out[n] = 0;
}

// What a command prints; "" where it cannot be run or is silent for too long.
static void ask(char *const argv[], char out[ANSWER]) {
    posix_spawn_file_actions_t files;
    int pipe_fd[2];
    pid_t pid;
    out[0] = 0;
    if (pipe2(pipe_fd, O_CLOEXEC) != 0) return;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, pipe_fd[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int why = posix_spawnp(&pid, argv[0], &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    close(pipe_fd[1]);
    if (why == 0) {
        read_all(pipe_fd[0], out);
        kill(pid, SIGKILL); // it has answered, or never will
        waitpid(pid, NULL, 0);
    }
    close(pipe_fd[0]);
}

static bool parse_word(const char *text, double *when) {
    char word[64];
    text += strspn(text, " \t\n");
    snprintf(word, sizeof word, "%.*s", (int)strcspn(text, " \t\n"), text);
    return deadline_parse(word, when);
}

static bool ask_squeue(const char *job, double *when) {
    char answer[ANSWER];
    ask((char *const[]){"squeue", "-h", "-j", (char *)job, "-o", "%e", NULL}, answer);
    return parse_word(answer, when);
}

static bool ask_scontrol(const char *job, double *when) {
    char answer[ANSWER];
    ask((char *const[]){"scontrol", "show", "job", "-o", (char *)job, NULL}, answer);
    const char *at = strstr(answer, "EndTime=");
    return at && parse_word(at + strlen("EndTime="), when);
}

double deadline_find(const char *configured, const char **source) {
    double when;
    const char *job = getenv("SLURM_JOB_ID"), *end = getenv("SLURM_JOB_END_TIME");
    *source = "run.deadline";
    if (configured && deadline_parse(configured, &when)) return when;
    *source = "SLURM_JOB_END_TIME";
    if (end && deadline_parse(end, &when)) return when;
    *source = "squeue";
    if (job && ask_squeue(job, &when)) return when;
    *source = "scontrol";
    if (job && ask_scontrol(job, &when)) return when;
    if (job)
        log_warn("neither SLURM_JOB_END_TIME nor squeue nor scontrol says when job %s ends: set run.deadline",
                 job);
    return NAN;
}
