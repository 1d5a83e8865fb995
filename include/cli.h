// The command line: one table per command, from which parsing, --help and the man-style reference come.
#ifndef SOLAR_CLI_H
#define SOLAR_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "err.h"

typedef enum opt_type { OPT_FLAG, OPT_INT, OPT_REAL, OPT_STRING, OPT_LIST } opt_type;

typedef struct opt {
    const char *name; // "max-tokens" for --max-tokens; also --max-tokens=N
    opt_type type;    // FLAG: bool*, INT: int64_t*, REAL: double*, STRING: const char**, LIST: opt_list*
    void *dest;       // holds the default before parsing
    const char *arg;  // "N", "FILE"; NULL for a flag
    const char *help; // one line, says unit and default
    double min, max;  // INT and REAL: legal range when min < max
} opt;

typedef struct opt_list {
    const char *item[64];
    int count;
} opt_list;

typedef struct command {
    const char *name;                  // "upscale"
    const char *brief;                 // one line
    const char *synopsis;              // "BASE OUT --m M | --layers LIST"
    const char *about;                 // paragraphs
    const char *examples;              // lines
    int (*run)(int argc, char **argv); // argv[0] is the command's name; returns the exit status
} command;

// Parses argv[1..]; positional arguments are put in front of argv and counted in *positional (argv[0] is
// kept). Unknown option, missing or bad value, value out of range, wrong number of positionals:
// ERR_USAGE, with the nearest known option. `--help` prints the help and sets *helped. "--" ends options.
err *cli_parse(const command *c, const opt *opts, int n_opts, int min_pos, int max_pos, int argc, char **argv,
               int *positional, bool *helped);
void cli_help(const command *c, const opt *opts, int n_opts, FILE *out);
// Prints "solar COMMAND: error: ..." and returns the exit status of e; frees e. 0 for NULL.
int cli_finish(const char *command_name, err *e);

// The commands, each in orchestrator/cmd_NAME.c
extern const command cmd_plan, cmd_upscale, cmd_verify, cmd_tokenize, cmd_data, cmd_train, cmd_eval,
    cmd_generate, cmd_inspect, cmd_config, cmd_status, cmd_preflight, cmd_sweep;

#endif
