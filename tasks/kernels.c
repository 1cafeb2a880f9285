/* What tasks/fused.py asks of a processor, in loops that torch has no single call for.

   Compiled once for each REAL (float or double, with LANE, the integer of its size). Images of few channels lie in
   planes with a border of zeros, x [B, c, H + 2, W + 2], and their filters as a matrix [9 c, C]; everything else lies
   channels last, [B, H, W, C], C a multiple of 16. A window is 2x2, its corners are numbered 0 to 3 in reading order,
   and `places` holds the corner that was taken. h and w are H / 2 and W / 2. Sums are taken image by image in REAL and
   then over images in double: so they do not depend on the number of threads. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vectors.h"

typedef uint8_t Byte __attribute__((vector_size(WIDE / sizeof(REAL))));

static inline Real either(Lane where, Real a, Real b) { return (Real)(((Lane)a & where) | ((Lane)b & ~where)); }
static inline Lane corners(const uint8_t *from) {
    Byte v;
    memcpy(&v, from, sizeof v);
    return __builtin_convertvector(v, Lane);
}
static inline Real sign(const REAL *scale) {
    Real one = (Real){0} + 1;
    return either(load(scale) < 0, -one, one);
}

/* The largest of four in the order that `up` gives (1 or -1); the first among equals; NaN wins, as in torch. */
static inline void best_of(const Real *four, Real up, REAL *best, uint8_t *places) {
    Real most = four[0] * up;
    Lane place = {0};
    for (int k = 1; k < 4; k++) {
        Real next = four[k] * up;
        Lane better = (next > most) | (next != next);
        most = either(better, next, most);
        place = (place & ~better) | (better & k);
    }
    Byte narrow = __builtin_convertvector(place, Byte);
    store(best, most * up);
    memcpy(places, &narrow, sizeof narrow);
}

static inline Real at(const Real *four, Lane place) {
    Real v = four[0];
    for (int k = 1; k < 4; k++) v = either(place == k, four[k], v);
    return v;
}

/* sum[k] = the sum over images of parts[image, k], in double */
static void over_images(const REAL *parts, long images, long size, double *sum) {
    memset(sum, 0, size * sizeof *sum);
    for (long image = 0; image < images; image++)
        for (long k = 0; k < size; k++) sum[k] += parts[image * size + k];
}

/* y -> best, places [B, h, w, C]; mean and variance of the first `rows` [C], by differences from the first number */
int pool(int threads, const REAL *y, const REAL *scale, REAL *best, uint8_t *places, REAL *mean, REAL *variance,
         long rows, long B, long H, long W, long C) {
    long h = H / 2, w = W / 2;
    double *sum = malloc(2 * C * sizeof *sum + rows * 2 * C * sizeof(REAL));
    if (!sum) return 1;
    REAL *parts = (REAL *)(sum + 2 * C);
#pragma omp parallel for num_threads(threads)
    for (long b = 0; b < B; b++)
        for (long c = 0; c < C; c += N) {
            if (b < rows) {
                Real one = {0}, square = {0}, origin = load(y + c);
                for (long p = 0; p < H * W; p++) {
                    Real v = load(y + (b * H * W + p) * C + c) - origin;
                    one += v;
                    square += v * v;
                }
                store(parts + 2 * b * C + c, one);
                store(parts + (2 * b + 1) * C + c, square);
            }
            for (long i = 0; i < h; i++)
                for (long j = 0; j < w; j++) {
                    const REAL *from = y + ((b * H + 2 * i) * W + 2 * j) * C + c;
                    Real four[4] = {load(from), load(from + C), load(from + W * C), load(from + W * C + C)};
                    long to = ((b * h + i) * w + j) * C + c;
                    best_of(four, sign(scale + c), best + to, places + to);
                }
        }
    over_images(parts, rows, 2 * C, sum);
    for (long c = 0; c < C; c++) {
        double away = sum[c] / (rows * H * W), left = sum[C + c] / (rows * H * W) - away * away;
        mean[c] = y[c] + away;
        variance[c] = left < 0 ? 0 : left; /* NaN stays */
    }
    free(sum);
    return 0;
}

