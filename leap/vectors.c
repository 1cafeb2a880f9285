/* Passes over rows of parameters [T, n] that leap/vectors.py asks for: what would be several of torch's calls in one.

   Compiled once for each REAL (float or double). A row lies together in memory; its neighbour begins a stride further.
   Sums go over pieces of fixed size, so they do not depend on the number of threads. */

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <tgmath.h>

#define PIECE 4096

static long least(long a, long b) { return a < b ? a : b; }

/* |y - x|^2 of each row -> square [T]; parts is room for the pieces' sums */
static void squares(int threads, const REAL *x, const REAL *y, double *square, double *parts, long x_stride,
                    long y_stride, long T, long n) {
    long pieces = (n + PIECE - 1) / PIECE;
#pragma omp parallel for num_threads(threads)
    for (long piece = 0; piece < T * pieces; piece++) {
        long t = piece / pieces, begin = piece % pieces * PIECE, end = least(begin + PIECE, n);
        const REAL *from = x + t * x_stride, *to = y + t * y_stride;
        REAL sum = 0;
#pragma omp simd reduction(+ : sum)
        for (long k = begin; k < end; k++) sum += (to[k] - from[k]) * (to[k] - from[k]);
        parts[piece] = sum;
    }
    for (long t = 0; t < T; t++) {
        square[t] = 0;
        for (long piece = 0; piece < pieces; piece++) square[t] += parts[t * pieces + piece];
    }
}

/* |y - x| of each row -> found [T] */
int distance(int threads, const REAL *x, const REAL *y, REAL *found, long x_stride, long y_stride, long T, long n) {
    double *square = malloc((T + T * ((n + PIECE - 1) / PIECE)) * sizeof *square);
    if (!square) return 1;
    squares(threads, x, y, square, square + T, x_stride, y_stride, T, n);
    for (long t = 0; t < T; t++) found[t] = sqrt(square[t]);
    free(square);
    return 0;
}

/* Leap's increment, equation 8: total -= w (y - x + s g) in each row, where s is the rise, or with `stabilizer`
   -|rise|, times the factor, and 0 without `loss`; w is 2, or for the length 1 / |(y - x, rise)| (1 / |y - x| without
   `loss`). */
int pull(int threads, REAL *total, const REAL *x, const REAL *y, const REAL *g, const REAL *rise, const REAL *factor,
         long total_stride, long x_stride, long y_stride, long g_stride, long length, long loss, long stabilizer,
         long T, long n) {
    long pieces = (n + PIECE - 1) / PIECE;
    double *square = malloc((T + T * pieces) * sizeof *square), tiny = sizeof(REAL) == 4 ? FLT_MIN : DBL_MIN;
    REAL *scale = malloc(2 * T * sizeof *scale);
    if (!square || !scale) {
        free(square);
        free(scale);
        return 1;
    }
    if (length) squares(threads, x, y, square, square + T, x_stride, y_stride, T, n);
    for (long t = 0; t < T; t++) {
        double up = rise[t], norm = length ? sqrt(square[t] + (loss ? up * up : 0)) : 0.5;
        if (norm < tiny) norm = tiny; /* finite, so nothing times it is nothing */
        scale[2 * t] = 1 / norm;
        scale[2 * t + 1] = (stabilizer ? -fabs(up) : up) * factor[t] / norm;
    }
#pragma omp parallel for num_threads(threads)
    for (long piece = 0; piece < T * pieces; piece++) {
        long t = piece / pieces, begin = piece % pieces * PIECE, end = least(begin + PIECE, n);
        const REAL *from = x + t * x_stride, *to = y + t * y_stride, *slope = g + t * g_stride;
        REAL *sum = total + t * total_stride, along = scale[2 * t], up = scale[2 * t + 1];
        if (loss) {
#pragma omp simd
            for (long k = begin; k < end; k++) sum[k] -= along * (to[k] - from[k]) + up * slope[k];
        } else {
#pragma omp simd
            for (long k = begin; k < end; k++) sum[k] -= along * (to[k] - from[k]);
        }
    }
    free(square);
    free(scale);
    return 0;
}

/* second_next = alpha second + (1 - alpha) grad^2, theta_next = theta - rate grad / root, all [n]; the root is
   sqrt(second_next) + eps, or with `inside` sqrt(second_next + eps) */
int rmsprop(int threads, const REAL *theta, const REAL *grad, const REAL *second, const double *numbers,
            REAL *theta_next, REAL *second_next, long inside, long n) {
    REAL rate = numbers[0], alpha = numbers[1], rest = 1 - numbers[1], within = inside ? numbers[2] : 0,
         beside = inside ? 0 : numbers[2];
#pragma omp parallel for simd num_threads(threads)
    for (long k = 0; k < n; k++) {
        REAL moment = alpha * second[k] + rest * (grad[k] * grad[k]);
        second_next[k] = moment;
        theta_next[k] = theta[k] - rate * (grad[k] / (sqrt(moment + within) + beside));
    }
    return 0;
}
