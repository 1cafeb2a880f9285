/* A 3x3 convolution, padded to the same size, with 16 multiplications for four numbers instead of 36: F(2x2, 3x3) of
   Lavin and Gray 2016, and its gradient in the filters.

   With a tile d (4x4) of the image, a filter g (3x3) and their transforms V = B^T d B and U = G g G^T, four numbers of
   the convolution are A^T (sum over channels of U . V) A. Over tiles that is a product of matrices for each of the 16
   numbers of a tile, [tiles, I] x [I, O].

   Compiled once for each REAL. Images lie channels last, [B, H, W, I or O], filters as torch's, [O, I, 3, 3]; I and O
   are multiples of 16. Tiles go through in blocks that stay near; sums do not depend on the number of threads. */

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "vectors.h"

#define TILES 48 /* of a block, a multiple of ROWS */
#define ROWS 4   /* of a product at a time, by four vectors */
#define GROUPS 4 /* of blocks, whose sums are taken apart */
/* From one of a block's 16 matrices to the next: no power of two, or all meet in one place of the caches. */
#define PLANE(C) (TILES * (C) + 2 * N)

/* ---- transforms */

/* G g along one axis */
static inline void widen(const Real *g, long from, Real *u, long to) {
    Real sum = g[0] + g[2 * from], half = (Real){0} + (REAL)0.5;
    u[0] = g[0];
    u[to] = half * (sum + g[from]);
    u[2 * to] = half * (sum - g[from]);
    u[3 * to] = g[2 * from];
}

/* G^T u along one axis */
static inline void narrow(const Real *u, long from, Real *g, long to) {
    Real half = (Real){0} + (REAL)0.5, sum = half * (u[from] + u[2 * from]);
    g[0] = u[0] + sum;
    g[to] = half * (u[from] - u[2 * from]);
    g[2 * to] = u[3 * from] + sum;
}

/* All filters transformed: [16, I, O]. `turned` is the convolution's transpose in the image: w is [I, O, 3, 3] then. */
static void transform_filters(const REAL *w, REAL *U, long turned, long I, long O) {
    for (long i = 0; i < I; i++)
        for (long o = 0; o < O; o += N) {
            Real g[9], rows[12], u[16];
            for (int q = 0; q < 9; q++)
                for (long k = 0; k < N; k++)
                    g[q][k] = turned ? w[(i * O + o + k) * 9 + 8 - q] : w[((o + k) * I + i) * 9 + q];
            for (int v = 0; v < 3; v++) widen(g + v, 3, rows + v, 3);
            for (int r = 0; r < 4; r++) widen(rows + 3 * r, 1, u + 4 * r, 1);
            for (int e = 0; e < 16; e++) store(U + (e * I + i) * O + o, u[e]);
        }
}

/* The transpose of that: of_U [16, I, O] -> of_w [O, I, 3, 3] */
static void gather_filters(const REAL *of_U, REAL *of_w, long I, long O) {
    for (long i = 0; i < I; i++)
        for (long o = 0; o < O; o += N) {
            Real g[9], rows[12], u[16];
            for (int e = 0; e < 16; e++) u[e] = load(of_U + (e * I + i) * O + o);
            for (int r = 0; r < 4; r++) narrow(u + 4 * r, 1, rows + 3 * r, 1);
            for (int v = 0; v < 3; v++) narrow(rows + v, 3, g + v, 3);
            for (int q = 0; q < 9; q++)
                for (long k = 0; k < N; k++) of_w[((o + k) * I + i) * 9 + q] = g[q][k];
        }
}

typedef struct {
    long B, H, W, down, across, count; /* tiles of an image, and of all */
} Grid;

static Grid grid(long B, long H, long W) {
    long down = (H + 1) / 2, across = (W + 1) / 2;
    return (Grid){B, H, W, down, across, B * down * across};
}

