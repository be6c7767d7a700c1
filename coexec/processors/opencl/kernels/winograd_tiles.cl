/* Transforms of data for minimal filtering with tiles of 6 x 6 points, included by winograd.cl and
 * winograd_weight.cl.
 * Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308.
 *
 * The interpolation points are 0, +-sqrt(2), +-1/sqrt(2) and infinity: their powers stay near one,
 * which halves the rounding error of the common 0, +-1, +-2. All divisors are in the transform of
 * the filter. Eight patches (tiles of one channel) are transformed at a time; their transforms lie
 * side by side. Tensors are of type T, transforms are made in float. No kernel stands here. */

#include "alone.cl"

typedef JOIN(ACC, V) vec;
typedef float8 float8u __attribute__((aligned(4)));
typedef JOIN(T, 8) stored8 __attribute__((aligned(sizeof(T)))); /* anywhere in a tensor */
typedef JOIN(T, 4) stored4 __attribute__((aligned(sizeof(T))));
#if SAME
#define WIDEN4(v) (v)
#define WIDEN8(v) (v)
#define NARROW4(v) (v)
#else
#define WIDEN4(v) convert_float4(v)
#define WIDEN8(v) convert_float8(v)
#define NARROW4(v) CONVERT(JOIN(T, 4))(v)
#endif

#define POINTS 36
#define PATCH 6 /* rows and columns of a patch of x */
/* Elements between points: a line more than one point has, so that points share no cache sets. */
#define STEP(elements) ((elements) + 16)
#define ROOT 1.41421356f
#define HALF_ROOT 0.70710678f

/* to(0..5) = transform of six points of data. */
#define DATA_TRANSFORM(TYPE, to, d0, d1, d2, d3, d4, d5)                                           \
    {                                                                                              \
        const TYPE even_a = d4 - 0.5f * d2, odd_a = ROOT * d3 - HALF_ROOT * d1;                    \
        const TYPE even_b = d4 - 2.0f * d2, odd_b = HALF_ROOT * d3 - ROOT * d1;                    \
        to(0, d0 - 2.5f * d2 + d4);                                                                \
        to(1, even_a + odd_a);                                                                     \
        to(2, even_a - odd_a);                                                                     \
        to(3, even_b + odd_b);                                                                     \
        to(4, even_b - odd_b);                                                                     \
        to(5, d1 - 2.5f * d3 + d5);                                                                \
    }

/* Rows of four elements, transposed: rows i and i + 4 are the halves of a`i`, c0 to c3 columns of
 * eight. */
#define COLUMNS(a0, a1, a2, a3, c0, c1, c2, c3)                                                    \
    const float8 b0 = (float8)(a0.s0, a1.s0, a0.s1, a1.s1, a0.s4, a1.s4, a0.s5, a1.s5);            \
    const float8 b1 = (float8)(a0.s2, a1.s2, a0.s3, a1.s3, a0.s6, a1.s6, a0.s7, a1.s7);            \
    const float8 b2 = (float8)(a2.s0, a3.s0, a2.s1, a3.s1, a2.s4, a3.s4, a2.s5, a3.s5);            \
    const float8 b3 = (float8)(a2.s2, a3.s2, a2.s3, a3.s3, a2.s6, a3.s6, a2.s7, a3.s7);            \
    const float8 c0 = (float8)(b0.s01, b2.s01, b0.s45, b2.s45);                                    \
    const float8 c1 = (float8)(b0.s23, b2.s23, b0.s67, b2.s67);                                    \
    const float8 c2 = (float8)(b1.s01, b3.s01, b1.s45, b3.s45);                                    \
    const float8 c3 = (float8)(b1.s23, b3.s23, b1.s67, b3.s67);

/* First four lanes of eight vectors, transposed. */
#define COLUMNS_LOW(r, c0, c1, c2, c3)                                                             \
    const float8 a0 = (float8)(r[0].lo, r[4].lo), a1 = (float8)(r[1].lo, r[5].lo);                 \
    const float8 a2 = (float8)(r[2].lo, r[6].lo), a3 = (float8)(r[3].lo, r[7].lo);                 \
    COLUMNS(a0, a1, a2, a3, c0, c1, c2, c3)

