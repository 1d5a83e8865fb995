// Loops for any machine of the architecture: SSE2 on x86-64, NEON on arm64.
#include "lanes_head.inc"

#define W          4
#define LANES      lanes_base
#define LANES_NAME "base"
#define SUPPORTED  true
#define vsqrt(v)   ((vf){sqrtf((v)[0]), sqrtf((v)[1]), sqrtf((v)[2]), sqrtf((v)[3])})
#define vmax(a, b) choose((a) > (b), a, b)
#define vmin(a, b) choose((a) < (b), a, b)

extern const lanes lanes_base;
#include "lanes.inc"
