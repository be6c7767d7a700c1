/* Convolutions with channels of the result in lanes: no column of x is ever gathered.
 * Layout: x (images, groups * channels, i1, i2) of type float with its padding inside it (direct_pad
 * writes such a copy), w (groups * rows, channels, k1, k2), y (images, groups * rows, o1, o2);
 *     y[m, o] = bias[m] + sum over channels and taps of w[m, c, t] * x[c, o * s + t * d].
 *
 * direct_pack writes weights in panels of NR rows, u[group][panel][1 + depth][NR], the bias first
 * and zeros past the last row, and where the terms of a sum lie: term k = (c, t) of position o is
 * x[o1 * down + o2 * across + at[k]].
 * direct: a register tile is PX positions, each read as one element per term, times NV vectors of
 * channels. A task is `block` positions (whole tiles, MOST_BLOCK at most) and `panel_block` panels,
 * whose weights stay in cache over its positions. Sums go to the slot after every `depth_block` terms, so that weights
 * are read from the first cache for all tiles of a block. At last they are transposed, finished
 * (epilogue.cl) and written as runs of positions.
 * Geometry: direct one work-item per slot, groups of one, tasks divided evenly, in order;
 * direct_pack (panels, SPANs of terms); direct_pad (planes, BANDs of rows), groups of one. */

#ifndef LAYOUT
#define LAYOUT 0 /* 1: direct_pack and direct_pad; 0: direct */
#endif
#ifndef PX
#define PX 6 /* positions of a register tile: 4, 6, 8 or 12 */
#endif
#ifndef NV
#define NV 2 /* vectors of channels in a register tile: 1 to 4 */
#endif

#include "alone.cl"
#include "ask.cl"
#include "epilogue.cl"

#define NR (NV * V)
#define SPAN 64 /* terms of a work-item of direct_pack */
#define BAND 16 /* rows of a work-item of direct_pad */
#define MOST_BLOCK 72
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define SHARE(slot, count) ((int)((long)tasks * (slot) / (count)))
#define AT(p) (*(__global fetched *)(p))

#define TILE_4(F) F(0) F(1) F(2) F(3)
#define TILE_6(F) TILE_4(F) F(4) F(5)
#define TILE_8(F) TILE_6(F) F(6) F(7)
#define TILE_12(F) TILE_8(F) F(8) F(9) F(10) F(11)
#define TILE(F) JOIN(TILE_, PX)(F)
#define VECTORS_1(F, i) F(i, 0)
#define VECTORS_2(F, i) VECTORS_1(F, i) F(i, 1)
#define VECTORS_3(F, i) VECTORS_2(F, i) F(i, 2)
#define VECTORS_4(F, i) VECTORS_3(F, i) F(i, 3)
#define VECTORS(F, i) JOIN(VECTORS_, NV)(F, i)

#define BEGIN_ONE(i, v) fetched c##i##_##v = AT(from + i * next + v * V);
#define BEGIN(i)                                                                                   \
    const long z##i = place[i];                                                                    \
    VECTORS(BEGIN_ONE, i)
#define FETCH(i, v) const fetched w##v = *(__global const fetched *)(pu + v * V);
#define MULTIPLY_ONE(i, v) c##i##_##v += e##i * w##v;
#define MULTIPLY(i)                                                                                \
    const float e##i = px[z##i];                                                                   \
    VECTORS(MULTIPLY_ONE, i)
#define KEEP_ONE(i, v) AT(tile + i * NR + v * V) = c##i##_##v;
#define KEEP(i) VECTORS(KEEP_ONE, i)

#if LAYOUT

__kernel void direct_pack(__global const T *w, __global const T *bias, __global float *u,
                          __global int *at, const int has_bias, const int rows, const int panels,
                          const int depth, const int taps, const int k2, const int plane,
                          const int down, const int across)
{
    const int panel = get_global_id(0), first = get_global_id(1) * SPAN;
    const int last = LEAST(first + SPAN, depth), row = panel % panels * NR;
    const int start = panel / panels * rows + row, height = LEAST(NR, rows - row);
    __global float *to = u + panel * (1 + depth) * NR;
    if (first == 0)
        for (int i = 0; i < NR; ++i) to[i] = has_bias && i < height ? (float)bias[start + i] : 0.0f;
    for (int k = first; k < last; ++k)
        for (int i = 0; i < NR; ++i)
            to[(1 + k) * NR + i] = i < height ? (float)w[(start + i) * depth + k] : 0.0f;
    if (panel == 0)
        for (int k = first; k < last; ++k) {
            const int t = k % taps;
            at[k] = k / taps * plane + t / k2 * down + t % k2 * across;
        }
}

__kernel ALONE void direct_pad(__global const T *x, __global float *to, const int i1,
                               const int i2, const int rows, const int columns, const int p1,
                               const int p2)
{
    const int plane = get_global_id(0), begin = get_global_id(1) * BAND;
    const int end = LEAST(begin + BAND, rows);
    x += plane * i1 * i2;
    to += plane * rows * columns;
    for (int row = begin; row < end; ++row) {
        const int from = row - p1, there = from >= 0 && from < i1;
        __global float *line = to + row * columns;
        const int left = there ? LEAST(p2, columns) : columns, right = LEAST(p2 + i2, columns);
        for (int i = 0; i < left; ++i) line[i] = 0;
        if (!there) continue;
        __global const T *source = x + from * i2 - p2;
        for (int i = left; i < right; ++i) line[i] = (float)source[i];
        for (int i = right; i < columns; ++i) line[i] = 0;
    }
}

#else

