// The command line: options, positional arguments, help.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli.h"
#include "scalar.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static int run_nothing(int argc, char **argv) {
    (void)argc;
    (void)argv;
    return 0;
}

static const command demo = {
    .name = "demo",
    .brief = "a command for this test",
    .synopsis = "IN [OUT]",
    .about = "Two\nlines.",
    .examples = "solar demo a\nsolar demo a b",
    .run = run_nothing,
};

typedef struct values {
    bool verbose, force;
    int64_t tokens, free_int;
    double rate;
    const char *text;
    opt_list set;
} values;

enum { OPTIONS = 7 };
static void make_options(values *v, opt opts[OPTIONS]) {
    *v = (values){.tokens = 7, .rate = 0.5, .text = "default"};
    const opt all[OPTIONS] = {
        {.name = "verbose", .type = OPT_FLAG, .dest = &v->verbose, .help = "say more"},
        {.name = "force", .type = OPT_FLAG, .dest = &v->force, .help = "overwrite"},
        {.name = "max-tokens",
         .type = OPT_INT,
         .dest = &v->tokens,
         .arg = "N",
         .help = "tokens",
         .min = 1,
         .max = 100},
        {.name = "free", .type = OPT_INT, .dest = &v->free_int, .arg = "N", .help = "any integer"},
        {.name = "rate",
         .type = OPT_REAL,
         .dest = &v->rate,
         .arg = "R",
         .help = "a rate",
         .min = 0,
         .max = 1},
        {.name = "text", .type = OPT_STRING, .dest = &v->text, .arg = "FILE", .help = "a file"},
        {.name = "set", .type = OPT_LIST, .dest = &v->set, .arg = "K=V", .help = "a key"},
    };
    memcpy(opts, all, sizeof all);
}

enum { MOST_ARGS = 12 };
typedef struct line {
    char *argv[MOST_ARGS];
    int argc, positional;
    bool helped;
    values v;
} line;

// `args`: up to MOST_ARGS - 1 arguments behind the command's name, NULL at the end.
static err *parse(line *l, const char *const *args) {
    opt opts[OPTIONS];
    make_options(&l->v, opts);
    l->argc = 1;
    l->argv[0] = (char *)(uintptr_t) "demo";
    while (*args) l->argv[l->argc++] = (char *)(uintptr_t)*args++;
    return cli_parse(&demo, opts, OPTIONS, 1, 2, l->argc, l->argv, &l->positional, &l->helped);
}

typedef struct bad_line {
    const char *args[MOST_ARGS];
    const char *message;
} bad_line;

