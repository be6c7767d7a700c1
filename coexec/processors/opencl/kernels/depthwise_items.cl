/* Depthwise convolutions and their gradients on GPUs.
 * Layout: x (images, channels / multiplier, i1, i2), y (images, channels, o1, o2), w (channels, K1,
 * K2); channel m of y reads channel m / multiplier of x; position o reads o * S - p + t * D, and
 * what lies outside of x is zero. With PARTS the gradient of w is parts of sums (conv_sum.cl).
 *
 * There is nothing to share but neighbourhoods, 2 * K1 * K2 flop for 8 bytes: what counts is that
 * neighbouring items touch neighbouring addresses and that what is read twice is in registers or in
 * the first cache.
 * depthwise_items: an item has PY results, one below the other. It reads each row that they reach
 *   once (for 3 x 3 and PY 4: 18 reads for 36 multiplications), neighbours along the row the same
 *   lines. Registers: PY sums, K1 * K2 weights, one element.
 * depthwise_items_back: from y to x. An item has a cell of PY * S1 rows and S2 columns of x, in
 *   which the same taps meet the same phases of the stride in every cell: no item tests what it may
 *   read but against the borders of y.
 * depthwise_items_weight: a group sums the products of RUN rows of taps of a channel over a part of
 *   all positions of y in all images, neighbouring items at neighbouring positions, then adds its
 *   items' sums in local memory: LOCAL * RUN * K2 sums (2.3 KiB for 3 x 3 and 64 items).
 * Geometry: one item per run of PY results or per cell, columns first; for the weights LOCAL items
 * for each channel, each RUN rows of taps and each part. */

#ifndef K1
#define K1 3 /* taps along the first axis */
#endif
#ifndef K2
#define K2 3 /* taps along the second axis */
#endif
#ifndef S1
#define S1 1 /* strides */
#endif
#ifndef S2
#define S2 1
#endif
#ifndef D1
#define D1 1 /* dilations */
#endif
#ifndef D2
#define D2 1
#endif
#ifndef PY
#define PY 4 /* results of an item, one below the other */
#endif
#ifndef RUN
#define RUN K1 /* rows of taps that a group sums for the weights */
#endif
#ifndef LOCAL
#define LOCAL 64 /* items of a group that sums for the weights, a power of two */
#endif
#ifndef PARTS
#define PARTS 0 /* 1: the gradient of w is parts of sums */
#endif
#ifndef KIND
#define KIND 0 /* 0: y of x; 1: x of y; 2: w of x and y */
#endif
#define V 2 /* of alone.cl, whose vectors are not used */

#include "alone.cl"
#include "epilogue.cl"

#define INSIDE(z, n) ((uint)(z) < (uint)(n))

#if KIND == 0

#define ROWS_READ ((PY - 1) * S1 + (K1 - 1) * D1 + 1)

__kernel void depthwise_items(__global const T *x, __global const T *w, __global const T *bias,
                              __global T *y, const int has_bias, const int total,
                              const int channels, const int multiplier, const int i1, const int i2,
                              const int o1, const int o2, const int p1,
                              const int p2 FINISH_PARAMETERS)
{
    const int i = get_global_id(0);
    if (i >= total) return;
    const int runs = (o1 + PY - 1) / PY;
    const int column = i % o2, row = i / o2 % runs * PY, plane = i / (o2 * runs);
    const int channel = plane % channels, z1 = row * S1 - p1, z2 = column * S2 - p2;
    const int source = plane / channels * (channels / multiplier) + channel / multiplier;
    __global const T *from = x + source * i1 * i2;
    ACC weights[K1 * K2], sums[PY];
#pragma unroll
    for (int t = 0; t < K1 * K2; ++t) weights[t] = (ACC)w[channel * K1 * K2 + t];
#pragma unroll
    for (int j = 0; j < PY; ++j) sums[j] = has_bias ? (ACC)bias[channel] : (ACC)0;
#pragma unroll
    for (int r = 0; r < ROWS_READ; ++r) {
        if (!INSIDE(z1 + r, i1)) continue;
#pragma unroll
        for (int t2 = 0; t2 < K2; ++t2) {
            const int at = z2 + t2 * D2;
            const ACC value = INSIDE(at, i2) ? (ACC)from[(z1 + r) * i2 + at] : (ACC)0;
#pragma unroll
            for (int j = 0; j < PY; ++j)
#pragma unroll
                for (int t1 = 0; t1 < K1; ++t1)
                    if (j * S1 + t1 * D1 == r) sums[j] += weights[t1 * K2 + t2] * value;
        }
    }
    const int to = (plane * o1 + row) * o2 + column;
#pragma unroll
    for (int j = 0; j < PY; ++j)
        if (row + j < o1) y[to + j * o2] = (T)FINISH_ONE(sums[j], to + j * o2);
}

#elif KIND == 1

/* Positions of x, counted from -p, are cells of (PY * S1) x S2; tap t brings to position a of one
 * what lies (a - t * D) / S rows of y behind its first one, where that is whole. */
#define CELL (PY * S1)
#define BACK1 (((K1 - 1) * D1 + S1 - 1) / S1)
#define BACK2 (((K2 - 1) * D2 + S2 - 1) / S2)

