/* 3 x 3 convolutions with stride 1 by minimal filtering F(4 x 4, 3 x 3): see winograd_tiles.cl.
 * Layout: x (images, channels, i1, i2), y (images, rows, o1, o2);
 *     y[m, o] = bias[m] + sum over channels and taps of w[m, c, t] * x[c, o - p + t].
 * Weight (m, c, t) lies at m * w_row + c * w_channel + t, or + 8 - t where `reversed` (the gradient
 * of the input).
 *
 * winograd_filter writes transformed weights: u[panel][point][channel][NR], panels of NR rows.
 * winograd: a tile is 4 x 4 positions of y; tiles are numbered image by image, row by row. A
 * work-item owns a slot of `slots`. A task is `block` tiles and `row_block` rows, whole panels (all
 * rows unless tiles are few): it transforms the tiles' patches of x, all channels, to
 * [point][channel][pitch] there, and then for each `group` of panels multiplies, point by point (so
 * that patches of a point stay in cache for the group), MR tiles x NR rows in registers, `depth`
 * channels at a time, to [panel][point][tile][NR] in the slot; transforms those back, adds the bias,
 * finishes values (epilogue.cl) and writes. Neither transform goes to memory.
 * Geometry: winograd one work-item per slot, groups of one, tasks divided evenly, in order;
 * winograd_filter (panels, SPANs of channels). */

#ifndef NARROW_FILTER
#define NARROW_FILTER 0 /* 1: transformed weights are of type T: fewer bytes, rounded once more */
#endif

#include "winograd_tiles.cl"
#if NARROW_FILTER
#define RIGHT T
#define FROM_RIGHT(v) WIDEN(v)
#define TO_RIGHT8(v) CONVERT(JOIN(T, 8))(v)
#else
#define TO_RIGHT8(v) (v)
#endif
#include "winograd_products.cl"
#include "epilogue.cl"

#define SPAN 8 /* channels of a work-item of winograd_filter */

/* to(0..5) = transform of three weights. */
#define FILTER_TRANSFORM(to, g0, g1, g2)                                                           \
    {                                                                                              \
        const float8 even_a = (1.0f / 6) * g0 + (1.0f / 3) * g2, odd_a = (ROOT / 6) * g1;          \
        const float8 even_b = (-2.0f / 3) * g0 - (1.0f / 3) * g2;                                  \
        const float8 odd_b = (-2 * HALF_ROOT / 3) * g1;                                            \
        to(0, g0);                                                                                 \
        to(1, even_a + odd_a);                                                                     \
        to(2, even_a - odd_a);                                                                     \
        to(3, even_b + odd_b);                                                                     \
        to(4, even_b - odd_b);                                                                     \
        to(5, g2);                                                                                 \
    }

#define WEIGHT(i, t) w##i[base + sign * t]
#define TAP(t)                                                                                     \
    const float8 g##t = WIDEN8((JOIN(T, 8))(WEIGHT(0, t), WEIGHT(1, t), WEIGHT(2, t), WEIGHT(3, t), \
                                            WEIGHT(4, t), WEIGHT(5, t), WEIGHT(6, t), WEIGHT(7, t)));
#define FILTER(i) __global const T *w##i = w + min(row + i, rows - 1) * w_row;

__kernel __attribute__((vec_type_hint(float8))) void
winograd_filter(__global const T *w, __global RIGHT *u, const int first, const int rows,
                const int channels, const int w_row, const int w_channel, const int reversed)
{
    const int panel = get_global_id(0), step = STEP(channels * NR);
    const int start = get_global_id(1) * SPAN, end = min(start + SPAN, channels);
    for (int eight = 0; eight < NR; eight += 8) {
        __global RIGHT *to = u + panel * POINTS * step + start * NR + eight;
        const int row = first + panel * NR + eight;
        TILES_8(FILTER)
        for (int c = start; c < end; ++c, to += NR) {
            const int base = c * w_channel + (reversed ? 8 : 0), sign = reversed ? -1 : 1;
            TILES_8(TAP)
            TAP(8)
            float8 rows_of[PATCH][3];
#define TO_ROWS_0(i, value) rows_of[i][0] = value
#define TO_ROWS_1(i, value) rows_of[i][1] = value
#define TO_ROWS_2(i, value) rows_of[i][2] = value
            FILTER_TRANSFORM(TO_ROWS_0, g0, g3, g6)
            FILTER_TRANSFORM(TO_ROWS_1, g1, g4, g7)
            FILTER_TRANSFORM(TO_ROWS_2, g2, g5, g8)
#pragma unroll 1
            for (int i = 0; i < PATCH; ++i) {
                const float8 f0 = rows_of[i][0], f1 = rows_of[i][1], f2 = rows_of[i][2];
#define TO_FILTER(j, value)                                                                        \
    *(__global JOIN(RIGHT, 8) *)(to + (i * PATCH + j) * step) = TO_RIGHT8(value)
                FILTER_TRANSFORM(TO_FILTER, f0, f1, f2)
            }
        }
    }
}

