// The command line of a command: parsing and help from one table of options.
#include "cli.h"

#include <math.h>
#include <string.h>

#include "scalar.h"

typedef struct parser {
    const command *cmd;
    const opt *opts;
    int n_opts;
    int argc;
    char **argv;
    int at;         // the argument being read
    int positional; // found so far, at argv[1..]
    bool seen[64];  // options given
} parser;

static err *no_such_option(const parser *p, const char *name, size_t length) {
    char word[64], shown[SHOWN_BYTES];
    const char *known[65];
    snprintf(word, sizeof word, "%.*s", (int)length, name);
    show_text(shown, p->argv[p->at]);
    for (int i = 0; i < p->n_opts; i++) known[i] = p->opts[i].name;
    known[p->n_opts] = "help";
    const char *near = suggest(word, known, p->n_opts + 1);
    if (near) return err_new(ERR_USAGE, "unknown option %s; did you mean --%s?", shown, near);
    return err_new(ERR_USAGE, "unknown option %s", shown);
}

static err *bad_number(const opt *o, const char *value, number_status status) {
    char shown[SHOWN_BYTES];
    show_text(shown, value);
    const char *kind = o->type == OPT_INT ? "an integer" : "a number";
    const char *why = status == NUMBER_RANGE ? ", which is beyond what can be stored" : "";
    return err_new(ERR_USAGE, "--%s: found %s%s, expected %s (%s)", o->name, shown, why, kind, o->arg);
}

static err *check_range(const opt *o, const char *value, double number) {
    char words[80], shown[SHOWN_BYTES];
    range r = {.low = o->min, .high = o->max >= 9e18 ? HUGE_VAL : o->max};
    if (!(o->min < o->max) || range_holds(&r, number)) return NULL;
    range_words(words, &r);
    show_text(shown, value);
    return err_new(ERR_USAGE, "--%s: found %s, expected %s %s", o->name, shown,
                   o->type == OPT_INT ? "an integer" : "a number", words);
}

static err *store_int(const opt *o, const char *value) {
    number_status status = parse_int(value, o->dest);
    if (status != NUMBER_OK) return bad_number(o, value, status);
    return check_range(o, value, (double)*(const int64_t *)o->dest);
}

static err *store_real(const opt *o, const char *value) {
    number_status status = parse_real(value, o->dest);
    if (status != NUMBER_OK) return bad_number(o, value, status);
    return check_range(o, value, *(const double *)o->dest);
}

static err *store_item(const opt *o, const char *value) {
    opt_list *list = o->dest;
    int most = (int)(sizeof list->item / sizeof list->item[0]);
    if (list->count == most) return err_new(ERR_USAGE, "--%s: found more than %d of them", o->name, most);
    list->item[list->count++] = value;
    return NULL;
}

static err *store(const opt *o, const char *value) {
    switch (o->type) {
    case OPT_INT: return store_int(o, value);
    case OPT_REAL: return store_real(o, value);
    case OPT_LIST: return store_item(o, value);
    case OPT_FLAG: *(bool *)o->dest = true; return NULL;
    default: *(const char **)o->dest = value; return NULL;
    }
}

// The option's value: behind "=", else the next argument. A number may begin with a minus.
static err *take_value(parser *p, const opt *o, const char *equals, const char **value) {
    if (equals) {
        *value = equals + 1;
    } else {
        const char *next = p->at + 1 < p->argc ? p->argv[p->at + 1] : NULL;
        bool number = o->type == OPT_INT || o->type == OPT_REAL;
        if (!next || (next[0] == '-' && next[1] && (!number || next[1] == '-')))
            return err_new(ERR_USAGE, "--%s needs a value: --%s %s", o->name, o->name, o->arg);
        *value = next;
        p->at++;
    }
    if (!**value) return err_new(ERR_USAGE, "--%s: found an empty value, expected %s", o->name, o->arg);
    return NULL;
}

static int find_option(const parser *p, const char *name, size_t length) {
    for (int i = 0; i < p->n_opts; i++)
        if (strlen(p->opts[i].name) == length && !strncmp(p->opts[i].name, name, length)) return i;
    return -1;
}