/* B^T d B of the tiles of a block: V, 16 times [TILES, C]; tiles beyond the last are 0 */
static void transform_images(const REAL *x, REAL *V, long first, Grid at, long C) {
    for (long t = 0; t < TILES; t++) {
        long tile = first + t, b = tile / (at.down * at.across);
        long top = tile / at.across % at.down * 2 - 1, left = tile % at.across * 2 - 1;
        for (long c = 0; c < C; c += N) {
            Real d[16], r[16];
            for (int e = 0; e < 16; e++) {
                long i = top + e / 4, j = left + e % 4;
                int inside = tile < at.count && i >= 0 && i < at.H && j >= 0 && j < at.W;
                d[e] = inside ? load(x + ((b * at.H + i) * at.W + j) * C + c) : (Real){0};
            }
            for (int j = 0; j < 4; j++) {
                r[j] = d[j] - d[8 + j];
                r[4 + j] = d[4 + j] + d[8 + j];
                r[8 + j] = d[8 + j] - d[4 + j];
                r[12 + j] = d[4 + j] - d[12 + j];
            }
            for (int i = 0; i < 16; i += 4) {
                store(V + (i + 0) * PLANE(C) + t * C + c, r[i] - r[i + 2]);
                store(V + (i + 1) * PLANE(C) + t * C + c, r[i + 1] + r[i + 2]);
                store(V + (i + 2) * PLANE(C) + t * C + c, r[i + 2] - r[i + 1]);
                store(V + (i + 3) * PLANE(C) + t * C + c, r[i + 1] - r[i + 3]);
            }
        }
    }
}

/* A^T M A of the tiles of a block, M, 16 times [TILES, C], to their places in y */
static void place_images(const REAL *M, REAL *y, long first, Grid at, long C) {
    for (long t = 0; t < TILES && first + t < at.count; t++) {
        long tile = first + t, b = tile / (at.down * at.across);
        long top = tile / at.across % at.down * 2, left = tile % at.across * 2;
        for (long c = 0; c < C; c += N) {
            Real m[16], r[8];
            for (int e = 0; e < 16; e++) m[e] = load(M + e * PLANE(C) + t * C + c);
            for (int j = 0; j < 4; j++) {
                r[j] = m[j] + m[4 + j] + m[8 + j];
                r[4 + j] = m[4 + j] - m[8 + j] - m[12 + j];
            }
            for (int i = 0; i < 2 && top + i < at.H; i++) {
                REAL *to = y + ((b * at.H + top + i) * at.W + left) * C + c;
                store(to, r[4 * i] + r[4 * i + 1] + r[4 * i + 2]);
                if (left + 1 < at.W) store(to + C, r[4 * i + 1] - r[4 * i + 2] - r[4 * i + 3]);
            }
        }
    }
}

/* The transpose of that: A g A^T, G, 16 times [TILES, C] */
static void take_images(const REAL *g, REAL *G, long first, Grid at, long C) {
    for (long t = 0; t < TILES; t++) {
        long tile = first + t, b = tile / (at.down * at.across);
        long top = tile / at.across % at.down * 2, left = tile % at.across * 2;
        for (long c = 0; c < C; c += N) {
            Real d[4], r[8];
            for (int e = 0; e < 4; e++) {
                long i = top + e / 2, j = left + e % 2;
                int inside = tile < at.count && i < at.H && j < at.W;
                d[e] = inside ? load(g + ((b * at.H + i) * at.W + j) * C + c) : (Real){0};
            }
            for (int j = 0; j < 2; j++) {
                r[j] = d[j];
                r[2 + j] = d[j] + d[2 + j];
                r[4 + j] = d[j] - d[2 + j];
                r[6 + j] = -d[2 + j];
            }
            for (int i = 0; i < 4; i++) {
                store(G + (4 * i + 0) * PLANE(C) + t * C + c, r[2 * i]);
                store(G + (4 * i + 1) * PLANE(C) + t * C + c, r[2 * i] + r[2 * i + 1]);
                store(G + (4 * i + 2) * PLANE(C) + t * C + c, r[2 * i] - r[2 * i + 1]);
                store(G + (4 * i + 3) * PLANE(C) + t * C + c, -r[2 * i + 1]);
            }
        }
    }
}

/* ---- products of matrices, ROWS x `vectors` vectors at a time, all of whose sums stay in registers */

/* c [ROWS, .] = a b, or + c: the numbers of a stand `down` apart from row to row and `along` from product to product.
   Apart for each number of vectors, or compilers put the sums in memory. */