/* y at known places -> taken [B, h, w, C] */
int take(int threads, const REAL *y, const uint8_t *places, REAL *taken, long B, long H, long W, long C) {
    long h = H / 2, w = W / 2;
#pragma omp parallel for num_threads(threads)
    for (long b = 0; b < B; b++)
        for (long i = 0; i < h; i++)
            for (long j = 0; j < w; j++)
                for (long c = 0; c < C; c += N) {
                    const REAL *from = y + ((b * H + 2 * i) * W + 2 * j) * C + c;
                    Real four[4] = {load(from), load(from + C), load(from + W * C), load(from + W * C + C)};
                    long to = ((b * h + i) * w + j) * C + c;
                    store(taken + to, at(four, corners(places + to)));
                }
    return 0;
}

/* of_y [B, H, W, C]: of_best [B, h, w, C] at its places, 0 elsewhere, and in the first `rows` what the gradients of
   mean and variance add, of_mean / n + 2 of_variance (y - mean) / n. Of no rows, those and y are not read. */
int spread(int threads, const REAL *of_best, const uint8_t *places, const REAL *y, const REAL *mean,
           const REAL *of_mean, const REAL *of_variance, REAL *of_y, long rows, long B, long H, long W, long C) {
    long h = H / 2, w = W / 2;
    REAL share = rows ? (REAL)1 / (rows * H * W) : 0;
#pragma omp parallel for num_threads(threads)
    for (long b = 0; b < B; b++)
        for (long c = 0; c < C; c += N) {
            Real slope = {0}, level = {0};
            if (b < rows) {
                slope = 2 * share * load(of_variance + c);
                level = share * load(of_mean + c) - slope * load(mean + c);
            }
            for (long i = 0; i < H; i++)
                for (long j = 0; j < W; j++) {
                    long here = ((b * H + i) * W + j) * C + c, from = ((b * h + i / 2) * w + j / 2) * C + c;
                    int k = (i & 1) * 2 + (j & 1), pooled = i / 2 < h && j / 2 < w;
                    Real v = {0};
                    if (b < rows) v = slope * load(y + here) + level;
                    if (pooled) v += either(corners(places + from) == k, load(of_best + from), (Real){0});
                    store(of_y + here, v);
                }
        }
    return 0;
}

/* a, b [B, P, C] -> sums of a and of a b over all but channels, each [C] */
int sums(int threads, const REAL *a, const REAL *b, REAL *alone, REAL *both, long B, long P, long C) {
    double *sum = malloc(2 * C * sizeof *sum + B * 2 * C * sizeof(REAL));
    if (!sum) return 1;
    REAL *parts = (REAL *)(sum + 2 * C);
#pragma omp parallel for num_threads(threads)
    for (long image = 0; image < B; image++)
        for (long c = 0; c < C; c += N) {
            Real one = {0}, product = {0};
            for (long p = 0; p < P; p++) {
                Real v = load(a + (image * P + p) * C + c);
                one += v;
                product += v * load(b + (image * P + p) * C + c);
            }
            store(parts + 2 * image * C + c, one);
            store(parts + (2 * image + 1) * C + c, product);
        }
    over_images(parts, B, 2 * C, sum);
    for (long c = 0; c < C; c++) alone[c] = sum[c], both[c] = sum[C + c];
    free(sum);
    return 0;
}

/* ---- normalization and rectifier of peaks [B, P, C] */

/* best -> out = max(0, scale (best - mean) inverse + shift), with inverse = 1 / sqrt(variance + epsilon) [C] */
int finish(int threads, const REAL *best, const REAL *mean, const REAL *variance, const REAL *scale, const REAL *shift,
           REAL *out, REAL *inverse, long B, long P, long C) {
    for (long c = 0; c < C; c++) inverse[c] = 1 / sqrt(variance[c] + 1e-5);
#pragma omp parallel for num_threads(threads)
    for (long b = 0; b < B; b++)
        for (long c = 0; c < C; c += N) {
            Real factor = load(scale + c) * load(inverse + c), level = load(shift + c) - load(mean + c) * factor;
            for (long p = b * P; p < (b + 1) * P; p++) {
                Real v = load(best + p * C + c) * factor + level;
                store(out + p * C + c, either(v < 0, (Real){0}, v)); /* NaN stays */
            }
        }
    return 0;
}

/* Its gradients: with g the gradient where not out <= 0, of_best = scale inverse g, and each [C] of_shift = sum g,
   of_scale = inverse sum g (best - mean), of_mean = -scale inverse sum g, of_variance = -scale inverse^2 of_scale / 2.
 */
