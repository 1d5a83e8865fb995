// One step as a chart of text: a row for every pipeline rank, a block for every forward and backward, dots
// where it waits. Planned and measured steps are drawn alike.
#ifndef SOLAR_TIMELINE_H
#define SOLAR_TIMELINE_H

#include <stdio.h>

#include "../worker/trace.h"

typedef struct timeline_row {
    int stage;
    const trace_action *action; // in seconds of one clock, in the order of the schedule
    int actions;
} timeline_row;

// Draws the stretch from the first action to the last, in lines of `width` columns: F3-- is the forward of
// micro-batch 3, B3== its backward, with a letter behind the number for the virtual stage when a rank has
// several. A step too long for one line at a readable scale is drawn as its beginning and its end.
void timeline_print(FILE *out, const timeline_row *rows, int n, int width);
// Share of that stretch that a row is not in an action.
double timeline_idle(const timeline_row *rows, int n, int row);

#endif
