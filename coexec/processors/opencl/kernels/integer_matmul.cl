/* Products of unsigned bytes by known signed ones: y[m][n] = sum over k of (a[m][k] - za) (w[k][n] -
 * zb[n]), modulo 2^32; with SCALED as floats, times scale_a * scales[n], plus bias[n] with BIAS.
 * Layout: a (rows, depth), natural w (depth, columns), y (rows, columns), contiguous; zeros, scales
 * and bias have an element for each stored column (columns filled up to whole vectors). The zero
 * point of row m is za[m % za_count]. The products are summed as they are:
 * sum (a - za) (w - zb) = sum a w - za * (sum w - depth * zb) - zb * sum a.
 *
 * products_naive: one work-item per element of y.
 * pack_words: w as (blocks of LANES * VECS columns, words of 4 terms, columns of a block), one
 *     work-item per word; what is not there is 0.
 * column_sums: sum w - depth * zb, one work-item per stored column.
 * pad_rows: rows of a in whole words, what is not there is 0; one work-item a row.
 * row_sums: sum a from rows in words, one work-item a row.
 * products: dot products of words; geometry (lanes, tiles of TILE rows, blocks). The last tile
 *     starts where it ends with the rows: some are computed twice. */

#include "byte_dots.cl"

#define LANES 16 /* columns of a vector, or of a work-group */
#ifndef TILE
#define TILE 4 /* rows per work-item */
#endif
#ifndef VECS
#define VECS 1 /* columns of a work-item, in units of LANES: 1 to 4 */
#endif
/* ZERO_A: defined where rows have zero points. ZERO_B: where columns have other ones than 0. */
#ifndef SCALED
#define SCALED 1 /* 0: sums stay integers */
#endif
/* BIAS: defined where floats are added to columns. */

#include "byte_tiles.cl"

#if SCALED
typedef float T;
typedef REALS_ANYWHERE stored;
typedef REALS fetched;
#define ACC float
#define WIDEN(v) (v)
#include "epilogue.cl"
#define SCALE_ARGS , __global const float *scale_a, __global const float *scales
#else
#define FINISH_PARAMETERS
#define SCALE_ARGS
typedef int T;
typedef INTS stored __attribute__((aligned(4)));
#endif
#ifdef BIAS
#define BIAS_ARGS , __global const float *bias
#else
#define BIAS_ARGS
#endif
#ifdef ZERO_A
#define ZERO_A_ARGS , __global const uchar *za, const int za_count
#define FROM_A(m) ((int)za[(m) % za_count])
#else
#define ZERO_A_ARGS
#define FROM_A(m) 0
#endif
#ifdef ZERO_B
#define ZERO_B_ARGS , __global const int *zeros
#define ROW_ARGS , __global const int *of_rows
#define FROM_B(n) zeros[n]
#else
#define ZERO_B_ARGS
#define ROW_ARGS
#define FROM_B(n) 0
#endif

#if !VNNI
__kernel void products_naive(__global const uchar *a, __global const char *w, __global T *y
                             ZERO_A_ARGS ZERO_B_ARGS SCALE_ARGS BIAS_ARGS, const int total,
                             const int columns, const int depth)
{
    const int i = get_global_id(0);
    if (i >= total) return;
    const int n = i % columns, m = i / columns;
    uint sum = 0;
    for (int k = 0; k < depth; ++k)
        sum += ((int)a[m * depth + k] - FROM_A(m)) * ((int)w[k * columns + n] - FROM_B(n));
#if SCALED
    float value = (float)(int)sum * (scale_a[0] * scales[n]);
#ifdef BIAS
    value += bias[n];
#endif
    y[i] = value;
#else
    y[i] = (int)sum;
#endif
}
#endif

__kernel void pack_words(__global const char *w, __global char4 *packed, const int columns,
                         const int depth, const int words)
{
    const int i = get_global_id(0);
    const int lane = i % (LANES * VECS);
    const int word = i / (LANES * VECS) % words;
    const int n = i / (LANES * VECS) / words * LANES * VECS + lane;
    char four[4];
    for (int j = 0; j < 4; ++j) {
        const int k = word * 4 + j;
        four[j] = n < columns && k < depth ? w[k * columns + n] : (char)0;
    }
    packed[i] = (char4)(four[0], four[1], four[2], four[3]);
}

__kernel void column_sums(__global const char *w, __global int *of_columns ZERO_B_ARGS,
                          const int columns, const int depth)
{
    const int n = get_global_id(0);
    int sum = -depth * FROM_B(n);
    for (int k = 0; k < depth && n < columns; ++k) sum += w[k * columns + n];
    of_columns[n] = sum;
}

