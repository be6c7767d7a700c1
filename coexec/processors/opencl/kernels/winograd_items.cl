/* 3 x 3 convolutions with stride 1 on GPUs by minimal filtering F(4 x 4, 3 x 3).
 * Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308;
 * points and transforms as in winograd_tiles.cl.
 * Layout: x (images, channels, i1, i2), y (images, rows, o1, o2), weight (m, c, t) at m * w_row +
 * c * w_channel + t, or + 8 - t where `reversed` (the gradient of the input); a tile is 4 x 4
 * positions of y, tiles are numbered image by image, row by row; `pitch` of them fill vectors.
 *
 * filter_items: u[point][m][c] of a weight's 9 taps. data_items: v[point][c][tile] of a patch of
 * 6 x 6. Between these and result_items stand 36 products, which conv_tiled.cl does as groups:
 * m[point][m][tile]. result_items: the 4 x 4 results of 36 sums, finished (epilogue.cl).
 * Of 144 multiplications 36 are left; for that 2.25 numbers for each of x and of y go to memory and
 * come back, which pays with many channels.
 * Geometry: an item per weight, per tile of a channel of x and of y; neighbours have neighbouring
 * channels (filter_items) or tiles: what they read and write of u, v and m are runs. Registers: 36
 * of a patch, 6 of a row. */

#ifndef STAGE
#define STAGE 0 /* 0: filter_items; 1: data_items; 2: result_items */
#endif
#define V 2 /* of alone.cl, whose vectors are not used */

#include "alone.cl"
#include "epilogue.cl"

#define ROOT 1.41421356f
#define HALF_ROOT 0.70710678f
#define INSIDE(z, n) ((uint)(z) < (uint)(n))

#if STAGE == 0

/* to(0..5) = transform of three weights. */
#define TRANSFORM(to, g0, g1, g2)                                                                  \
    {                                                                                              \
        const float even_a = (1.0f / 6) * g0 + (1.0f / 3) * g2, odd_a = (ROOT / 6) * g1;           \
        const float even_b = (-2.0f / 3) * g0 - (1.0f / 3) * g2;                                   \
        const float odd_b = (-2 * HALF_ROOT / 3) * g1;                                             \
        to(0) = g0;                                                                                \
        to(1) = even_a + odd_a;                                                                    \
        to(2) = even_a - odd_a;                                                                    \
        to(3) = even_b + odd_b;                                                                    \
        to(4) = even_b - odd_b;                                                                    \
        to(5) = g2;                                                                                \
    }
#define WEIGHT(t) ((float)w[sign * (t)])

__kernel void filter_items(__global const T *w, __global float *u, const int total,
                           const int channels, const int w_row, const int w_channel,
                           const int reversed)
{
    const int i = get_global_id(0), sign = reversed ? -1 : 1;
    if (i >= total) return;
    w += i / channels * w_row + i % channels * w_channel + (reversed ? 8 : 0);
    float rows[6][3];
#pragma unroll
    for (int t = 0; t < 3; ++t) {
        const float a = WEIGHT(t), b = WEIGHT(3 + t), c = WEIGHT(6 + t);
#define TO_ROWS(p) rows[p][t]
        TRANSFORM(TO_ROWS, a, b, c)
    }
#pragma unroll
    for (int p = 0; p < 6; ++p) {
        const float a = rows[p][0], b = rows[p][1], c = rows[p][2];
#define TO_POINTS(q) u[(p * 6 + (q)) * total + i]
        TRANSFORM(TO_POINTS, a, b, c)
    }
}

#elif STAGE == 1