static const bad_line bad_lines[] = {
    {{NULL}, "found 0 arguments, expected IN [OUT]"},
    {{"a", "b", "c"}, "found one argument too many, \"c\", expected IN [OUT]"},
    {{"a", "--", "b", "--force"}, "found one argument too many, \"--force\""},
    {{"a", "--verbos"}, "unknown option \"--verbos\"; did you mean --verbose?"},
    {{"a", "--max"}, "unknown option \"--max\"; did you mean --max-tokens?"},
    {{"a", "--max_tokens=5"}, "unknown option \"--max_tokens=5\"; did you mean --max-tokens?"},
    {{"a", "--frobnicate"}, "unknown option \"--frobnicate\""},
    {{"a", "--hlep"}, "unknown option \"--hlep\"; did you mean --help?"},
    {{"a", "-v"}, "unknown option \"-v\""},
    {{"a", "-text", "x"}, "unknown option \"-text\"; did you mean --text?"},
    {{"a", "-5"}, "unknown option \"-5\""},
    {{"a", "--=5"}, "unknown option \"--=5\""},
    {{"a", "--max-tokens"}, "--max-tokens needs a value: --max-tokens N"},
    {{"a", "--text"}, "--text needs a value: --text FILE"},
    {{"a", "--text", "--force"}, "--text needs a value"},
    {{"a", "--text", "-x"}, "--text needs a value"},
    {{"a", "--text="}, "--text: found an empty value, expected FILE"},
    {{"a", "--text", ""}, "--text: found an empty value, expected FILE"},
    {{"a", "--max-tokens", "--force"}, "--max-tokens needs a value"},
    {{"a", "--max-tokens", "ten"}, "--max-tokens: found \"ten\", expected an integer (N)"},
    {{"a", "--max-tokens", "1e1"}, "--max-tokens: found \"1e1\", expected an integer"},
    {{"a", "--max-tokens=1.5"}, "--max-tokens: found \"1.5\", expected an integer"},
    {{"a", "--max-tokens= 5"}, "--max-tokens: found \" 5\", expected an integer"},
    {{"a", "--max-tokens=5x"}, "--max-tokens: found \"5x\", expected an integer"},
    {{"a", "--max-tokens=0x5"}, "--max-tokens: found \"0x5\", expected an integer"},
    {{"a", "--max-tokens=010"}, "--max-tokens: found \"010\", expected an integer"},
    {{"a", "--max-tokens", "0"}, "--max-tokens: found \"0\", expected an integer from 1 to 100"},
    {{"a", "--max-tokens", "101"}, "--max-tokens: found \"101\", expected an integer from 1 to 100"},
    {{"a", "--max-tokens", "-3"}, "--max-tokens: found \"-3\", expected an integer from 1 to 100"},
    {{"a", "--free", "9223372036854775808"},
     "--free: found \"9223372036854775808\", which is beyond what can be stored"},
    {{"a", "--free=-99999999999999999999"}, "--free: found \"-99999999999999999999\", which is beyond"},
    {{"a", "--rate", "fast"}, "--rate: found \"fast\", expected a number (R)"},
    {{"a", "--rate", "nan"}, "--rate: found \"nan\", expected a number"},
    {{"a", "--rate", "inf"}, "--rate: found \"inf\", expected a number"},
    {{"a", "--rate", "1e999"}, "--rate: found \"1e999\", which is beyond what can be stored"},
    {{"a", "--rate", "1.5"}, "--rate: found \"1.5\", expected a number from 0 to 1"},
    {{"a", "--rate", "-0.1"}, "--rate: found \"-0.1\", expected a number from 0 to 1"},
    {{"a", "--force=yes"}, "--force takes no value"},
    {{"a", "--force", "--force"}, "--force is given twice"},
    {{"a", "--max-tokens", "3", "--max-tokens=3"}, "--max-tokens is given twice"},
    {{"a", "--text=x", "--text=y"}, "--text is given twice"},
    {{"a", "--set"}, "--set needs a value: --set K=V"},
    {{"a", "--\x1b[31m"}, "unknown option \"--\\x1b[31m\""},
};

static void bad_lines_are_named(void **state) {
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < COUNT(bad_lines); i++) {
        line l;
        err *e = parse(&l, bad_lines[i].args);
        bool good = err_get_code(e) == ERR_USAGE &&
                    !strncmp(err_text(e), bad_lines[i].message, strlen(bad_lines[i].message));
        if (!good) print_error("found:    %s\nexpected: %s\n", err_text(e), bad_lines[i].message);
        wrong += !good;
        err_free(e);
    }
    assert_int_equal(wrong, 0);
}

static void good(line *l, const char *const *args) {
    err *e = parse(l, args);
    if (e) fail_msg("%s", err_text(e));
}

static void options_are_stored(void **state) {
    (void)state;
    line l;
    good(&l, (const char *const[]){"in", NULL});
    assert_true(!l.v.verbose && l.v.tokens == 7 && l.v.rate == 0.5 && l.v.set.count == 0 && !l.helped);
    assert_string_equal(l.v.text, "default");
    good(&l, (const char *const[]){"--max-tokens", "100", "in", "--rate=1e-3", "--text", "-", "--verbose",
                                   "out", NULL});
    assert_true(l.v.verbose && !l.v.force && l.v.tokens == 100 && l.v.rate == 1e-3);
    assert_string_equal(l.v.text, "-");
    good(&l, (const char *const[]){"in", "--free", "-5", "--text=--odd=name", "--rate=0", NULL});
    assert_true(l.v.free_int == -5 && l.v.rate == 0);
    assert_string_equal(l.v.text, "--odd=name");
    good(&l, (const char *const[]){"in", "--set", "a=1", "--set=b=2", "--set", "c=-3", NULL});
    assert_int_equal(l.v.set.count, 3);
    assert_string_equal(l.v.set.item[1], "b=2");
}

static void positionals_come_first(void **state) {
    (void)state;
    line l;
    good(&l, (const char *const[]){"--force", "in", "--max-tokens", "3", "out", "--verbose", NULL});
    assert_int_equal(l.positional, 2);
    assert_string_equal(l.argv[0], "demo");
    assert_string_equal(l.argv[1], "in");
    assert_string_equal(l.argv[2], "out");
    good(&l, (const char *const[]){"--force", "--", "--max-tokens", "-", NULL});
    assert_int_equal(l.positional, 2);
    assert_string_equal(l.argv[1], "--max-tokens");
    assert_string_equal(l.argv[2], "-");
    assert_int_equal(l.v.tokens, 7);
}

