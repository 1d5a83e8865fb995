// Loops for any machine of the architecture: SSE2 on x86-64, NEON on arm64.
#include "lanes_head.inc"

#define W               4
#define LANES           lanes_base
#define LANES_NAME      "base"
#define SUPPORTED       true
#define vsqrt(v)        ((vf){sqrtf((v)[0]), sqrtf((v)[1]), sqrtf((v)[2]), sqrtf((v)[3])})
#define vmax(a, b)      choose((a) > (b), a, b)
#define vmin(a, b)      choose((a) < (b), a, b)
#define LANE_NUMBERS    ((vi){0, 1, 2, 3})
#define load_part(x, n) ((vf){(x)[0], (n) > 1 ? (x)[1] : 0, (n) > 2 ? (x)[2] : 0, 0})
#define store_part(y, v, n)                                                                                  \
    do {                                                                                                     \
        for (int64_t lane = 0; lane < (n); lane++) (y)[lane] = (v)[lane];                                    \
    } while (0)

extern const lanes lanes_base;
#include "lanes.inc"