__kernel void pad_rows(__global const uchar *a, __global uchar *padded, const int depth,
                       const int words)
{
    const int m = get_global_id(0);
    for (int k = 0; k < words * 4; ++k)
        padded[m * words * 4 + k] = k < depth ? a[m * depth + k] : (uchar)0;
}

__kernel void row_sums(__global const uchar4 *a, __global int *of_rows, const int words)
{
    const int m = get_global_id(0);
    int sum = 0;
    for (int word = 0; word < words; ++word) {
        const uchar4 four = a[m * words + word];
        sum += four.s0 + four.s1 + four.s2 + four.s3;
    }
    of_rows[m] = sum;
}

typedef INTS INTS_ANYWHERE __attribute__((aligned(4)));
#define AT(from, v) (*(__global const INTS_ANYWHERE *)(from + n + v * LANES))
#define REAL_AT(from, v) (*(__global const REALS_ANYWHERE *)(from + n + v * LANES))

#define DECLARE_ONE(p, v) INTS sum_##p##_##v = 0;
#define DECLARE(p) EACH(DECLARE_ONE, p)
#define LOAD_WEIGHTS(p, v) const INTS w_##v = *(__global const INTS *)(w + v * LANES);
#define ADD_ONE(p, v) sum_##p##_##v = DOT(sum_##p##_##v, four_##p, w_##v);
#define ADD(p)                              \
    const int four_##p = from[p * words];   \
    EACH(ADD_ONE, p)

#ifdef ZERO_A
#define LESS_A(p, v) -FROM_A(m + p) * AT(of_columns, v)
#else
#define LESS_A(p, v)
#endif
#ifdef ZERO_B
#define LESS_B(p, v) -of_rows[m + p] * AT(zeros, v)
#else
#define LESS_B(p, v)
#endif
#define WHOLE_SUM(p, v) (sum_##p##_##v LESS_A(p, v) LESS_B(p, v))
#if SCALED
#define LOAD_SCALE(p, v) const REALS scale_##v = scale_a[0] * REAL_AT(scales, v);
#ifdef BIAS
#define PLUS_BIAS(v) +REAL_AT(bias, v)
#else
#define PLUS_BIAS(v)
#endif
#define RESULT(p, v) (AS(float, WHOLE_SUM(p, v)) * scale_##v PLUS_BIAS(v))
#define FINISHED(value, at) FINISH(value, at)
#define FINISHED_ONE(value, at) FINISH_ONE(value, at)
#else
#define LOAD_SCALE(p, v)
#define RESULT(p, v) WHOLE_SUM(p, v)
#define FINISHED(value, at) (value)
#define FINISHED_ONE(value, at) (value)
#endif
#define STORE_ONE(p, v)                                                                       \
    {                                                                                         \
        const int at = (m + p) * columns + n + v * LANES;                                     \
        *(__global stored *)(y + at) = FINISHED(RESULT(p, v), at);                            \
    }
#define STORE(p) EACH(STORE_ONE, p)
#if W == 1
#define STORE_LANES(p, v)                                                                     \
    if (n + v * LANES < columns) STORE_ONE(p, v)
#else
#define STORE_LANES(p, v)                                                                     \
    if (n + (v + 1) * LANES <= columns) STORE_ONE(p, v)                                       \
    else {                                                                                    \
        T lanes[LANES];                                                                       \
        *(stored *)lanes = RESULT(p, v);                                                      \
        for (int i = 0; n + v * LANES + i < columns; ++i) {                                   \
            const int at = (m + p) * columns + n + v * LANES + i;                             \
            y[at] = FINISHED_ONE(lanes[i], at);                                               \
        }                                                                                     \
    }
#endif
#define STORE_PART(p) EACH(STORE_LANES, p)

__kernel HINT void products(__global const int *a, __global const int *packed,
                            __global const int *of_columns, __global T *y
                            ZERO_A_ARGS ZERO_B_ARGS ROW_ARGS SCALE_ARGS BIAS_ARGS,
                            const int rows, const int columns, const int words FINISH_PARAMETERS)
{
#if VNNI
    const int lane = 0;
#else
    const int lane = get_local_id(0);
#endif
    const int block = get_global_id(2);
    const int m = min((int)get_global_id(1) * TILE, rows - TILE);
    const int n = block * LANES * VECS + lane;
    __global const int *from = a + m * words;
    __global const int *w = packed + block * words * LANES * VECS + lane;
    POSITIONS(DECLARE)
    for (int word = 0; word < words; ++word, ++from, w += LANES * VECS) {
        EACH(LOAD_WEIGHTS, 0)
        POSITIONS(ADD)
    }
    EACH(LOAD_SCALE, 0)
    if ((block + 1) * LANES * VECS <= columns) {
        POSITIONS(STORE)
    } else {
        POSITIONS(STORE_PART)
    }
}