/* to(0..5) = transform of six points of data. */
#define TRANSFORM(to, from)                                                                        \
    {                                                                                              \
        const float d0 = from(0), d1 = from(1), d2 = from(2), d3 = from(3), d4 = from(4);          \
        const float d5 = from(5);                                                                  \
        const float even_a = d4 - 0.5f * d2, odd_a = ROOT * d3 - HALF_ROOT * d1;                   \
        const float even_b = d4 - 2.0f * d2, odd_b = HALF_ROOT * d3 - ROOT * d1;                   \
        to(0) = d0 - 2.5f * d2 + d4;                                                               \
        to(1) = even_a + odd_a;                                                                    \
        to(2) = even_a - odd_a;                                                                    \
        to(3) = even_b + odd_b;                                                                    \
        to(4) = even_b - odd_b;                                                                    \
        to(5) = d1 - 2.5f * d3 + d5;                                                               \
    }

__kernel void data_items(__global const T *x, __global float *v, const int total, const int tiles,
                         const int pitch, const int channels, const int i1, const int i2,
                         const int across, const int down, const int p1, const int p2)
{
    const int i = get_global_id(0), tile = i % pitch, channel = i / pitch;
    if (i >= total) return;
    const int column = tile % across * 4 - p2, row = tile / across % down * 4 - p1;
    const int plane = tile / (across * down) * channels + channel, counts = tile < tiles;
    float rows[6][6];
#pragma unroll
    for (int b = 0; b < 6; ++b) {
        float read[6];
#pragma unroll
        for (int a = 0; a < 6; ++a)
            read[a] = counts && INSIDE(row + a, i1) && INSIDE(column + b, i2)
                          ? (float)x[(plane * i1 + row + a) * i2 + column + b]
                          : 0.0f;
#define READ(a) read[a]
#define TO_ROWS(p) rows[p][b]
        TRANSFORM(TO_ROWS, READ)
    }
#pragma unroll
    for (int p = 0; p < 6; ++p) {
#define FROM_ROWS(b) rows[p][b]
#define TO_POINTS(q) v[(p * 6 + (q)) * total + i]
        TRANSFORM(TO_POINTS, FROM_ROWS)
    }
}

#else

/* to(0..3) = results of six sums. */
#define TRANSFORM(to, from)                                                                        \
    {                                                                                              \
        const float m0 = from(0), m1 = from(1), m2 = from(2), m3 = from(3), m4 = from(4);          \
        const float m5 = from(5);                                                                  \
        const float sum_a = m1 + m2, sum_b = m3 + m4;                                              \
        const float odd_a = ROOT * (m1 - m2), odd_b = HALF_ROOT * (m3 - m4);                       \
        to(0) = m0 + sum_a + sum_b;                                                                \
        to(1) = odd_a + odd_b;                                                                     \
        to(2) = 2.0f * sum_a + 0.5f * sum_b;                                                       \
        to(3) = 2.0f * odd_a + 0.5f * odd_b + m5;                                                  \
    }

__kernel void result_items(__global const float *m, __global const T *bias, __global T *y,
                           const int has_bias, const int total, const int tiles, const int pitch,
                           const int channels, const int o1, const int o2, const int across,
                           const int down FINISH_PARAMETERS)
{
    const int i = get_global_id(0), tile = i % pitch, channel = i / pitch;
    if (i >= total || tile >= tiles) return;
    const int column = tile % across * 4, row = tile / across % down * 4;
    const int plane = tile / (across * down) * channels + channel;
    const float start = has_bias ? (float)bias[channel] : 0.0f;
    float rows[4][6];
#pragma unroll
    for (int q = 0; q < 6; ++q) {
#define FROM_POINTS(p) m[((p) * 6 + q) * total + i]
#define TO_ROWS(a) rows[a][q]
        TRANSFORM(TO_ROWS, FROM_POINTS)
    }
#pragma unroll
    for (int a = 0; a < 4; ++a) {
        float results[4];
#define FROM_ROWS(q) rows[a][q]
#define TO_RESULTS(b) results[b]
        TRANSFORM(TO_RESULTS, FROM_ROWS)
        const int to = (plane * o1 + row + a) * o2 + column;
#pragma unroll
        for (int b = 0; b < 4; ++b)
            if (row + a < o1 && column + b < o2)
                y[to + b] = (T)FINISH_ONE(results[b] + start, to + b);
    }
}

#endif