int finish_grad(int threads, const REAL *grad, const REAL *out, const REAL *best, const REAL *mean, const REAL *inverse,
                const REAL *scale, REAL *of_best, REAL *of_mean, REAL *of_variance, REAL *of_scale, REAL *of_shift,
                long B, long P, long C) {
    double *sum = malloc(2 * C * sizeof *sum + B * 2 * C * sizeof(REAL));
    if (!sum) return 1;
    REAL *parts = (REAL *)(sum + 2 * C);
#pragma omp parallel for num_threads(threads)
    for (long b = 0; b < B; b++)
        for (long c = 0; c < C; c += N) {
            Real factor = load(scale + c) * load(inverse + c), centre = load(mean + c), total = {0}, along = {0};
            for (long p = b * P; p < (b + 1) * P; p++) {
                Real g = either(load(out + p * C + c) <= 0, (Real){0}, load(grad + p * C + c));
                total += g;
                along += g * (load(best + p * C + c) - centre);
                store(of_best + p * C + c, g * factor);
            }
            store(parts + 2 * b * C + c, total);
            store(parts + (2 * b + 1) * C + c, along);
        }
    over_images(parts, B, 2 * C, sum);
    for (long c = 0; c < C; c++) {
        double factor = (double)scale[c] * inverse[c], slope = sum[C + c] * inverse[c];
        of_shift[c] = sum[c];
        of_scale[c] = slope;
        of_mean[c] = -factor * sum[c];
        of_variance[c] = -0.5 * factor * inverse[c] * slope;
    }
    free(sum);
    return 0;
}

/* ---- the 3x3 convolution of images of few channels, which is never in memory */

/* At the four corners of a window whose first patch begins at `from`; `row` and `plane` are the ways to the next ones.
 */
static inline void convolve(const REAL *from, long row, long plane, const REAL *filters, long c, long C, Real *four) {
    for (int k = 0; k < 4; k++) four[k] = (Real){0};
    for (long p = 0; p < c; p++)
        for (int q = 0; q < 9; q++) {
            const REAL *corner = from + p * plane + q / 3 * row + q % 3;
            Real filter = load(filters + (p * 9 + q) * C);
            for (int k = 0; k < 4; k++) four[k] += corner[(k >> 1) * row + (k & 1)] * filter;
        }
}

#define FEW 4     /* channels */
#define CHUNK 256 /* places at a time, so that their patches stay near */

/* Sums over an image's 3x3 patches q [9 c]: of q, and of q q^T (upper half) behind it */
static void patch_sums(const REAL *image, double *sum, long c, long H, long W) {
    long row = W + 2, size = 9 * c;
    double patches[9 * FEW][CHUNK];
    memset(sum, 0, (size + 1) * size * sizeof *sum);
    for (long begin = 0; begin < H * W; begin += CHUNK) {
        long count = H * W - begin < CHUNK ? H * W - begin : CHUNK;
        for (long p = 0; p < size; p++) {
            const REAL *from = image + (p / 9 * (H + 2) + p % 9 / 3) * row + p % 3;
            for (long n = 0, i = begin / W, j = begin % W; n < count; i++, j = 0)
                for (; j < W && n < count; j++) patches[p][n++] = from[i * row + j];
        }
        for (long p = 0; p < size; p++) {
            double alone = 0;
#pragma omp simd reduction(+ : alone)
            for (long n = 0; n < count; n++) alone += patches[p][n];
            sum[p] += alone;
            for (long q = p; q < size; q++) {
                double both = 0;
#pragma omp simd reduction(+ : both)
                for (long n = 0; n < count; n++) both += patches[p][n] * patches[q][n];
                sum[(p + 1) * size + q] += both;
            }
        }
    }
}

/* Mean [9 c] and covariance [9 c, 9 c] of the patches of the first `rows` images, at most FEW channels each */
int patch_moments(int threads, const REAL *x, double *centre, double *covariance, long rows, long c, long H, long W) {
    long size = 9 * c, all = (size + 1) * size;
    double *parts = malloc((rows + 1) * all * sizeof *parts);
    if (!parts) return 1;
#pragma omp parallel for num_threads(threads)
    for (long b = 0; b < rows; b++) patch_sums(x + b * c * (H + 2) * (W + 2), parts + b * all, c, H, W);
    for (long b = 1; b < rows; b++)
        for (long k = 0; k < all; k++) parts[k] += parts[b * all + k];
    for (long p = 0; p < size; p++) centre[p] = parts[p] / (rows * H * W);
    for (long p = 0; p < size; p++)
        for (long q = p; q < size; q++)
            covariance[p * size + q] = covariance[q * size + p] =
                parts[(p + 1) * size + q] / (rows * H * W) - centre[p] * centre[q];
    free(parts);
    return 0;
}

