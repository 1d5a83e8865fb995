// Which of the compiled loops to run.
#include "lanes.h"

#include <stddef.h>

extern const lanes lanes_base;
#ifdef __x86_64__
extern const lanes lanes_avx2, lanes_avx512, lanes_avx512_bf16;
#endif

const lanes *const *lanes_all(void) {
    static const lanes *const all[] = {
#ifdef __x86_64__
        &lanes_avx512_bf16, &lanes_avx512, &lanes_avx2,
#endif
        &lanes_base,        NULL,
    };
    return all;
}

const lanes *lanes_best(void) {
    for (const lanes *const *set = lanes_all(); *set; set++)
        if ((*set)->supported()) return *set;
    return &lanes_base;
}