#if V >= 8
typedef float4 quad __attribute__((aligned(4)));
/* c0 to c3: four lanes, from `p` on, of eight positions NR apart. */
#define PAIR(p, i) (float8)(*(__global const quad *)((p) + (i) * NR), *(__global const quad *)((p) + ((i) + 4) * NR))
#define COLUMNS(p, c0, c1, c2, c3)                                                                 \
    float8 c0, c1, c2, c3;                                                                         \
    {                                                                                              \
        const float8 a0 = PAIR(p, 0), a1 = PAIR(p, 1), a2 = PAIR(p, 2), a3 = PAIR(p, 3);           \
        const float8 b0 = (float8)(a0.s0, a1.s0, a0.s1, a1.s1, a0.s4, a1.s4, a0.s5, a1.s5);        \
        const float8 b1 = (float8)(a0.s2, a1.s2, a0.s3, a1.s3, a0.s6, a1.s6, a0.s7, a1.s7);        \
        const float8 b2 = (float8)(a2.s0, a3.s0, a2.s1, a3.s1, a2.s4, a3.s4, a2.s5, a3.s5);        \
        const float8 b3 = (float8)(a2.s2, a3.s2, a2.s3, a3.s3, a2.s6, a3.s6, a2.s7, a3.s7);        \
        c0 = (float8)(b0.s01, b2.s01, b0.s45, b2.s45);                                             \
        c1 = (float8)(b0.s23, b2.s23, b0.s67, b2.s67);                                             \
        c2 = (float8)(b1.s01, b3.s01, b1.s45, b3.s45);                                             \
        c3 = (float8)(b1.s23, b3.s23, b1.s67, b3.s67);                                             \
    }
#if V == 16
#define LINES(p)                                                                                   \
    COLUMNS(p, l0, l1, l2, l3)                                                                     \
    COLUMNS((p) + 8 * NR, h0, h1, h2, h3)                                                          \
    const fetched r0 = (fetched)(l0, h0), r1 = (fetched)(l1, h1);                                  \
    const fetched r2 = (fetched)(l2, h2), r3 = (fetched)(l3, h3);
#else
#define LINES(p) COLUMNS(p, r0, r1, r2, r3)
#endif
#else
/* r0 to r3: four channels of V positions. */
#define LINE(p, i) (fetched)((p)[i], (p)[NR + i], (p)[2 * NR + i], (p)[3 * NR + i])
#define LINES(p)                                                                                   \
    const fetched r0 = LINE(p, 0), r1 = LINE(p, 1), r2 = LINE(p, 2), r3 = LINE(p, 3);
#endif

#define WRITE(i)                                                                                   \
    if (m + i < height) {                                                                          \
        __global T *to = y + (m + i) * pixels + p;                                                 \
        *(__global stored *)to = NARROW(FINISH(r##i, to - y_first));                               \
    }

__kernel ALONE void direct(__global const float *x, __global const float *u,
                           __global const int *at, __global T *y, __global float *slots,
                           const int block, const int tasks, const int blocks,
                           const int panel_blocks, const int panel_block, const int panels, const int groups,
                           const int rows, const int depth, const int depth_block,
                           const int x_image, const int x_group, const int pixels, const int o2,
                           const int down, const int across FINISH_PARAMETERS)
{
    const int slot = get_global_id(0), slots_of = get_global_size(0);
    __global float *sums = slots + slot * block * NR;
    __global T *y_first = y;
    __global const float *x_first = x, *u_first = u;
    const int end = SHARE(slot + 1, slots_of);
    for (int task = SHARE(slot, slots_of); task < end; ++task) {
        const int start = task % blocks * block, count = LEAST(block, pixels - start);
        const int batch = task / blocks / panel_blocks, group = batch % groups;
        const int first = task / blocks % panel_blocks * panel_block;
        const int last = LEAST(first + panel_block, panels);
        x = x_first + batch / groups * x_image + group * x_group;
        int places[MOST_BLOCK];
        int row = start / o2, column = start % o2;
#pragma unroll 1
        for (int i = 0; i < block; ++i) {
            places[i] = row * down + column * across;
            if (i + 1 >= count) continue;
            if (++column == o2) column = 0, ++row;
        }
        for (int panel = first; panel < last; ++panel) {
            u = u_first + (group * panels + panel) * (1 + depth) * NR;
            int next = 0; /* from position to position: all begin with the bias */
            for (int k = 0; k < depth; k += depth_block) {
                const int terms = LEAST(depth_block, depth - k);
                for (int t = 0; t < count; t += PX) {
                    __global float *tile = sums + t * NR;
                    __global const float *from = k ? tile : u, *pu = u + (1 + k) * NR;
                    /* Each tile asks for a part of the next block of weights. */
                    __global const float *asked = pu + (NR + LEAST(t / PX, NV - 1) * V) * terms;
                    const int *place = places + t;
                    __global const int *offsets = at + k;
                    TILE(BEGIN)
                    for (int j = 0; j < terms; ++j, pu += NR) {
                        ASK_FOR(asked + j * V)
                        __global const float *px = x + offsets[j];
                        VECTORS(FETCH, 0)
                        TILE(MULTIPLY)
                    }
                    TILE(KEEP)
                }
                next = NR;
            }
            y = y_first + (batch * rows + panel * NR) * pixels + start;
            const int height = LEAST(NR, rows - panel * NR);
            int p = 0;
            for (; p + V <= count; p += V)
#pragma unroll 1
                for (int m = 0; m < height; m += 4) {
                    __global const float *lanes = sums + p * NR + m;
                    LINES(lanes)
                    TILE_4(WRITE)
                }
#pragma unroll 1
            for (; p < count; ++p)
#pragma unroll 1
                for (int m = 0; m < height; ++m) {
                    __global T *to = y + m * pixels + p;
                    *to = (T)FINISH_ONE(sums[p * NR + m], to - y_first);
                }
        }
    }
}

#endif
