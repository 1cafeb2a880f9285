/* What an agent does before it acts on a CPU, for tasks/screens.py: so short that torch spends its time on waking
   threads and on ordering memory.

   Compiled once for each REAL (with LANE, the integer of its size). Pictures are bytes in planes, uint8 [B, C, H, W];
   numbers lie channels last. No number depends on how many threads there are. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vectors.h"

#define FEW (1L << 20) /* numbers that one thread writes sooner than another one wakes */
#define SUMS 24 /* vectors that stay in registers, of 32 */

static inline __attribute__((always_inline)) void one(const uint8_t *from, REAL *to, long C, long P, long plane) {
    for (long p = 0; p < P; p++)
        for (long c = 0; c < C; c++) to[C * p + c] = from[c * plane + p];
}

/* P bytes of each of C planes -> [P, C] */
static void interleave(const uint8_t *from, REAL *to, long C, long P, long plane) {
    switch (C) { /* a number of channels that is known beforehand is what compilers make vectors of */
    case 1: one(from, to, 1, P, plane); break;
    case 3: one(from, to, 3, P, plane); break;
    case 4: one(from, to, 4, P, plane); break;
    default: one(from, to, C, P, plane);
    }
}

/* uint8 [B, C, P] -> REAL [B, P, C] */
int lay(int threads, const uint8_t *from, REAL *to, long B, long C, long P) {
#pragma omp parallel for num_threads(B * C * P < FEW ? 1 : threads)
    for (long b = 0; b < B; b++) interleave(from + b * C * P, to + b * C * P, C, P, P);
    return 0;
}

/* max(from, 0) [n]; NaN stays */
int rectify(int threads, const REAL *from, REAL *to, long n) {
#pragma omp parallel for simd num_threads(n < FEW ? 1 : threads)
    for (long k = 0; k < n; k++) to[k] = from[k] < 0 ? 0 : from[k];
    return 0;
}

/* ---- convolutions with a rectifier each: a thread takes a picture through all of them */

typedef struct {
    long filters, bias, out;               /* addresses of [F, C, kernel, kernel], [F] and [B, h, w, F] */
    long C, H, W, F, kernel, step, border; /* C, H and W are of what it is given, F is a multiple of N */
} Layer;

/* how often a window fits in a side; numbers of a framed picture; of filters */
static inline long fits(long side, const Layer *own) { return (side + 2 * own->border - own->kernel) / own->step + 1; }
static inline long padded(const Layer *own) { return (own->H + 2 * own->border) * (own->W + 2 * own->border) * own->C; }
static inline long weights(const Layer *own) { return own->kernel * own->kernel * own->C * own->F; }

/* [F, C, k, k] -> [k, k, C, F] */
static void turn(const Layer *own, REAL *to) {
    const REAL *from = (const REAL *)own->filters;
    long square = own->kernel * own->kernel;
    for (long q = 0; q < square; q++)
        for (long c = 0; c < own->C; c++)
            for (long f = 0; f < own->F; f++) *to++ = from[(f * own->C + c) * square + q];
}

/* `many` places by `wide` vectors of filters. Windows begin at x + at[p], a row of x has `row` numbers; a sum is taken
   row after row of its window. */
static inline __attribute__((always_inline)) void block(
    const int many, const int wide, const Layer *own, const REAL *x, const long *at, const REAL *w, const REAL *bias,
    REAL *const *to, long row
) {
    long across = own->kernel * own->C, F = own->F;
    Real sum[SUMS];
#pragma GCC unroll 24
    for (int p = 0; p < many; p++)
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++) sum[p * wide + v] = load(bias + v * N);
    for (long i = 0; i < own->kernel; i++) {
        const REAL *rows = x + i * row;
        for (long q = 0; q < across; q++, w += F) {
            Real factor[4];
#pragma GCC unroll 4
            for (int v = 0; v < wide; v++) factor[v] = load(w + v * N);
#pragma GCC unroll 24
            for (int p = 0; p < many; p++)
#pragma GCC unroll 4
                for (int v = 0; v < wide; v++) sum[p * wide + v] += rows[at[p] + q] * factor[v];
        }
    }
