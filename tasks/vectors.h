/* A vector of 64 bytes in a register, for the loops in C beside this file: N numbers of type REAL, and LANE, the integer
   of its size. Narrower registers hold it in parts. */

#include <stdint.h>
#include <string.h>

#define WIDE 64
#define N (WIDE / (long)sizeof(REAL))
typedef REAL Real __attribute__((vector_size(WIDE)));
typedef LANE Lane __attribute__((vector_size(WIDE)));

static inline Real load(const REAL *from) {
    Real v;
    memcpy(&v, from, sizeof v);
    return v;
}
static inline void store(REAL *to, Real v) { memcpy(to, &v, sizeof v); }

/* Whether registers are so wide, which decides for loops that are to be quicker than a library's. */
int worthwhile(void) {
#ifdef __AVX512F__
    return 1;
#else
    return 0;
#endif
}
