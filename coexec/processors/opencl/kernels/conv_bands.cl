/* Convolutions and their inputs' gradients on bands of rows, with positions in lanes.
 * Layout: y (images, groups * rows, f0, f1, f2) from x (images, groups * channels, e0, e1, e2), T;
 * w[row, channel, tap] lies at row * w_row + channel * w_channel + tap, groups w_group
 * apart.
 * BACK 0: y[m, o] = bias[m] + sum over channels and taps of w[m, c, t] * x[c, o * s - p + t * d].
 * BACK 1: y[m, o * s + u] for every phase u < s of each axis, of taps t = (u + p) % s + j * s:
 *     bias[m] + sum over channels and j of w[m, c, t] * x[c, o + (u + p) / s - j * d].
 *
 * A task is an image's `band` rows of base positions o (n0, n1, n2). The rows of x that they read
 * go to a padded grid in the slot: [channel][g0 planes][g1 rows][sheets][sheet], columns apart by
 * their remainder modulo the reading stride (plane.cl), so that a vector of positions is one load
 * for every term of a sum. Term k lies `at[k]` elements from the position. Weights come to the slot
 * once: [phase][tile][term][MR].
 * A register tile is MR rows of y times NV vectors of positions: sums never leave registers. With a
 * stride on the last axis (APART) phases of a row are written apart, then interleaved.
 * Geometry: one work-item per slot, groups of one; tasks are divided evenly, in order. */

#ifndef BACK
#define BACK 0 /* 1: the gradient of the input, or a transposed convolution */
#endif
#ifndef APART
#define APART 0 /* 1: the last axis has phases */
#endif
#ifndef MR
#define MR 6 /* rows of a register tile: 3, 4, 6, 8 or 12 */
#endif
#ifndef NV
#define NV 2 /* vectors of positions in a register tile: 2, 3 or 4 */
#endif

#include "plane.cl"
#include "epilogue.cl"

#if V == 16
#define HALF 8
#elif V == 8
#define HALF 4
#else
#define HALF 2
#endif
typedef JOIN(float, HALF) halves __attribute__((aligned(4)));

#define AT(p) (*(__global const fetched *)(p))
#define ROWS_3(F) F(0) F(1) F(2)
#define ROWS_4(F) ROWS_3(F) F(3)
#define ROWS_6(F) ROWS_4(F) F(4) F(5)
#define ROWS_8(F) ROWS_6(F) F(6) F(7)
#define ROWS_12(F) ROWS_8(F) F(8) F(9) F(10) F(11)
#define ROWS(F) JOIN(ROWS_, MR)(F)
#define VECTORS_2(F, i) F(i, 0) F(i, 1)
#define VECTORS_3(F, i) VECTORS_2(F, i) F(i, 2)
#define VECTORS_4(F, i) VECTORS_3(F, i) F(i, 3)
#define VECTORS(F, i) JOIN(VECTORS_, NV)(F, i)

#define SPOT(i, v) const long z##v = spots[q + v];
#define BEGIN_ONE(i, v) fetched c##i##_##v = 0;
#define BEGIN(i) VECTORS(BEGIN_ONE, i)
#define MULTIPLY(i, v) c##i##_##v += e##i * b##v;
#define WEIGHT(i) const fetched e##i = (fetched)pa[i];
#define POSITIONS(i, v) const fetched b##v = AT(px + z##v);
/* Fewer registers hold the shorter side of a tile, and one of the longer side at a time. */
#if MR < NV
#define TERM_ONE(i, v) POSITIONS(i, v) JOIN(COLUMN_, MR)(v)
#define COLUMN_3(v) MULTIPLY(0, v) MULTIPLY(1, v) MULTIPLY(2, v)
#define TERM ROWS(WEIGHT) VECTORS(TERM_ONE, 0)
#else
#define TERM_ONE(i) WEIGHT(i) VECTORS(MULTIPLY, i)
#define TERM VECTORS(POSITIONS, 0) ROWS(TERM_ONE)
#endif