static err *parse_option(parser *p) {
    const char *arg = p->argv[p->at], *value = NULL;
    const char *name = arg + 1 + (arg[1] == '-'), *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    int i = arg[1] == '-' ? find_option(p, name, length) : -1;
    if (i < 0) return no_such_option(p, name, length);
    const opt *o = &p->opts[i];
    if (p->seen[i] && o->type != OPT_LIST) return err_new(ERR_USAGE, "--%s is given twice", o->name);
    p->seen[i] = true;
    if (o->type == OPT_FLAG) {
        if (equals) return err_new(ERR_USAGE, "--%s takes no value", o->name);
    } else {
        err *e = take_value(p, o, equals, &value);
        if (e) return e;
    }
    return store(o, value);
}

static bool asks_for_help(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return true;
    return false;
}

static err *check_positional(const parser *p, int min, int max) {
    char shown[SHOWN_BYTES];
    if (p->positional < min)
        return err_new(ERR_USAGE, "found %d argument%s, expected %s", p->positional,
                       p->positional == 1 ? "" : "s", p->cmd->synopsis);
    if (max >= 0 && p->positional > max) {
        show_text(shown, p->argv[max + 1]);
        return err_new(ERR_USAGE, "found one argument too many, %s, expected %s", shown, p->cmd->synopsis);
    }
    return NULL;
}

err *cli_parse(const command *c, const opt *opts, int n_opts, int min_pos, int max_pos, int argc, char **argv,
               int *positional, bool *helped) {
    parser p = {.cmd = c, .opts = opts, .n_opts = n_opts, .argc = argc, .argv = argv};
    *positional = 0;
    *helped = asks_for_help(argc, argv);
    if (*helped) {
        cli_help(c, opts, n_opts, stdout);
        return NULL;
    }
    bool ended = false;
    for (p.at = 1; p.at < argc; p.at++) {
        char *arg = argv[p.at];
        if (!ended && !strcmp(arg, "--")) {
            ended = true;
        } else if (!ended && arg[0] == '-' && arg[1]) {
            err *e = parse_option(&p);
            if (e) return e;
        } else {
            argv[++p.positional] = arg;
        }
    }
    *positional = p.positional;
    return check_positional(&p, min_pos, max_pos);
}

// Lines of text, each indented by just that.
static void print_lines(FILE *out, const char *text, const char *indent) {
    while (*text) {
        text += strspn(text, " ");
        size_t length = strcspn(text, "\n");
        fprintf(out, "%s%.*s\n", length ? indent : "", (int)length, text);
        text += length + (text[length] == '\n');
    }
}

static void print_option(FILE *out, const char *name, const char *arg, const char *help) {
    enum { HELP_COLUMN = 26 };
    int width = fprintf(out, "  --%s%s%s", name, arg ? " " : "", arg ? arg : "");
    if (width >= HELP_COLUMN) width = fprintf(out, "\n") - 1;
    fprintf(out, "%*s%s\n", HELP_COLUMN - width, "", help);
}

void cli_help(const command *c, const opt *opts, int n_opts, FILE *out) {
    fprintf(out, "solar %s - %s\n\nusage: solar %s%s%s%s\n", c->name, c->brief, c->name,
            *c->synopsis ? " " : "", c->synopsis,
            n_opts > 0 && !strstr(c->synopsis, "--") ? " [OPTION]..." : "");
    if (c->about) {
        fputc('\n', out);
        print_lines(out, c->about, "");
    }
    fputs("\noptions:\n", out);
    for (int i = 0; i < n_opts; i++) print_option(out, opts[i].name, opts[i].arg, opts[i].help);
    print_option(out, "help", NULL, "print this help");
    if (c->examples) {
        fputs("\nexamples:\n", out);
        print_lines(out, c->examples, "  ");
    }
}

int cli_finish(const char *command_name, err *e) {
    int status = (int)err_get_code(e);
    if (!e) return 0;
    const char *kind = status == ERR_RESUME ? "" : "error: ";
    fprintf(stderr, "solar %s: %s%s\n", command_name, kind, err_text(e));
    if (status == ERR_USAGE) fprintf(stderr, "try: solar %s --help\n", command_name);
    err_free(e);
    return status;
}
