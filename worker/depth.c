// Depth plans: from m, from ranges, and back to text.
#include "depth.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LAYERS = 65536 }; // beyond this a plan is a slip of the pen; bounds the memory of a hostile one

static depth_plan *plan_new(int n, int s) {
    depth_plan *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->base_layers = n;
    p->layers = s;
    p->donor = calloc((size_t)s, sizeof *p->donor);
    p->seam = calloc((size_t)s, sizeof *p->seam);
    if (p->donor && p->seam) return p;
    depth_free(p);
    return NULL;
}

void depth_free(depth_plan *p) {
    if (!p) return;
    free(p->donor);
    free(p->seam);
    free(p);
}

// Fills in what follows from the donors.
static void plan_finish(depth_plan *p) {
    p->seams = 0;
    p->identity = p->layers == p->base_layers;
    for (int i = 0; i < p->layers; i++) {
        if (p->donor[i] != i) p->identity = false;
        if (i > 0 && p->donor[i] != p->donor[i - 1] + 1) p->seam[p->seams++] = i;
    }
}

static err *check_base(int n) {
    if (n >= 1 && n <= MOST_LAYERS / 2) return NULL;
    return err_new(ERR_CONFIG, "a base model of %d layers cannot be deepened, expected 1 to %d", n,
                   MOST_LAYERS / 2);
}

err *depth_from_m(int n, int m, depth_plan **out) {
    err *e = check_base(n);
    if (e) return e;
    if (m < 0 || m >= n)
        return err_new(ERR_CONFIG, "m = %d: with the %d layers of this model m must be 0 to %d", m, n, n - 1);
    depth_plan *p = plan_new(n, 2 * (n - m));
    if (!p) return err_new(ERR_SYSTEM, "no memory for a depth plan of %d layers", 2 * (n - m));
    for (int i = 0; i < n - m; i++) {
        p->donor[i] = i;
        p->donor[n - m + i] = m + i;
    }
    plan_finish(p);
    *out = p;
    return NULL;
}

err *depth_identity(int n, depth_plan **out) {
    err *e = check_base(n);
    if (e) return e;
    depth_plan *p = plan_new(n, n);
    if (!p) return err_new(ERR_SYSTEM, "no memory for a depth plan of %d layers", n);
    for (int i = 0; i < n; i++) p->donor[i] = i;
    plan_finish(p);
    *out = p;
    return NULL;
}

// ---- "0-23,8-31"

static const char *skip_space(const char *s) {
    while (isspace((unsigned char)*s)) s++;
    return s;
}

// A layer number; false when there is none. Numbers too large for a plan come out as MOST_LAYERS.
static bool parse_layer(const char **s, int *out) {
    const char *p = skip_space(*s);
    if (!isdigit((unsigned char)*p)) return false;
    int v = 0;
    for (; isdigit((unsigned char)*p); p++) v = v >= MOST_LAYERS / 10 ? MOST_LAYERS : v * 10 + (*p - '0');
    *out = v;
    *s = skip_space(p);
    return true;
}

static err *bad_part(const char *part, int n, const char *why) {
    int length = (int)strcspn(part, ",");
    if (length > 40) length = 40;
    return err_new(ERR_CONFIG,
                   "layers: in '%.*s': %s; expected ranges or single layers of 0 to %d, like '0-%d,%d-%d'",
                   length, part, why, n - 1, n - 1, n / 2, n - 1);
}

// One part, at *s; leaves *s behind its comma.
static err *parse_part(const char **s, int n, int *first, int *last) {
    const char *part = *s;
    if (!parse_layer(s, first)) return bad_part(part, n, "found no layer number");
    *last = *first;
    if (**s == '-') {
        ++*s;
        if (!parse_layer(s, last)) return bad_part(part, n, "found no layer number behind '-'");
    }
    if (**s != ',' && **s != '\0') return bad_part(part, n, "found characters behind the number");
    if (*first > *last) return bad_part(part, n, "the range runs backwards");
    if (*last >= n) return bad_part(part, n, "the base model has no such layer");
    if (**s == ',' && *skip_space(++*s) == '\0')
        return bad_part(part, n, "found nothing behind the last comma");
    return NULL;
}

// Counts the layers, and writes them down when donor is not NULL.
static err *walk_parts(const char *ranges, int n, int *donor, int *count) {
    int total = 0, first = 0, last = 0;
    const char *s = ranges;
    do {
        err *e = parse_part(&s, n, &first, &last);
        if (e) return e;
        if (last - first + 1 > MOST_LAYERS - total)
            return err_new(ERR_CONFIG, "layers: more than %d layers in all, expected fewer", MOST_LAYERS);
        for (int i = first; i <= last; i++, total++)
            if (donor) donor[total] = i;
    } while (*s);
    *count = total;
    return NULL;
}

err *depth_from_ranges(int n, const char *ranges, depth_plan **out) {
    int s = 0;
    err *e = check_base(n);
    if (!e) e = walk_parts(ranges, n, NULL, &s);
    if (e) return e;
    depth_plan *p = plan_new(n, s);
    if (!p) return err_new(ERR_SYSTEM, "no memory for a depth plan of %d layers", s);
    e = walk_parts(ranges, n, p->donor, &s);
    plan_finish(p);
    *out = p;
    return e;
}

char *depth_text(const depth_plan *p) {
    size_t room = (size_t)p->layers * 14 + 1, used = 0;
    char *text = calloc(1, room);
    for (int i = 0, end; text && i < p->layers; i = end) {
        for (end = i + 1; end < p->layers && p->donor[end] == p->donor[end - 1] + 1;) end++;
        used += (size_t)snprintf(text + used, room - used, "%s%d", i ? "," : "", p->donor[i]);
        if (end > i + 1) used += (size_t)snprintf(text + used, room - used, "-%d", p->donor[end - 1]);
    }
    return text;
}