/* Lanes 4 and 5 of eight vectors. */
#define COLUMNS_HIGH(r, c4, c5)                                                                    \
    const float8 h0 = (float8)(r[0].hi, r[4].hi), h1 = (float8)(r[1].hi, r[5].hi);                 \
    const float8 h2 = (float8)(r[2].hi, r[6].hi), h3 = (float8)(r[3].hi, r[7].hi);                 \
    const float8 g0 = (float8)(h0.s0, h1.s0, h0.s1, h1.s1, h0.s4, h1.s4, h0.s5, h1.s5);            \
    const float8 g1 = (float8)(h2.s0, h3.s0, h2.s1, h3.s1, h2.s4, h3.s4, h2.s5, h3.s5);            \
    const float8 c4 = (float8)(g0.s01, g1.s01, g0.s45, g1.s45);                                    \
    const float8 c5 = (float8)(g0.s23, g1.s23, g0.s67, g1.s67);

#define PATCH_ROW(i)                                                                               \
    as_float8(as_int8(WIDEN8(*(__global const stored8 *)(x + p * plane + at[p * next + i]))) &      \
              keep[p * next + i])

/* Transform 8 patches: row i of patch p starts at x[p * plane + at[p * next + i]], and its first
 * six elements that keep[p * next + i] has ones for count, the others are zeros. Point q of all
 * goes to to[q * step], eight elements. */
inline void transform_patches(__global const T *x, const int plane, __global const int *at,
                              __global const int8 *keep, const int next, __global float *to,
                              const int step)
{
    float8 rows[PATCH][8];
#pragma unroll 1
    for (int p = 0; p < 8; ++p) {
        const float8 d0 = PATCH_ROW(0), d1 = PATCH_ROW(1), d2 = PATCH_ROW(2);
        const float8 d3 = PATCH_ROW(3), d4 = PATCH_ROW(4), d5 = PATCH_ROW(5);
#define TO_ROWS(i, value) rows[i][p] = value
        DATA_TRANSFORM(float8, TO_ROWS, d0, d1, d2, d3, d4, d5)
    }
#pragma unroll 1
    for (int i = 0; i < PATCH; ++i, to += PATCH * step) {
        COLUMNS_LOW(rows[i], c0, c1, c2, c3)
        COLUMNS_HIGH(rows[i], c4, c5)
#define TO_POINTS(j, value) *(__global float8u *)(to + (j) * step) = value
        DATA_TRANSFORM(float8, TO_POINTS, c0, c1, c2, c3, c4, c5)
    }
}

/* Where the rows of the patch start whose first element is x[image][.][row][column], relative to
 * its channel, and which of their elements are inside the plane (i1, i2). A patch that does not
 * count is all zeros. */
inline void find_patch(__global int *at, __global int8 *keep, const int counts, const int image_at,
                       const int row, const int column, const int i1, const int i2)
{
    const int8 columns = column + (int8)(0, 1, 2, 3, 4, 5, 6, 7);
    const int8 inside = (columns >= 0) & (columns < i2) & (int8)(counts ? -1 : 0);
    for (int i = 0; i < PATCH; ++i) {
        const int there = counts && row + i >= 0 && row + i < i1;
        at[i] = there ? image_at + (row + i) * i2 + column : image_at;
        keep[i] = there ? inside : (int8)0;
    }
}

/* Copies 8 patches whose loads would leave x (`size` elements), element by element, to `patches`;
 * patch p lies from + p * plane further in x than its places say. */
inline void copy_patches(__global const T *x, const int from, const int plane, const int size,
                         __global const int *at, __global const int8 *keep, const int next,
                         __global T *patches)
{
#pragma unroll 1
    for (int i = 0; i < 8 * PATCH; ++i) {
        const int row = i / PATCH * next + i % PATCH, start = from + i / PATCH * plane + at[row];
        __global const int *kept = (__global const int *)(keep + row);
#pragma unroll 1
        for (int j = 0; j < 8; ++j) {
            const int place = start + j;
            patches[i * 8 + j] = kept[j] && place >= 0 && place < size ? x[place] : (T)0;
        }
    }
}
