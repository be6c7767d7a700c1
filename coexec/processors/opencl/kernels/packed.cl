/* Matrix products and convolutions as one blocked product Y = alpha * A * B + beta * bias.
 *
 * A (rows x depth) is read where it lies if its rows are contiguous, else it comes packed by pack.cl:
 * tiles of MR rows, [batch][tile][depth][MR], type T. Elements are broadcast, and to convert them one
 * by one takes longer than to multiply: in place A is of type ACC, packed tiles are copied to the slot.
 * With APART 0, A is packed nowhere: a task puts each tile together in its slot (pack_tile.cl).
 * B (depth x columns) is never stored whole. A column is a position of the result (image, o0, o1,
 * o2), a row of B a channel and a tap (t0, t1, t2) of the window, so B[row, column] is
 *     x[image, channel, o * s - p + t * d], zero outside x (extents i0, i1, i2).
 * A matrix B is the case of one tap and one image (stored by columns: many images of one element).
 * Each work-item owns a slot of `panels`: it gathers `block` rows (whole channels) of `group`
 * panels of NR columns there, multiplies each tile of A with all of them, goes to the next block of
 * rows, and then to its next panels: they stay in cache, a tile of A is read once for all of them,
 * and scratch is small whatever the sizes. Blocks after the first add to Y. Where panels are too
 * few to occupy the device, rows of A are divided among tasks too (row_block, whole tiles). Panels
 * that are one run of x (`flat`: a matrix, a convolution of one tap and no stride) are copied.
 *
 * Y: element (m, column) lies at m * y_row + image * y_image + (o * q + u) in a plane of extents
 * w1, w2: q is 1 and u 0 for a convolution, the stride and the phase for its input's gradient.
 * bias: element (m, column) lies at m * bias_row + column * bias_column.
 * Batch (groups of a convolution): two levels, outer and inner, with a stride per operand.
 * The last block finishes its results (epilogue.cl).
 * Geometry: one work-item per slot, work-groups of one; tasks are divided evenly, in order. */

#include "gather.cl"
#include "ask.cl"
#include "epilogue.cl"

#ifndef MR
#define MR 8 /* rows of a register tile: 4, 6, 8 or 12 */
#endif
#ifndef NV
#define NV 3 /* vectors in a row of a register tile: 1 to 4 */
#endif
#ifndef GROUP
#define GROUP 16 /* panels of a task at most */
#endif
#ifndef PACKED
#define PACKED 1 /* 0: A is not packed: A[m, k] lies at m * a_row + k */
#endif

#ifndef APART
#define APART 1 /* 0: a task packs each tile of A itself */
#endif

#if APART
#define LEFT_STEPS
#else
#define LEFT_STEPS                                                                                 \
    const int a_base, const int a_channel, const int a_0, const int a_1, const int a_2,
#endif

#define COPIED (PACKED && !(SAME && APART))
#if COPIED
#define LEFT T
#define TILE_SIZE ((MR * block * taps + 15) / 16 * 16)
#else
#define LEFT ACC
#define TILE_SIZE 0
#endif

#define NR (NV * V)

#define ROWS_6(F) ROWS_4(F) F(4) F(5)
#define ROWS_8(F) ROWS_6(F) F(6) F(7)
#define ROWS_12(F) ROWS_8(F) F(8) F(9) F(10) F(11)
#define ROWS(F) JOIN(ROWS_, MR)(F)
#define VECTORS_1(F, i) F(i, 0)
#define VECTORS_2(F, i) F(i, 0) F(i, 1)
#define VECTORS_3(F, i) F(i, 0) F(i, 1) F(i, 2)
#define VECTORS_4(F, i) F(i, 0) F(i, 1) F(i, 2) F(i, 3)
#define VECTORS(F, i) JOIN(VECTORS_, NV)(F, i)

#define DECLARE_ONE(i, v) vec c##i##_##v = 0;
#define DECLARE(i) VECTORS(DECLARE_ONE, i)
#define FETCH(i, v) const vec b##v = *(__global const fetched *)(pb + v * V);
#define MULTIPLY_ONE(i, v) c##i##_##v += e##i * b##v;
#if PACKED
#define POINT(i)
#define ENTRY(i) pa[i]
#else
#define POINT(i) __global const ACC *pa##i = a + min(m + i, rows - 1) * a_row + r * taps;
#define ENTRY(i) pa##i[k]
#endif
#define MULTIPLY(i)                                                                                \
    const ACC e##i = ENTRY(i);                                                                     \
    VECTORS(MULTIPLY_ONE, i)