#pragma GCC unroll 24
    for (int p = 0; p < many; p++)
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++) {
            Real s = sum[p * wide + v];
            store(to[p] + v * N, (Real)((Lane)s & ~(s < 0))); /* NaN stays */
        }
}

/* x [H + 2 border, W + 2 border, C] -> out [h, w, F], F by `wide` vectors from filter `first` on */
static inline __attribute__((always_inline)) void places(
    const int many, const int wide, const Layer *own, const REAL *x, const REAL *w, long first, REAL *out
) {
    long row = (own->W + 2 * own->border) * own->C, across = fits(own->W, own), all = fits(own->H, own) * across;
    const REAL *bias = (const REAL *)own->bias + first;
    for (long begin = 0; begin < all; begin += many) {
        long at[SUMS];
        REAL *to[SUMS];
        for (int p = 0; p < many; p++) { /* what is too many repeats the last place */
            long place = begin + p < all ? begin + p : all - 1;
            at[p] = place / across * own->step * row + place % across * own->step * own->C;
            to[p] = out + place * own->F + first;
        }
        block(many, wide, own, x, at, w + first, bias, to, row);
    }
}

/* all of them */
static void convolve(const Layer *own, const REAL *x, const REAL *w, REAL *out) {
    long first = 0;
    for (; first + 4 * N <= own->F; first += 4 * N) places(SUMS / 4, 4, own, x, w, first, out);
    for (; first + 2 * N <= own->F; first += 2 * N) places(SUMS / 2, 2, own, x, w, first, out);
    for (; first < own->F; first += N) places(SUMS / 2, 1, own, x, w, first, out);
}

/* What a layer is given, within a border of zeros: the picture in planes of bytes, or what the layer before put out,
   which lies as it must where there is no border. */
static const REAL *framed(const Layer *own, const uint8_t *picture, const REAL *before, REAL *room) {
    long C = own->C, H = own->H, W = own->W, border = own->border;
    if (!picture && !border) return before;
    if (border) memset(room, 0, padded(own) * sizeof *room);
    for (long i = 0; i < H; i++) {
        REAL *row = room + ((i + border) * (W + 2 * border) + border) * C;
        if (picture)
            interleave(picture + i * W, row, C, W, H * W);
        else
            memcpy(row, before + i * W * C, W * C * sizeof *row);
    }
    return room;
}

/* pictures uint8 [B, C, H, W] -> the `out` of every layer; the plan has a row for each */
int encode(int threads, const uint8_t *pictures, const long *plan, long depth, long B) {
    const Layer *layers = (const Layer *)plan, *end = layers + depth;
    long all = 0, room = 0;
    for (const Layer *own = layers; own < end; own++) {
        all += weights(own);
        if (padded(own) > room) room = padded(own);
    }
    REAL *turned = malloc((all + threads * room) * sizeof *turned), *to = turned;
    if (!turned) return 1;
    for (const Layer *own = layers; own < end; to += weights(own++)) turn(own, to);
    long count = 0; /* of threads that are there */
#pragma omp parallel num_threads(threads)
    {
        long mine;
#pragma omp atomic capture
        mine = count++;
        /* a thread that wakes late finds less left to do */
#pragma omp for schedule(dynamic)
        for (long b = 0; b < B; b++) {
            const REAL *x = NULL, *w = turned;
            for (const Layer *own = layers; own < end; w += weights(own++)) {
                const uint8_t *picture = own == layers ? pictures + b * own->C * own->H * own->W : NULL;
                REAL *out = (REAL *)own->out + b * fits(own->H, own) * fits(own->W, own) * own->F;
                convolve(own, framed(own, picture, x, turned + all + mine * room), w, out);
                x = out;
            }
        }
    }
    free(turned);
    return 0;
}
