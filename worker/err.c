// Errors as values: a code and a text that grows context on its way up.
#include "err.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct err {
    err_code code;
    bool shared;
    char *text;
};

// What is returned when there is no memory to describe an error. Never written to, never freed.
static const err no_memory = {ERR_SYSTEM, false, (char *)"out of memory (while reporting an error)"};

static bool is_static(const err *e) { return e == &no_memory; }

// Names out of a user's file end up in messages: no escape sequence of theirs reaches a terminal.
static void disarm(char *text) {
    for (; *text; text++)
        if (((unsigned char)*text < ' ' && *text != '\n' && *text != '\t') || *text == 127) *text = '?';
}

// Takes text; gives the static error where memory is short.
static err *make(err_code code, char *text) {
    err *e = text ? malloc(sizeof *e) : NULL;
    if (!e) {
        free(text);
        return (err *)&no_memory;
    }
    disarm(text);
    e->code = code;
    e->shared = false;
    e->text = text;
    return e;
}

static char *format(const char *fmt, va_list ap) {
    char *text = NULL;
    return vasprintf(&text, fmt, ap) < 0 ? NULL : text;
}

static char *join(const char *a, const char *b) {
    char *text = NULL;
    return asprintf(&text, "%s: %s", a, b) < 0 ? NULL : text;
}

err *err_new(err_code code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *text = format(fmt, ap);
    va_end(ap);
    return make(code, text);
}

err *err_errno(int errno_value, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *what = format(fmt, ap);
    va_end(ap);
    char reason[128];
    char *text = what ? join(what, strerror_r(errno_value, reason, sizeof reason)) : NULL;
    free(what);
    return make(ERR_SYSTEM, text);
}

err *err_wrap(err *e, const char *fmt, ...) {
    if (!e || is_static(e)) return e;
    va_list ap;
    va_start(ap, fmt);
    char *context = format(fmt, ap);
    va_end(ap);
    char *text = context ? join(context, e->text) : NULL;
    free(context);
    if (text) disarm(text);
    if (!text) return e; // the message without its context is worth more than neither
    free(e->text);
    e->text = text;
    return e;
}

err *err_first(err *first, err *second) {
    if (!first) return second;
    err_free(second);
    return first;
}

err *err_share(err *e) {
    if (e && !is_static(e)) e->shared = true;
    return e;
}

bool err_is_shared(const err *e) { return e && e->shared; }

err_code err_get_code(const err *e) { return e ? e->code : ERR_OK; }

const char *err_text(const err *e) { return e ? e->text : ""; }

void err_free(err *e) {
    if (!e || is_static(e)) return;
    free(e->text);
    free(e);
}