/* x -> best, places [B, h, w, C] of the convolution, and its mean and variance [C] from those of the patches */
int peak(int threads, const REAL *x, const REAL *filters, const REAL *scale, const double *centre,
         const double *covariance, REAL *best, uint8_t *places, REAL *mean, REAL *variance, long B, long c, long H,
         long W, long C) {
    long h = H / 2, w = W / 2, row = W + 2, plane = (H + 2) * row, size = 9 * c;
#pragma omp parallel for num_threads(threads)
    for (long b = 0; b < B; b++)
        for (long o = 0; o < C; o += N)
            for (long i = 0; i < h; i++)
                for (long j = 0; j < w; j++) {
                    Real four[4];
                    long to = ((b * h + i) * w + j) * C + o;
                    convolve(x + b * c * plane + 2 * i * row + 2 * j, row, plane, filters + o, c, C, four);
                    best_of(four, sign(scale + o), best + to, places + to);
                }
    for (long o = 0; o < C; o++) {
        double middle = 0, square = 0;
        for (long p = 0; p < size; p++) {
            double bent = 0;
            for (long q = 0; q < size; q++) bent += covariance[p * size + q] * filters[q * C + o];
            middle += centre[p] * filters[p * C + o];
            square += bent * filters[p * C + o];
        }
        mean[o] = middle;
        variance[o] = square < 0 ? 0 : square;
    }
    return 0;
}

/* The convolution at known places, linear in the filters -> taken [B, h, w, C] */
int peak_take(int threads, const REAL *x, const REAL *filters, const uint8_t *places, REAL *taken, long B, long c,
              long H, long W, long C) {
    long h = H / 2, w = W / 2, row = W + 2, plane = (H + 2) * row;
#pragma omp parallel for num_threads(threads)
    for (long b = 0; b < B; b++)
        for (long o = 0; o < C; o += N)
            for (long i = 0; i < h; i++)
                for (long j = 0; j < w; j++) {
                    Real four[4];
                    long to = ((b * h + i) * w + j) * C + o;
                    convolve(x + b * c * plane + 2 * i * row + 2 * j, row, plane, filters + o, c, C, four);
                    store(taken + to, at(four, corners(places + to)));
                }
    return 0;
}

/* The transpose of that: of_best [B, h, w, C] -> of_filters [9 c, C]; and where there are moments of the patches, what
   the gradients of mean and variance add, centre of_mean + 2 covariance filters of_variance. */
int peak_filters(int threads, const REAL *x, const REAL *of_best, const uint8_t *places, const REAL *filters,
                 const double *centre, const double *covariance, const REAL *of_mean, const REAL *of_variance,
                 REAL *of_filters, long with_moments, long B, long c, long H, long W, long C) {
    long h = H / 2, w = W / 2, row = W + 2, plane = (H + 2) * row, size = 9 * c * C;
    double *sum = malloc(size * sizeof *sum + B * size * sizeof(REAL));
    if (!sum) return 1;
    REAL *parts = (REAL *)(sum + size);
#pragma omp parallel for num_threads(threads)
    for (long b = 0; b < B; b++)
        for (long p = 0; p < c; p++)
            for (long o = 0; o < C; o += N) {
                Real nine[9] = {{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}};
                for (long i = 0; i < h; i++)
                    for (long j = 0; j < w; j++) {
                        const REAL *from = x + (b * c + p) * plane + 2 * i * row + 2 * j;
                        long here = ((b * h + i) * w + j) * C + o;
                        Real all = load(of_best + here);
                        Lane place = corners(places + here);
                        for (int k = 0; k < 4; k++) {
                            Real part = either(place == k, all, (Real){0});
                            for (int q = 0; q < 9; q++)
                                nine[q] += from[(q / 3 + (k >> 1)) * row + q % 3 + (k & 1)] * part;
                        }
                    }
                for (int q = 0; q < 9; q++) store(parts + b * size + (p * 9 + q) * C + o, nine[q]);
            }
    over_images(parts, B, size, sum);
    for (long p = 0; with_moments && p < 9 * c; p++)
        for (long o = 0; o < C; o++) {
            double bent = 0;
            for (long q = 0; q < 9 * c; q++) bent += covariance[p * 9 * c + q] * filters[q * C + o];
            sum[p * C + o] += centre[p] * of_mean[o] + 2 * bent * of_variance[o];
        }
    for (long k = 0; k < size; k++) of_filters[k] = sum[k];
    free(sum);
    return 0;
}
