// solar config: the keys of a run config, and one config as the program understands it.
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "config.h"

static int run(int argc, char **argv);

const command cmd_config = {
    .name = "config",
    .brief = "check a config and print it resolved, or list every key",
    .synopsis = "FILE [--set KEY=VALUE]... | --schema [--markdown]",
    .about = "Reads a run config as `solar train` would: unknown keys, wrong types, values out of range, "
             "keys that\n"
             "contradict each other and missing files are errors that say where they stand. Prints the "
             "config with\n"
             "every key, paths made absolute; what is printed is a config again. --schema lists all keys "
             "with type,\n"
             "default, unit and meaning.",
    .examples = "solar config jobs/solar_cpt.yaml\n"
                "solar config jobs/solar_cpt.yaml --no-files --set train.steps=100 --set model.dus.m=6\n"
                "solar config --schema --markdown > keys.md",
    .run = run,
};

static err *print_config(const char *path, const opt_list *set, bool check_files) {
    err *e = NULL;
    config *c = NULL;
    char *text = NULL;
    TRY(config_load(path, set->item, set->count, check_files, &c));
    text = config_dump(c);
    if (!text) FAIL(ERR_SYSTEM, "out of memory printing the config");
    fputs(text, stdout);
done:
    free(text);
    config_free(c);
    return e;
}

static int run(int argc, char **argv) {
    err *e = NULL;
    bool schema = false, markdown = false, no_files = false, helped = false;
    opt_list set = {.count = 0};
    int positional = 0;
    const opt opts[] = {
        {.name = "set",
         .type = OPT_LIST,
         .dest = &set,
         .arg = "KEY=VALUE",
         .help = "change one key, any number of times"},
        {.name = "no-files",
         .type = OPT_FLAG,
         .dest = &no_files,
         .help = "do not look whether the files named are there"},
        {.name = "schema",
         .type = OPT_FLAG,
         .dest = &schema,
         .help = "list every key with type, default, unit and meaning"},
        {.name = "markdown",
         .type = OPT_FLAG,
         .dest = &markdown,
         .help = "with --schema: as a Markdown table"},
    };
    TRY(cli_parse(&cmd_config, opts, 4, 0, 1, argc, argv, &positional, &helped));
    if (helped) goto done;
    if (markdown && !schema) FAIL(ERR_USAGE, "--markdown needs --schema");
    if (schema == (positional == 1)) FAIL(ERR_USAGE, "expected a config FILE or --schema, one of the two");
    if (schema)
        config_schema(stdout, markdown ? "markdown" : "text");
    else
        e = print_config(argv[1], &set, !no_files);
done:
    return cli_finish("config", e);
}
