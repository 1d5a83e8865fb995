// solar: finds the command and runs it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "scalar.h"

#ifndef SOLAR_VERSION
#define SOLAR_VERSION "0.1.0"
#endif

static const command *const commands[] = {
    &cmd_plan,     &cmd_upscale, &cmd_verify, &cmd_tokenize, &cmd_data,      &cmd_train, &cmd_eval,
    &cmd_generate, &cmd_inspect, &cmd_config, &cmd_status,   &cmd_preflight, &cmd_sweep,
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_version(void) {
#ifdef SOLAR_COMMIT
    printf("solar %s (%s)\n", SOLAR_VERSION, SOLAR_COMMIT);
#else
    printf("solar %s\n", SOLAR_VERSION);
#endif
}

static void print_usage(FILE *out) {
    fputs(
        "usage: solar COMMAND ...\n\n"
        "Deepens a pretrained language model by depth up-scaling and continues its pretraining on a mesh of\n"
        "ranks until it has recovered and passed the model it came from.\n\n"
        "commands:\n",
        out);
    for (int i = 0; i < COMMANDS; i++) fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->brief);
    fputs("\n"
          "  solar COMMAND --help    options and examples of a command (also: solar help COMMAND)\n"
          "  solar help --all        the help of every command\n"
          "  solar config --schema   every key of a run's config\n"
          "  solar --version\n\n"
          "exit codes:\n"
          "  0   done\n"
          "  1   failed in a way not named below\n"
          "  2   wrong command line\n"
          "  3   wrong config, or a plan that cannot be met\n"
          "  4   a wrong input file: model, tokens, text or checkpoint\n"
          "  5   a check ran and found a difference\n"
          "  6   no memory or disk space, or an I/O error\n"
          "  7   a loss or a gradient was not finite\n"
          "  8   another rank is dead, late or disagrees\n"
          "  75  stopped early on purpose with everything saved: run it again\n",
          out);
}

static const command *find_command(const char *name) {
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i]->name, name)) return commands[i];
    return NULL;
}

static err *unknown_command(const char *name) {
    char shown[SHOWN_BYTES];
    const char *known[COMMANDS + 1] = {"help"};
    for (int i = 0; i < COMMANDS; i++) known[i + 1] = commands[i]->name;
    show_text(shown, name);
    const char *near = suggest(name, known, COMMANDS + 1);
    if (near) return err_new(ERR_USAGE, "unknown command %s; did you mean %s?", shown, near);
    return err_new(ERR_USAGE, "unknown command %s", shown);
}

static int finish(err *e) {
    fprintf(stderr, "solar: error: %s\ntry: solar --help\n", err_text(e));
    err_free(e);
    return ERR_USAGE;
}

// Every command prints its own help, from the table of options that it parses by.
static int help_of(const command *c) {
    char name[32], flag[] = "--help";
    snprintf(name, sizeof name, "%s", c->name);
    char *argv[] = {name, flag, NULL};
    return c->run(2, argv);
}

static int help_of_all(void) {
    int status = 0;
    print_usage(stdout);
    for (int i = 0; i < COMMANDS && !status; i++) {
        fputs("\n----------------------------------------\n\n", stdout);
        status = help_of(commands[i]);
    }
    return status;
}

static int help(int argc, char **argv) {
    if (argc > 2)
        return finish(
            err_new(ERR_USAGE, "help: found %d arguments, expected one command or --all", argc - 1));
    if (argc == 2 && !strcmp(argv[1], "--all")) return help_of_all();
    if (argc == 2) {
        const command *c = find_command(argv[1]);
        return c ? help_of(c) : finish(unknown_command(argv[1]));
    }
    print_usage(stdout);
    return 0;
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) {
        print_usage(stderr);
        return ERR_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--version")) {
        print_version();
        return 0;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) return help(1, argv);
    if (!strcmp(name, "help")) return help(argc - 1, argv + 1);
    const command *c = find_command(name);
    if (c) return c->run(argc - 1, argv + 1);
    if (name[0] == '-') {
        char shown[SHOWN_BYTES];
        show_text(shown, name);
        return finish(err_new(ERR_USAGE, "found option %s, expected a command first", shown));
    }
    return finish(unknown_command(name));
}

// libgomp lets idle threads spin for milliseconds, which stalls everybody as soon as threads or ranks
// outnumber free cores (measured: 3x on a shared laptop), and reads its settings before main: so the program
// starts itself once more with a short spin, unless the user has chosen.
static void calm_threads(char **argv) {
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    if (setenv("GOMP_SPINCOUNT", "2000", 1) == 0) execv("/proc/self/exe", argv);
} // where execv is not possible the program runs on as it is, only slower on a busy machine

// What was printed counts only when it arrived: a full disk or a closed pipe is an error.
int main(int argc, char **argv) {
    calm_threads(argv);
    int status = dispatch(argc, argv);
    bool lost = fflush(stdout) != 0 || ferror(stdout);
    if (!lost || status) return status;
    fprintf(stderr, "solar: error: could not write to standard output\n");
    return ERR_SYSTEM;
}