/* Vectors whose columns are contiguous in y leave straight from registers. */
#define LEAVE_ONE(i, v)                                                                            \
    if (runs >> v & 1) {                                                                           \
        vec old = (vec)start;                                                                      \
        if (r > 0) old = LOAD(py + place[v * V]);                                                  \
        else if (bias_column) old = beta * LOAD(pc + v * V);                                       \
        const vec sum = alpha * c##i##_##v + old;                                                  \
        __global T *to = py + place[v * V];                                                        \
        STORE(to, r + block < channels ? sum : FINISH(sum, to - y_first));                         \
    }
#define LEAVE(i)                                                                                   \
    if (m + i < last) {                                                                            \
        __global const T *pc = bias + (m + i) * bias_row + column * bias_column;                   \
        __global T *py = y + (m + i) * y_row;                                                      \
        const ACC start = r == 0 && has_bias ? beta * (ACC)*pc : (ACC)0;                           \
        VECTORS(LEAVE_ONE, i)                                                                      \
    }
#define DUMP_ONE(i, v) *(__global vec *)(tile + i * NR + v * V) = alpha * c##i##_##v;
#define DUMP(i) VECTORS(DUMP_ONE, i)

/* Where the NR columns from `column` on lie in a plane of y, -1 past the end; bit v is set where
 * those of vector v are one contiguous run. */
inline int find_places(int *place, const int column, const int columns, const int o0, const int o1,
                       const int o2, const int y_image, const int w1, const int w2, const int q0,
                       const int q1, const int q2, const int u0, const int u1, const int u2)
{
    int c2 = column % o2, c1 = column / o2 % o1, c0 = column / (o2 * o1) % o0;
    int image = column / (o2 * o1 * o0), runs = (1 << NV) - 1;
#pragma unroll 1
    for (int j = 0; j < NR; ++j) {
        const int inside = ((c0 * q0 + u0) * w1 + c1 * q1 + u1) * w2 + c2 * q2 + u2;
        place[j] = column + j < columns ? image * y_image + inside : -1;
        if (place[j] != place[j / V * V] + j % V || place[j] < 0) runs &= ~(1 << j / V);
        if (++c2 == o2) {
            c2 = 0;
            if (++c1 == o1) {
                c1 = 0;
                if (++c0 == o0) c0 = 0, ++image;
            }
        }
    }
    return runs;
}

/* Copy `count` runs of `width` columns, x_channel elements apart, into panels. */
inline void copy_runs(__global const T *x, __global ACC *panel, const int panel_size,
                      const int x_channel, const int count, const int width)
{
    for (int c = 0; c < count; ++c)
        for (int p = 0; p < width; ++p) {
            __global const T *from = x + c * x_channel + p * NR;
            __global ACC *to = panel + p * panel_size + c * NR;
            for (int v = 0; v < NV; ++v)
                *(__global vec *)(to + v * V) = LOAD(from + v * V);
        }
}

#if COPIED && APART
/* A tile of A, `size` elements, in the type of sums. */
inline void widen_tile(__global const T *from, __global ACC *to, const int size)
{
    int i = 0;
    for (; i + V <= size; i += V) *(__global fetched *)(to + i) = LOAD(from + i);
    for (; i < size; ++i) to[i] = (ACC)from[i];
}
#elif COPIED
#include "pack_tile.cl"
#endif

