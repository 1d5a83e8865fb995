#include "timeline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 4, MOST_COLUMNS = 400 }; // columns that a forward wants; columns of a line

typedef struct stretch {
    double from, to;
} stretch;

static stretch whole(const timeline_row *rows, int n) {
    stretch s = {INFINITY, -INFINITY};
    for (int r = 0; r < n; r++)
        for (int i = 0; i < rows[r].actions; i++) {
            s.from = fmin(s.from, rows[r].action[i].start);
            s.to = fmax(s.to, rows[r].action[i].end);
        }
    return s;
}

static double shortest(const timeline_row *rows, int n) {
    double least = INFINITY;
    for (int r = 0; r < n; r++)
        for (int i = 0; i < rows[r].actions; i++)
            least = fmin(least, rows[r].action[i].end - rows[r].action[i].start);
    return least;
}

double timeline_idle(const timeline_row *rows, int n, int row) {
    stretch s = whole(rows, n);
    double busy = 0;
    for (int i = 0; i < rows[row].actions; i++) busy += rows[row].action[i].end - rows[row].action[i].start;
    return 1 - busy / (s.to - s.from);
}

static bool interleaved(const timeline_row *row) {
    for (int i = 0; i < row->actions; i++)
        if (row->action[i].chunk > 0) return true;
    return false;
}

// A block of columns from..to-1: its name as far as it fits, then a line.
static void draw_block(char *line, int from, int to, const trace_action *a, bool letter) {
    bool forward = a->kind == ACT_FORWARD;
    char name[24];
    int n = snprintf(name, sizeof name, "%c%d", forward ? 'F' : 'B', a->micro);
    if (letter) n += snprintf(name + n, sizeof name - (size_t)n, "%c", 'a' + a->chunk % 26);
    if (n > to - from) n = 1;
    for (int i = from; i < to; i++) line[i] = i - from < n ? name[i - from] : forward ? '-' : '=';
}

static void draw_row(FILE *out, const timeline_row *row, stretch s, int width) {
    char line[MOST_COLUMNS + 1];
    double scale = width / (s.to - s.from);
    memset(line, '.', (size_t)width);
    line[width] = 0;
    for (int i = 0; i < row->actions; i++) {
        const trace_action *a = &row->action[i];
        double from = round((a->start - s.from) * scale), to = round((a->end - s.from) * scale);
        if (to <= 0 || from >= width) continue;
        draw_block(line, from < 0 ? 0 : (int)from, to > width ? width : (int)to, a, interleaved(row));
    }
    fprintf(out, "stage %3d |%s|\n", row->stage, line);
}

static void draw(FILE *out, const timeline_row *rows, int n, stretch s, double origin, int width) {
    fprintf(out, "%.3g to %.3g s\n", s.from - origin, s.to - origin);
    for (int r = 0; r < n; r++) draw_row(out, &rows[r], s, width);
}

void timeline_print(FILE *out, const timeline_row *rows, int n, int width) {
    stretch s = whole(rows, n);
    if (!(s.to > s.from)) return;
    if (width > MOST_COLUMNS) width = MOST_COLUMNS;
    double part = fmax(shortest(rows, n), (s.to - s.from) / 10000) * width / BLOCK;
    if (part * 2 >= s.to - s.from) {
        draw(out, rows, n, s, s.from, width);
        return;
    }
    draw(out, rows, n, (stretch){s.from, s.from + part}, s.from, width);
    fprintf(out, "...\n");
    draw(out, rows, n, (stretch){s.to - part, s.to}, s.from, width);
}
