/* Passes of an agent that acts, for tasks/screens.py: compiled once for each REAL (float or double). */

#include <stdint.h>

#define FEW (1L << 20) /* numbers that one thread writes sooner than another one wakes */

static inline __attribute__((always_inline)) void one(const uint8_t *from, REAL *to, long C, long P) {
    for (long p = 0; p < P; p++)
        for (long c = 0; c < C; c++) to[C * p + c] = from[c * P + p];
}

/* uint8 [B, C, P] -> REAL [B, P, C] */
int lay(int threads, const uint8_t *from, REAL *to, long B, long C, long P) {
#pragma omp parallel for num_threads(B * C * P < FEW ? 1 : threads)
    for (long b = 0; b < B; b++) {
        const uint8_t *planes = from + b * C * P;
        REAL *pixels = to + b * C * P;
        switch (C) { /* a number of channels that is known beforehand is what compilers make vectors of */
        case 1: one(planes, pixels, 1, P); break;
        case 3: one(planes, pixels, 3, P); break;
        case 4: one(planes, pixels, 4, P); break;
        default: one(planes, pixels, C, P);
        }
    }
    return 0;
}

/* max(from, 0) [n]; NaN stays */
int rectify(int threads, const REAL *from, REAL *to, long n) {
#pragma omp parallel for simd num_threads(n < FEW ? 1 : threads)
    for (long k = 0; k < n; k++) to[k] = from[k] < 0 ? 0 : from[k];
    return 0;
}