/* to(0..3) = four results from six products. */
#define RESULT_TRANSFORM(to, m0, m1, m2, m3, m4, m5)                                               \
    {                                                                                              \
        const vec sum_a = m1 + m2, sum_b = m3 + m4;                                                \
        const vec odd_a = ROOT * (m1 - m2), odd_b = HALF_ROOT * (m3 - m4);                         \
        to(0, m0 + sum_a + sum_b);                                                                 \
        to(1, odd_a + odd_b);                                                                      \
        to(2, 2.0f * sum_a + 0.5f * sum_b);                                                        \
        to(3, 2.0f * odd_a + 0.5f * odd_b + m5);                                                   \
    }

/* Write a row of up to four positions of eight rows of y, `plane` apart. */
inline void write_row(__global T *y, const int plane, const int rows, const int columns,
                      const float8 y0, const float8 y1, const float8 y2, const float8 y3)
{
    const float8 b0 = (float8)(y0.s0, y1.s0, y0.s1, y1.s1, y0.s4, y1.s4, y0.s5, y1.s5);
    const float8 b1 = (float8)(y0.s2, y1.s2, y0.s3, y1.s3, y0.s6, y1.s6, y0.s7, y1.s7);
    const float8 b2 = (float8)(y2.s0, y3.s0, y2.s1, y3.s1, y2.s4, y3.s4, y2.s5, y3.s5);
    const float8 b3 = (float8)(y2.s2, y3.s2, y2.s3, y3.s3, y2.s6, y3.s6, y2.s7, y3.s7);
    const float8 c0 = (float8)(b0.s01, b2.s01, b0.s45, b2.s45);
    const float8 c1 = (float8)(b0.s23, b2.s23, b0.s67, b2.s67);
    const float8 c2 = (float8)(b1.s01, b3.s01, b1.s45, b3.s45);
    const float8 c3 = (float8)(b1.s23, b3.s23, b1.s67, b3.s67);
    if (rows >= 8 && columns >= 4) {
        *(__global stored4 *)(y) = NARROW4(c0.lo);
        *(__global stored4 *)(y + plane) = NARROW4(c1.lo);
        *(__global stored4 *)(y + 2 * plane) = NARROW4(c2.lo);
        *(__global stored4 *)(y + 3 * plane) = NARROW4(c3.lo);
        *(__global stored4 *)(y + 4 * plane) = NARROW4(c0.hi);
        *(__global stored4 *)(y + 5 * plane) = NARROW4(c1.hi);
        *(__global stored4 *)(y + 6 * plane) = NARROW4(c2.hi);
        *(__global stored4 *)(y + 7 * plane) = NARROW4(c3.hi);
        return;
    }
    union { JOIN(T, 4) row[8]; T each[32]; } all;
    all.row[0] = NARROW4(c0.lo), all.row[1] = NARROW4(c1.lo);
    all.row[2] = NARROW4(c2.lo), all.row[3] = NARROW4(c3.lo);
    all.row[4] = NARROW4(c0.hi), all.row[5] = NARROW4(c1.hi);
    all.row[6] = NARROW4(c2.hi), all.row[7] = NARROW4(c3.hi);
#pragma unroll 1
    for (int i = 0; i < rows && i < 8; ++i)
#pragma unroll 1
        for (int j = 0; j < columns && j < 4; ++j) y[i * plane + j] = all.each[i * 4 + j];
}

/* Transform the products of one tile and V rows back (`step` elements between points) and write
 * the `height` x `width` positions that exist. */
inline void write_tile(__global const float *m, const int step, const vec bias, __global T *y,
                       const int plane, const int pitch, const int rows, const int height,
                       const int width FINISH_PARAMETERS)
{
    vec rows_of[4][PATCH];
#pragma unroll 1
    for (int j = 0; j < PATCH; ++j, m += step) {
#define PRODUCT(i) const vec m##i = *(__global const vec *)(m + i * PATCH * step);
        TILES_6(PRODUCT)
#define TO_RESULT_ROWS(i, value) rows_of[i][j] = value
        RESULT_TRANSFORM(TO_RESULT_ROWS, m0, m1, m2, m3, m4, m5)
    }
#pragma unroll 1
    for (int i = 0; i < height; ++i, y += pitch) {
        vec y0, y1, y2, y3;
#define FROM_ROWS(j) const vec r##j = rows_of[i][j];
        TILES_6(FROM_ROWS)
#define TO_RESULT(j, value) y##j = FINISH(value + bias, 0)
        RESULT_TRANSFORM(TO_RESULT, r0, r1, r2, r3, r4, r5)
#if V == 8
        write_row(y, plane, rows, width, y0, y1, y2, y3);
#else
        write_row(y, plane, rows, width, y0.lo, y1.lo, y2.lo, y3.lo);
        write_row(y + 8 * plane, plane, rows - 8, width, y0.hi, y1.hi, y2.hi, y3.hi);
#endif
    }
}