__kernel ALONE void packed(
    __global const LEFT *a, __global const T *x, __global const T *bias, __global T *y,
    __global ACC *panels, const ACC alpha, const ACC beta, const int has_bias, const int bias_row,
    const int bias_column, const int rows, const int row_block, const int channels,
    const int columns, const int block, const int group, const int tasks, const int inner,
    LEFT_STEPS const int a_row, const int a_outer, const int a_inner, const int x_outer,
    const int x_inner, const int y_batch, const int bias_batch, const int x_size, const int x_image,
    const int x_channel, const int y_row, const int y_image, const int w1, const int w2,
    const int q0, const int q1, const int q2, const int u0, const int u1, const int u2,
    WINDOW FINISH_PARAMETERS)
{
    const int taps = k0 * k1 * k2;
    const int flat = taps == 1 && i2 == o2 && i1 * i0 == 1 && s2 == 1 && p2 == 0;
    const int groups = (columns + NR * group - 1) / (NR * group);
    const int row_blocks = (rows + row_block - 1) / row_block;
    const int panel_size = block * taps * NR;
    const int slot = get_global_id(0), slots = get_global_size(0);
    __global ACC *panel = panels + slot * (group * panel_size + MR * NR + TILE_SIZE);
    __global ACC *tile = panel + group * panel_size;
#if COPIED
    __global ACC *left = tile + MR * NR;
#endif
    __global const LEFT *a_first = a;
    __global const T *x_first = x, *bias_first = bias;
    __global T *y_first = y;
    const int end = (int)((long)tasks * (slot + 1) / slots);
    for (int task = (int)((long)tasks * slot / slots); task < end; ++task) {
        const int batch = task / groups / row_blocks, begin = task % groups * group * NR;
        const int first = task / groups % row_blocks * row_block;
        const int last = min(first + row_block, rows);
        const int width = min(group, (columns - begin + NR - 1) / NR);
        const int outer = batch / inner, x_at = outer * x_outer + batch % inner * x_inner;
        a = a_first + outer * a_outer + batch % inner * a_inner;
        x = x_first + x_at;
        y = y_first + batch * y_batch;
        bias = bias_first + batch * bias_batch;
        int places[GROUP * NR], whole[GROUP];
        for (int p = 0; p < width; ++p)
            whole[p] = find_places(places + p * NR, begin + p * NR, columns, o0, o1, o2, y_image,
                                   w1, w2, q0, q1, q2, u0, u1, u2);
        int r = 0;
        do {
            const int count = min(block, channels - r), depth = count * taps;
            for (int p = 0; p < width;) {
                /* Panels that lie in one run of x are copied together. */
                const int column = begin + p * NR, inside = column % o2;
                const int alike = flat ? min((o2 - inside) / NR, width - p) : 0;
                __global ACC *to = panel + p * panel_size;
                if (alike > 0) {
                    copy_runs(x + column / o2 * x_image + inside + r * x_channel, to, panel_size,
                              x_channel, count, alike);
                    p += alike;
                    continue;
                }
#pragma unroll 1 /* a call of gather is long */
                for (int v = 0; v < NV; ++v)
                    gather(x, to + v * V, NR, column + v * V, columns, x_size - x_at, x_image,
                           x_channel, r, count, WINDOW_VALUES);
                ++p;
            }
            for (int m = first; m < last; m += MR) {
#if COPIED && APART
                widen_tile(a + (m * channels + r * MR) * taps, left, depth * MR);
#elif COPIED
                pack_tile(a + a_base + m * a_row + r * a_channel, left, a_row, a_channel, a_0, a_1,
                          a_2, min(MR, rows - m), count, k0, k1, k2);
#endif
                for (int p = 0; p < width; ++p) {
                    const int column = begin + p * NR, runs = whole[p];
                    const int *place = places + p * NR;
                    __global const ACC *pb = panel + p * panel_size;
#if COPIED
                    __global const ACC *pa = left;
#elif PACKED
                    __global const ACC *pa = a + (m * channels + r * MR) * taps;
#else
                    ROWS(POINT)
#endif
                    ROWS(DECLARE)
#if PACKED && !COPIED
                    /* Asks for the next tile, once this one is not needed any more. */
                    const size_t ahead = p + 1 < width ? 0 : (size_t)MR * channels * taps;
#endif
                    for (int k = 0; k < depth; ++k) {
#if PACKED && !COPIED
                        ASK_FOR(pa + ahead)
#endif
                        VECTORS(FETCH, 0)
                        ROWS(MULTIPLY)
#if PACKED
                        pa += MR;
#endif
                        pb += NR;
                    }
                    ROWS(LEAVE)
                    if (runs == (1 << NV) - 1) continue;
                    ROWS(DUMP)
#pragma unroll 1
                    for (int i = 0; i < MR && m + i < last; ++i) {
                        __global const T *pc = bias + (m + i) * bias_row + column * bias_column;
                        __global T *py = y + (m + i) * y_row;
                        const ACC start = r == 0 && has_bias ? beta * (ACC)*pc : (ACC)0;
#pragma unroll 1
                        for (int j = 0; j < NR && column + j < columns; ++j) {
                            if (runs >> j / V & 1) continue;
                            ACC old = start;
                            if (r > 0) old = (ACC)py[place[j]];
                            else if (bias_column) old = beta * (ACC)pc[j];
                            const ACC sum = tile[i * NR + j] + old;
                            __global T *to = py + place[j];
                            *to = (T)(r + block < channels ? sum : FINISH_ONE(sum, to - y_first));
                        }
                    }
                }
            }
            r += block;
        } while (r < channels);
    }
}
