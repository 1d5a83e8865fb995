// "Did you mean": the known word nearest to what was written.
#include <string.h>

#include "scalar.h"

enum { LONGEST_WORD = 64 };

static int least(int a, int b) { return a < b ? a : b; }

// Edits (insert, delete, change, swap of neighbours) between two words of at most LONGEST_WORD bytes: the
// optimal string alignment distance, three rows of the table at a time.
static int edit_distance(const char *a, const char *b) {
    int row[3][LONGEST_WORD + 1];
    int na = (int)strlen(a), nb = (int)strlen(b);
    for (int j = 0; j <= nb; j++) row[0][j] = j;
    for (int i = 1; i <= na; i++) {
        int *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= nb; j++) {
            int change = last[j - 1] + (a[i - 1] != b[j - 1]);
            now[j] = least(change, 1 + least(last[j], now[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], before[j - 2] + 1);
        }
    }
    return row[na % 3][nb];
}

const char *suggest(const char *word, const char *const *known, int count) {
    size_t length = strlen(word);
    if (length == 0 || length > LONGEST_WORD) return NULL;
    int best_distance = length <= 3 ? 1 : length <= 6 ? 2 : 3;
    const char *best = NULL, *longer = NULL;
    for (int i = 0; i < count; i++) {
        if (strlen(known[i]) > LONGEST_WORD) continue;
        int distance = edit_distance(word, known[i]);
        if (distance < best_distance || (distance == best_distance && !best)) {
            best_distance = distance;
            best = known[i];
        }
        if (!longer && length >= 3 && !strncmp(known[i], word, length)) longer = known[i];
    }
    return best ? best : longer;
}