/* Transforms of `count` tiles, all channels: [point][channel][pitch]. */
inline void transform_tiles(__global const T *x, __global const int *at,
                            __global const int8 *keep, __global int *staged,
                            __global T *stage, __global float *patches, const int count,
                            const int pitch, const int channels, const int plane, const int x_size)
{
    const int step = STEP(channels * pitch);
    int low = at[0], high = at[0];
#pragma unroll 1
    for (int i = 1; i < pitch * PATCH; ++i) {
        low = min(low, at[i]);
        high = max(high, at[i]);
    }
#pragma unroll 1
    for (int i = 0; i < 8 * PATCH; ++i) staged[i] = i * 8;
    for (int c = 0; c < channels; ++c) {
        const int from = c * plane, inside = low + from >= 0 && high + from + 8 <= x_size;
        for (int t = 0; t < count; t += 8) {
            __global const T *source = x + from;
            __global const int *places = at + t * PATCH;
            if (!inside) {
                copy_patches(x, from, 0, x_size, places, keep + t * PATCH, PATCH, stage);
                source = stage;
                places = staged;
            }
            transform_patches(source, 0, places, keep + t * PATCH, PATCH,
                              patches + c * pitch + t, step);
        }
    }
}

__kernel ALONE void winograd(__global const T *x, __global const RIGHT *u,
                             __global const T *bias, __global T *y, __global float *slots,
                             const int has_bias, const int first, const int last, const int rows,
                             const int row_block, const int channels, const int tiles,
                             const int block, const int tasks, const int depth,
                             const int group, const int slot_size, const int x_size, const int i1, const int i2,
                             const int o1, const int o2, const int p1,
                             const int p2 FINISH_PARAMETERS)
{
    const int across = (o2 + 3) / 4, down = (o1 + 3) / 4, plane = i1 * i2;
    const int pitch = (block + 7) / 8 * 8, most = (block + MR - 1) / MR * MR;
    const int slot = get_global_id(0), count_of = get_global_size(0);
    __global float *m = slots + slot * slot_size;
    const int m_point = STEP(most * NR), m_panel = POINTS * m_point;
    const int u_point = STEP(channels * NR), u_panel = POINTS * u_point;
    __global int8 *keep = (__global int8 *)(m + group * m_panel);
    __global int *at = (__global int *)(keep + pitch * PATCH);
    __global int *staged = at + pitch * PATCH;
    __global T *stage = (__global T *)(staged + 8 * PATCH);
    __global float *patches = (__global float *)(staged + 8 * PATCH) + 8 * PATCH * 8;
    const int end = (int)((long)tasks * (slot + 1) / count_of);
    const int row_blocks = (last - first + row_block - 1) / row_block;
    for (int task = (int)((long)tasks * slot / count_of); task < end; ++task) {
        const int start = task / row_blocks * block, count = min(block, tiles - start);
        const int from = first + task % row_blocks * row_block, to = min(from + row_block, last);
#pragma unroll 1
        for (int t = 0; t < pitch; ++t) {
            const int tile = start + t, there = t < count;
            const int image = there ? tile / (across * down) * channels * plane : 0;
            find_patch(at + t * PATCH, keep + t * PATCH, there, image,
                       tile / across % down * 4 - p1, tile % across * 4 - p2, i1, i2);
        }
        transform_tiles(x, at, keep, staged, stage, patches, count, pitch, channels, plane,
                        x_size);
        for (int begin = from; begin < to; begin += group * NR) {
            const int some = min(group, (to - begin + NR - 1) / NR);
            __global const RIGHT *panels = u + (begin - first) / NR * u_panel;
            for (int point = 0; point < POINTS; ++point)
                for (int p = 0; p < some; ++p) {
                    __global const RIGHT *here = panels + p * u_panel + point * u_point;
                    multiply(patches + point * STEP(channels * pitch), here,
                             m + p * m_panel + point * m_point, 1, count, pitch, most, channels,
                             depth,
                             p + 1 < some          ? here + u_panel
                             : point + 1 < POINTS ? panels + (point + 1) * u_point
                                                  : panels + some * u_panel);
                }
            for (int row = begin; row < min(begin + group * NR, to); row += NR)
                for (int v = row; v < min(row + NR, to); v += V) {
                    vec lifts = 0;
                    if (has_bias) {
                        union { vec all; float each[V]; } lift;
#pragma unroll 1
                        for (int i = 0; i < V; ++i)
                            lift.each[i] = (float)bias[min(v + i, rows - 1)];
                        lifts = lift.all;
                    }
                    __global const float *products = m + (row - begin) / NR * m_panel + v - row;
#pragma unroll 1
                    for (int t = 0; t < count; ++t) {
                        const int tile = start + t, image = tile / (across * down);
                        const int o = tile / across % down * 4, q = tile % across * 4;
                        write_tile(products + t * NR, m_point, lifts,
                                   y + ((image * rows + v) * o1 + o) * o2 + q, o1 * o2, o2,
                                   last - v, min(4, o1 - o), min(4, o2 - q) FINISH_ARGUMENTS);
                    }
                }
        }
    }
}
