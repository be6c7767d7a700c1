/* The gradient of a convolution's weights on GPUs.
 *
 * w[m, column] = sum over terms of y[m, term] * x[term, column]: m is a channel of y, a column a
 * channel of x and a tap, a term a position of y in any image; x is zero outside.
 * Layout: x (images, groups * channels, i0, i1, i2), y (images, groups * rows, o0, o1, o2),
 * w (groups, rows, channels, taps); position o meets x at o * s - p + t * d.
 *
 * Geometry: groups of WX x WY items (conv_tile.cl); numbers of groups: tiles of columns, tiles of
 * rows, parts of the sum times groups of channels. There are few weights and many positions, so the
 * sum is cut into parts of `span` terms, added up by conv_sum.cl (PARTS): floats have no atomics,
 * and results do not depend on who is first.
 * Neighbouring items bring neighbouring positions of y and of x: TK of them follow each other in
 * memory where a row is long enough. An item keeps to one term of each step: its position moves on
 * by TK, digit by digit (h0, h1, h2), without a division. What a column means is in a table.
 * From memory a tile of 32 x 64 reads 96 * TK elements for 4096 * TK flop, 10.7 flop per byte; the
 * columns of a channel's taps read the same lines.
 * Local memory: TK * (TM + TN + 8) sums and 16 bytes a column, 15 KiB with 32 x 64 and TK 32. */

#ifndef PARTS
#define PARTS 0 /* 1: w is parts of sums */
#endif
#ifndef FLAT
#define FLAT 0 /* 1: one tap, x lies where y does: nothing is outside */
#endif

#include "conv_tile.cl"

#define TERM_OF_RIGHT (TN + 4)
#if PARTS
#define R ACC
#else
#define R T
#endif
#define INSIDE(z, n) ((uint)(z) < (uint)(n))

/* Each store has all of its condition (see conv_tiled.cl). */
#define LEAVE_ONE(i, lane, j)                                                                      \
    if (row + i < rows && column + j < columns)                                                    \
        w[(row + i) * columns + column + j] = (R)c##i.lane;
#define LEAVE(i)                                                                                   \
    LEAVE_ONE(i, s0, 0)                                                                            \
    LEAVE_ONE(i, s1, 1)                                                                            \
    LEAVE_ONE(i, s2, 2)                                                                            \
    LEAVE_ONE(i, s3, 3)

__kernel GROUP_OF_ITEMS void conv_tiled_weight(
    __global const T *x, __global const T *y, __global R *w, const int rows, const int channels,
    const int images, const int groups, const int span, const int part_size, const int i0,
    const int i1, const int i2, const int o0, const int o1, const int o2, const int k0,
    const int k1, const int k2, const int s0, const int s1, const int s2, const int p0,
    const int p1, const int p2, const int d0, const int d1, const int d2)
{
    LOCAL_LEFT;
    __local vec right[TK * TERM_OF_RIGHT / 4];
    __local int4 reach[TN];
    const int lx = get_local_id(0), ly = get_local_id(1), id = ly * WX + lx;
    const int group = get_group_id(2) % groups, part = get_group_id(2) / groups;
    const int first_row = get_group_id(1) * TM, first_column = get_group_id(0) * TN;
    const int x_plane = i0 * i1 * i2, plane = o0 * o1 * o2, taps = k0 * k1 * k2;
    const int columns = channels * taps;
    for (int n = id; n < TN; n += ITEMS) {
        const int at = min(first_column + n, columns - 1), t = at % taps;
        const int y0 = t / (k1 * k2) * d0, y1 = t / k2 % k1 * d1, y2 = t % k2 * d2;
        reach[n] = (int4)(at / taps * x_plane + (y0 * i1 + y1) * i2 + y2, y0, y1, y2);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    ROWS(DECLARE)
    const int begin = part * span, end = min(begin + span, images * plane);
    const int lk = id % TK;
    /* The item's term as digits, and those of TK. */
    int q2 = (begin + lk) % o2, q1 = (begin + lk) / o2 % o1, q0 = (begin + lk) / (o1 * o2) % o0;
    int image = (begin + lk) / plane;
    const int h2 = TK % o2, h1 = TK / o2 % o1, h0 = TK / (o1 * o2) % o0, h = TK / plane;
    for (int k = begin; k < end; k += TK) {
        const int there = k + lk < end;
        const int z0 = q0 * s0 - p0, z1 = q1 * s1 - p1, z2 = q2 * s2 - p2;
        const int from = (image * groups + group) * channels * x_plane + (z0 * i1 + z1) * i2 + z2;
        const int beside = (image * groups + group) * rows * plane + (q0 * o1 + q1) * o2 + q2;
        for (int m = id / TK; m < TM; m += ITEMS / TK)
            LEFT_AT(lk, m) =
                there && first_row + m < rows ? (ACC)y[beside + (first_row + m) * plane] : (ACC)0;
        for (int n = id / TK; n < TN; n += ITEMS / TK) {
            const int4 at = reach[n];
            ACC value = 0;
#if FLAT
            if (there) value = (ACC)x[from + at.x];
#else
            if (there && INSIDE(z0 + at.y, i0) && INSIDE(z1 + at.z, i1) && INSIDE(z2 + at.w, i2))
                value = (ACC)x[from + at.x];
#endif
            ((__local ACC *)right)[lk * TERM_OF_RIGHT + n] = value;
        }
        q2 += h2;
        q1 += h1 + (q2 >= o2);
        q2 -= q2 >= o2 ? o2 : 0;
        q0 += h0 + (q1 >= o1);
        q1 -= q1 >= o1 ? o1 : 0;
        image += h + (q0 >= o0);
        q0 -= q0 >= o0 ? o0 : 0;
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 4
        for (int r = 0; r < TK; ++r)
            ADD_TERM(left + r * (TERM_OF_LEFT / 4) + ly * (RM / 4),
                     right[r * (TERM_OF_RIGHT / 4) + lx])
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    const int row = first_row + ly * RM, column = first_column + 4 * lx;
    w += group * rows * columns;
#if PARTS
    w += (size_t)part * part_size;
#endif
    ROWS(LEAVE)
}