#define PRODUCT(VECTORS)                                                                                               \
    static __attribute__((noinline)) void product_##VECTORS(const REAL *a, long down, long along, const REAL *b,       \
                                                            REAL *c, long O, long depth, int on) {                     \
        Real sum[ROWS][VECTORS];                                                                                       \
        for (int r = 0; r < ROWS; r++)                                                                                 \
            for (int v = 0; v < VECTORS; v++) sum[r][v] = (Real){0};                                                   \
        for (long k = 0; k < depth; k++) {                                                                             \
            Real row[VECTORS];                                                                                         \
            for (int v = 0; v < VECTORS; v++) row[v] = load(b + k * O + v * N);                                        \
            for (int r = 0; r < ROWS; r++)                                                                             \
                for (int v = 0; v < VECTORS; v++) sum[r][v] += a[r * down + k * along] * row[v];                       \
        }                                                                                                              \
        for (int r = 0; r < ROWS; r++)                                                                                 \
            for (int v = 0; v < VECTORS; v++)                                                                          \
                store(c + r * O + v * N, sum[r][v] + (on ? load(c + r * O + v * N) : (Real){0}));                      \
    }
PRODUCT(4)
PRODUCT(2)
PRODUCT(1)

/* c [rows, O] = a b, or + c, with rows a multiple of ROWS */
static void matrix(const REAL *a, long down, long along, const REAL *b, REAL *c, long rows, long depth, long O,
                   int on) {
    for (long o = 0, vectors; o < O; o += vectors * N) {
        vectors = O - o >= 4 * N ? 4 : O - o >= 2 * N ? 2 : 1;
        for (long r = 0; r < rows; r += ROWS)
            (vectors == 4   ? product_4
             : vectors == 2 ? product_2
                            : product_1)(a + r * down, down, along, b + o, c + r * O + o, O, depth, on);
    }
}

/* Memory that a thread keeps from call to call: taking it anew costs more than the arithmetic. */
static REAL *scratch(size_t numbers) {
    static _Thread_local REAL *kept;
    static _Thread_local size_t size;
    if (numbers > size) {
        free(kept);
        kept = aligned_alloc(64, (numbers * sizeof *kept + 63) / 64 * 64);
        size = kept ? numbers : 0;
    }
    return kept;
}

/* x [B, H, W, I] -> y [B, H, W, O]; U is room for the transformed filters, [16, I, O] */
int convolve(int threads, const REAL *x, const REAL *w, REAL *U, REAL *y, long turned, long B, long H, long W, long I,
             long O) {
    Grid at = grid(B, H, W);
    long blocks = (at.count + TILES - 1) / TILES;
    int failed = 0;
    transform_filters(w, U, turned, I, O);
#pragma omp parallel for num_threads(threads) reduction(| : failed)
    for (long block = 0; block < blocks; block++) {
        REAL *V = scratch(16 * (PLANE(I) + PLANE(O))), *M = V + 16 * PLANE(I);
        if (!V) {
            failed = 1;
            continue;
        }
        transform_images(x, V, block * TILES, at, I);
        for (long e = 0; e < 16; e++) matrix(V + e * PLANE(I), I, 1, U + e * I * O, M + e * PLANE(O), TILES, I, O, 0);
        place_images(M, y, block * TILES, at, O);
    }
    return failed;
}

/* x [B, H, W, I], g [B, H, W, O] -> of_w [O, I, 3, 3]; parts is room for the groups' sums, [GROUPS, 16, I, O] */
int filters(int threads, const REAL *x, const REAL *g, REAL *parts, REAL *of_w, long B, long H, long W, long I,
            long O) {
    Grid at = grid(B, H, W);
    long blocks = (at.count + TILES - 1) / TILES, size = 16 * I * O;
    int failed = 0;
#pragma omp parallel for num_threads(threads) reduction(| : failed)
    for (long group = 0; group < GROUPS; group++) {
        REAL *V = scratch(16 * (PLANE(I) + PLANE(O))), *G = V + 16 * PLANE(I), *sum = parts + group * size;
        if (!V) {
            failed = 1;
            continue;
        }
        long begin = blocks * group / GROUPS, end = blocks * (group + 1) / GROUPS;
        if (begin == end) memset(sum, 0, size * sizeof *sum);
        for (long block = begin; block < end; block++) {
            transform_images(x, V, block * TILES, at, I);
            take_images(g, G, block * TILES, at, O);
            for (long e = 0; e < 16; e++)
                matrix(V + e * PLANE(I), 1, I, G + e * PLANE(O), sum + e * I * O, I, TILES, O, block > begin);
        }
    }
    for (long group = 1; group < GROUPS; group++)
        for (long k = 0; k < size; k++) parts[k] += parts[group * size + k];
    gather_filters(parts, of_w, I, O);
    return failed;
}