__kernel void depthwise_items_back(__global const T *y, __global const T *w,
                                   __global const T *bias, __global T *x, const int has_bias,
                                   const int total, const int channels, const int multiplier,
                                   const int i1, const int i2, const int o1, const int o2,
                                   const int p1, const int p2, const int cells1, const int cells2,
                                   const int first1, const int first2 FINISH_PARAMETERS)
{
    const int i = get_global_id(0);
    if (i >= total) return;
    const int c2 = i % cells2 + first2, c1 = i / cells2 % cells1 * PY + first1;
    const int plane = i / (cells2 * cells1), channel = plane % channels;
    ACC sums[CELL * S2];
#pragma unroll
    for (int j = 0; j < CELL * S2; ++j) sums[j] = has_bias ? (ACC)bias[channel] : (ACC)0;
    for (int m = 0; m < multiplier; ++m) {
        __global const T *from = y + (plane * multiplier + m) * o1 * o2;
        __global const T *taps = w + (channel * multiplier + m) * K1 * K2;
        ACC weights[K1 * K2];
#pragma unroll
        for (int t = 0; t < K1 * K2; ++t) weights[t] = (ACC)taps[t];
#pragma unroll
        for (int r = -BACK1; r < PY; ++r) {
            if (!INSIDE(c1 + r, o1)) continue;
#pragma unroll
            for (int q = -BACK2; q < 1; ++q) {
                const ACC value =
                    INSIDE(c2 + q, o2) ? (ACC)from[(c1 + r) * o2 + c2 + q] : (ACC)0;
#pragma unroll
                for (int t1 = 0; t1 < K1; ++t1)
#pragma unroll
                    for (int t2 = 0; t2 < K2; ++t2) {
                        const int a1 = r * S1 + t1 * D1, a2 = q * S2 + t2 * D2;
                        if (a1 >= 0 && a1 < CELL && a2 >= 0 && a2 < S2)
                            sums[a1 * S2 + a2] += weights[t1 * K2 + t2] * value;
                    }
            }
        }
    }
#pragma unroll
    for (int a1 = 0; a1 < CELL; ++a1)
#pragma unroll
        for (int a2 = 0; a2 < S2; ++a2) {
            const int z1 = c1 * S1 + a1 - p1, z2 = c2 * S2 + a2 - p2;
            const int to = (plane * i1 + z1) * i2 + z2;
            if (INSIDE(z1, i1) && INSIDE(z2, i2)) x[to] = (T)FINISH_ONE(sums[a1 * S2 + a2], to);
        }
}

#else

#if PARTS
#define R ACC
#else
#define R T
#endif

__kernel __attribute__((reqd_work_group_size(LOCAL, 1, 1))) void depthwise_items_weight(
    __global const T *x, __global const T *y, __global R *w, const int images, const int channels,
    const int multiplier, const int span, const int i1, const int i2, const int o1, const int o2,
    const int p1, const int p2)
{
    __local ACC shared[RUN * K2 * LOCAL];
    const int item = get_local_id(0), channel = get_group_id(0), first = get_group_id(1) * RUN;
    const int begin = get_group_id(2) * span, end = min(begin + span, images * o1 * o2);
    const int plane = o1 * o2, sources = channels / multiplier;
    ACC sums[RUN * K2];
#pragma unroll
    for (int t = 0; t < RUN * K2; ++t) sums[t] = 0;
    /* Digits of the item's position and of the step from one to the next. */
    int at = begin + item;
    int q2 = at % o2, q1 = at / o2 % o1, image = at / plane;
    const int h2 = LOCAL % o2, h1 = LOCAL / o2 % o1, h = LOCAL / plane;
    for (; at < end; at += LOCAL) {
        const ACC value = (ACC)y[(image * channels + channel) * plane + q1 * o2 + q2];
        __global const T *from = x + (image * sources + channel / multiplier) * i1 * i2;
        const int z1 = q1 * S1 - p1 + first * D1, z2 = q2 * S2 - p2;
#pragma unroll
        for (int t1 = 0; t1 < RUN; ++t1)
#pragma unroll
            for (int t2 = 0; t2 < K2; ++t2) {
                const int r = z1 + t1 * D1, c = z2 + t2 * D2;
                if (INSIDE(r, i1) && INSIDE(c, i2))
                    sums[t1 * K2 + t2] += value * (ACC)from[r * i2 + c];
            }
        q2 += h2;
        q1 += h1 + (q2 >= o2);
        q2 -= q2 >= o2 ? o2 : 0;
        image += h + (q1 >= o1);
        q1 -= q1 >= o1 ? o1 : 0;
    }
#pragma unroll
    for (int t = 0; t < RUN * K2; ++t) shared[t * LOCAL + item] = sums[t];
    for (int half_items = LOCAL / 2; half_items > 0; half_items /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item < half_items)
            for (int t = 0; t < RUN * K2; ++t)
                shared[t * LOCAL + item] += shared[t * LOCAL + item + half_items];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
#if PARTS
    w += get_group_id(2) * channels * K1 * K2;
#endif
    for (int t = item; t < RUN * K2; t += LOCAL)
        w[(channel * K1 + first) * K2 + t] = (R)shared[t * LOCAL];
}

#endif