static void lists_have_an_end(void **state) {
    (void)state;
    opt_list list = {.count = 0};
    const opt o = {.name = "set", .type = OPT_LIST, .dest = &list, .arg = "K=V", .help = "a key"};
    char *argv[67] = {(char *)(uintptr_t) "demo"};
    int positional;
    bool helped;
    for (int i = 1; i < 67; i++) argv[i] = (char *)(uintptr_t) "--set=a=1";
    err *e = cli_parse(&demo, &o, 1, 0, 0, 65, argv, &positional, &helped);
    assert_null(e);
    assert_int_equal(list.count, 64);
    list.count = 0;
    e = cli_parse(&demo, &o, 1, 0, 0, 66, argv, &positional, &helped);
    assert_string_equal(err_text(e), "--set: found more than 64 of them");
    err_free(e);
}

static char *help_text(void) {
    values v;
    opt opts[OPTIONS];
    char *text = NULL;
    size_t bytes = 0;
    make_options(&v, opts);
    FILE *out = open_memstream(&text, &bytes);
    cli_help(&demo, opts, OPTIONS, out);
    fclose(out);
    return text;
}

static void help_names_everything(void **state) {
    (void)state;
    static const char *const part[] = {
        "solar demo - a command for this test",
        "usage: solar demo IN [OUT] [OPTION]...",
        "\nTwo\nlines.\n",
        "--max-tokens N ",
        "--set K=V ",
        "--help ",
        "  solar demo a b\n",
    };
    char *text = help_text();
    for (size_t i = 0; i < COUNT(part); i++)
        if (!strstr(text, part[i])) fail_msg("no \"%s\" in\n%s", part[i], text);
    free(text);
}

static void errors_become_exit_codes(void **state) {
    (void)state;
    assert_int_equal(cli_finish("demo", NULL), 0);
    static const err_code code[] = {ERR_RUNTIME, ERR_USAGE, ERR_CONFIG, ERR_MISMATCH, ERR_RESUME};
    for (size_t i = 0; i < COUNT(code); i++)
        assert_int_equal(cli_finish("demo", err_new(code[i], "a message of test_cli")), (int)code[i]);
}

static void near_words_are_suggested(void **state) {
    (void)state;
    static const char *const known[] = {"train", "tokenize", "verify", "eval", "m"};
    static const char *const pair[][2] = {
        {"trian", "train"},  {"trai", "train"},   {"tokenise", "tokenize"},
        {"tok", "tokenize"}, {"verfy", "verify"}, {"evla", "eval"},
        {"n", "m"},          {"xyz", NULL},       {"", NULL},
        {"upscale", NULL},   {"to", NULL},
    };
    for (size_t i = 0; i < COUNT(pair); i++) {
        const char *found = suggest(pair[i][0], known, COUNT(known));
        if (pair[i][1])
            assert_string_equal(found ? found : "(none)", pair[i][1]);
        else
            assert_null(found);
    }
    char longer[300];
    memset(longer, 't', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_null(suggest(longer, known, COUNT(known)));
}

static void ranges_in_words(void **state) {
    (void)state;
    static const char *const pair[][2] = {
        {"[1, 9]", "from 1 to 9"},  {"(0, inf)", "> 0"},          {"[0, inf)", ">= 0"},
        {"[0, 1)", ">= 0 and < 1"}, {"(0, 10]", "> 0 and <= 10"}, {"(-inf, 5]", "<= 5"},
    };
    for (size_t i = 0; i < COUNT(pair); i++) {
        char words[80];
        range r = range_read(pair[i][0]);
        range_words(words, &r);
        assert_string_equal(words, pair[i][1]);
    }
    range r = range_read("[0, 1)");
    assert_true(range_holds(&r, 0) && range_holds(&r, 0.999) && !range_holds(&r, 1) &&
                !range_holds(&r, -1e-9));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_lines_are_named),      cmocka_unit_test(options_are_stored),
        cmocka_unit_test(positionals_come_first),   cmocka_unit_test(lists_have_an_end),
        cmocka_unit_test(help_names_everything),    cmocka_unit_test(errors_become_exit_codes),
        cmocka_unit_test(near_words_are_suggested), cmocka_unit_test(ranges_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