/* The bias comes last: before, it would hold a register that the sums need. */
#define BIAS(i) const float start##i = has_bias && m + i < rows ? (float)bias[m + i] : 0.0f;
#define INSIDE(i, v) inside |= (q + v < vectors) << v;
#if APART
#define LEAVE_ONE(i, v)                                                                            \
    if (inside >> v & 1) *(__global fetched *)(line##i + places[q + v]) = c##i##_##v + start##i;
#define LEAVE(i)                                                                                   \
    if (m + i < rows) {                                                                            \
        BIAS(i)                                                                                    \
        __global float *line##i = lines + (m + i) * line_row;                                      \
        VECTORS(LEAVE_ONE, i)                                                                      \
    }
#else
#define WHOLE(i, v) whole |= (inside >> v & (places[q + v] >= 0)) << v;
#define LEAVE_ONE(i, v)                                                                            \
    if (whole >> v & 1) {                                                                          \
        __global T *to = to##i + places[q + v];                                                    \
        *(__global stored *)to = NARROW(FINISH(c##i##_##v + start##i, to - y_first));              \
    }
#define LEAVE(i)                                                                                   \
    if (m + i < rows) {                                                                            \
        BIAS(i)                                                                                    \
        __global T *to##i = y + (m + i) * y_row;                                                   \
        VECTORS(LEAVE_ONE, i)                                                                      \
    }
#define DUMP_ONE(i, v) *(__global fetched *)(tile + (i * NV + v) * V) = c##i##_##v + start##i;
#define DUMP(i)                                                                                    \
    {                                                                                              \
        BIAS(i)                                                                                    \
        VECTORS(DUMP_ONE, i)                                                                       \
    }
#endif

/* Of phase u of an axis: its first tap, and their number. */
#define FIRST(u, p, q) (BACK ? ((u) + (p)) % (q) : 0)
#define TAPS(k, first, q) ((first) < (k) ? ((k) - (first) + (q) - 1) / (q) : 0)

/* Where the terms of a phase lie, and its weights in tiles of rows. */
INLINE void lay_out(__global float *a, __global int *at, __global const T *w, const int rows,
                    const int channels, const int w_row, const int w_channel, const int q0,
                    const int q1, const int q2, const int first0, const int first1,
                    const int first2, const int taps0, const int taps1, const int taps2,
                    const int k1, const int k2, const int near0, const int near1, const int near2,
                    const int step0, const int step1, const int step2, const int g0, const int g1,
                    const int sheets, const int sheet)
{
    const int terms = channels * taps0 * taps1 * taps2;
    int k = 0;
    for (int c = 0; c < channels; ++c)
        for (int j0 = 0; j0 < taps0; ++j0)
            for (int j1 = 0; j1 < taps1; ++j1)
                for (int j2 = 0; j2 < taps2; ++j2, ++k) {
                    const int plane = c * g0 + near0 + j0 * step0, row = near1 + j1 * step1;
                    const int column = near2 + j2 * step2;
                    const int line = (plane * g1 + row) * sheets + column % sheets;
                    at[k] = line * sheet + column / sheets;
                    const int t0 = first0 + j0 * q0, t1 = first1 + j1 * q1, t2 = first2 + j2 * q2;
                    __global const T *from = w + c * w_channel + (t0 * k1 + t1) * k2 + t2;
#pragma unroll 1
                    for (int m = 0; m < rows; m += MR) {
                        __global float *to = a + (m / MR * terms + k) * MR;
                        for (int i = 0; i < MR; ++i)
                            to[i] = m + i < rows ? (float)from[(m + i) * w_row] : 0.0f;
                    }
                }
}

#define ROUND_UP(n) (((n) + 15) / 16 * 16)
#define PHASES                                                                                     \
    for (int u0 = 0; u0 < q0; ++u0)                                                                \
        for (int u1 = 0; u1 < q1; ++u1)
#define PHASE(u)                                                                                   \
    const int first0 = FIRST(u0, p0, q0), taps0 = TAPS(k0, first0, q0);                            \
    const int first1 = FIRST(u1, p1, q1), taps1 = TAPS(k1, first1, q1);                            \
    const int first2 = FIRST(u, p2, q2), taps2 = TAPS(k2, first2, q2);                             \
    const int terms = channels * taps0 * taps1 * taps2;

__kernel ALONE void bands(
    __global const T *x, __global const T *w, __global const T *bias, __global T *y,
    __global float *slots, const int has_bias, const int tasks, const int slot_size,
    const int images, const int rows, const int channels, const int n0, const int n1, const int n2,
    const int band, const int e0, const int e1, const int e2, const int f0, const int f1,
    const int f2, const int k0, const int k1, const int k2, const int s0, const int s1,
    const int s2, const int p0, const int p1, const int p2, const int d0, const int d1,
    const int d2, const int low0, const int low1, const int low2, const int g0, const int g1,
    const int sheet, const int list, const int w_row, const int w_channel,
    const int w_group FINISH_PARAMETERS)
{
    /* Steps of reading and of writing; planes of the grid are `gap` apart in x. */
#if BACK
    const int r0 = 1, r1 = 1, sheets = 1, q0 = s0, q1 = s1, q2 = s2, gap = 1;
#else
    const int r0 = s0, r1 = s1, sheets = s2, q0 = 1, q1 = 1, q2 = 1, gap = d0;
#endif
    const int depth = channels * k0 * k1 * k2, tiles = (rows + MR - 1) / MR;
    const int across = (n2 + V - 1) / V, wide = across * V, pitch = sheets * sheet;
    const int per_image = (n1 + band - 1) / band, y_row = f0 * f1 * f2, x_row = e0 * e1 * e2;
    const int groups = tasks / (images * n0 * per_image), line_row = band * q2 * wide;
    const int slot = get_global_id(0), slots_of = get_global_size(0);
    __global float *a = slots + slot * slot_size;
    __global int *at = (__global int *)(a + ROUND_UP(tiles * MR * depth));
    __global int *spots = at + ROUND_UP(depth), *places = spots + list;
    __global float *tile = (__global float *)(places + list), *lines = tile;
    __global float *grid = APART ? lines + rows * line_row : tile + MR * NV * V;
    __global const T *x_first = x, *bias_first = bias;
    __global T *y_first = y;
    fill(grid, channels * g0 * g1 * pitch + V, 0.0f);
    for (int i = 0; i < list; ++i) {
        const int row = i / across, column = i % across * V, past = row >= band;
        spots[i] = past ? 0 : row * r1 * pitch + column;
#if APART
        places[i] = row * q2 * wide + column;
#else
        const int place = row * q1 * f2 + column;
        places[i] = column + V <= n2 ? place : -1 - place;
#endif
    }
    int ready = -1; /* the group whose weights are in the slot */
    const int end = SHARE(slot + 1, slots_of);
    for (int task = SHARE(slot, slots_of); task < end; ++task) {
        const int first = task % per_image * band, z0 = task / per_image % n0;
        const int image = task / per_image / n0 % images, group = task / per_image / n0 / images;
        const int height = LEAST(band, n1 - first);
        x = x_first + (image * groups + group) * channels * x_row;
        y = y_first + (image * groups + group) * rows * y_row;
        bias = bias_first + (has_bias ? group * rows : 0);
        for (int c = 0; c < channels; ++c)
            for (int g = 0; g < g0; ++g) {
                const int source = z0 * r0 + low0 + g * gap, there = source >= 0 && source < e0;
                spread(grid + (c * g0 + g) * g1 * pitch,
                       x + c * x_row + (there ? source : 0) * e1 * e2, there ? e1 : 0, e2, sheets,
                       first * r1 + low1, (height - 1) * r1 + g1 - (band - 1) * r1, -low2, sheet,
                       1, 0.0f);
            }
        if (group != ready) {
            int begin = 0;
            PHASES for (int u2 = 0; u2 < q2; ++u2)
            {
                PHASE(u2)
#if BACK
                lay_out(a + begin * tiles * MR, at + begin, w + group * w_group, rows, channels,
                        w_row, w_channel, q0, q1, q2, first0, first1, first2, taps0, taps1, taps2,
                        k1, k2, (u0 + p0) / q0 - low0, (u1 + p1) / q1 - low1, (u2 + p2) / q2 - low2,
                        -d0, -d1, -d2, g0, g1, sheets, sheet);
#else
                lay_out(a, at, w + group * w_group, rows, channels, w_row, w_channel, 1, 1, 1, 0,
                        0, 0, taps0, taps1, taps2, k1, k2, 0, 0, 0, 1, d1, d2, g0, g1, sheets,
                        sheet);
#endif
                begin += terms;
            }
            ready = group;
        }
        int begin = 0;
        PHASES
        {
            const int y0 = z0 * q0 + u0;
            for (int u2 = 0; u2 < q2; ++u2) {
                PHASE(u2)
                __global const float *weights = a + begin * tiles * MR;
                __global const int *offsets = at + begin;
                begin += terms;
                if (y0 >= f0) continue;
#if APART
                const int vectors = height * across;
                lines = tile + u2 * wide;
#else
                /* A phase may have a row less than the first one. */
                const int left = (f1 - u1 - first * q1 + q1 - 1) / q1;
                const int vectors = LEAST(height, left) * across;
                y = y_first + ((image * groups + group) * rows * f0 + y0) * f1 * f2 +
                    (first * q1 + u1) * f2;
#endif
                /* What positions read stays in the first cache, weights stream past it. */
                for (int q = 0; q < vectors; q += NV)
                    for (int m = 0; m < rows; m += MR) {
                        __global const float *pa = weights + m * terms;
                        VECTORS(SPOT, 0)
                        ROWS(BEGIN)
                        for (int j = 0; j < terms; ++j, pa += MR) {
                            __global const float *px = grid + offsets[j];
                            TERM
                        }
                        int inside = 0;
                        VECTORS(INSIDE, 0)
#if APART
                        ROWS(LEAVE)
#else
                        int whole = 0;
                        VECTORS(WHOLE, 0)
                        ROWS(LEAVE)
                        if (inside == whole) continue;
                        ROWS(DUMP)
#pragma unroll 1
                        for (int i = 0; i < MR * NV; ++i) {
                            const int v = i % NV, row = m + i / NV;
                            if (row >= rows || !((inside & ~whole) >> v & 1)) continue;
                            __global T *to = y + row * y_row - 1 - places[q + v];
#pragma unroll 1
                            for (int j = 0; j < n2 % V; ++j)
                                to[j] = (T)FINISH_ONE(tile[i * V + j], to + j - y_first);
                        }
#endif
                    }
            }
#if APART
            for (int m = 0; m < rows && y0 < f0; ++m)
                for (int row = 0; row < height; ++row) {
                    const int y1 = (first + row) * q1 + u1;
                    if (y1 >= f1) break;
                    __global const float *line = tile + m * line_row + row * q2 * wide;
                    __global T *to = y + m * y_row + (y0 * f1 + y1) * f2;
                    int j = 0;
                    for (; q2 == 2 && j + V <= f2; j += V) {
                        fetched pairs;
                        pairs.even = *(__global const halves *)(line + j / 2);
                        pairs.odd = *(__global const halves *)(line + wide + j / 2);
                        *(__global stored *)(to + j) = NARROW(FINISH(pairs, to + j - y_first));
                    }
#pragma unroll 1
                    for (; j < f2; ++j)
                        to[j] = (T)FINISH_ONE(line[j % q2 * wide + j / q2], to + j - y_first);
                }
#endif
        }
    }
}
