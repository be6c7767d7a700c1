/* Convolutions in which every channel of the result reads one channel of x, two spatial axes.
 * Layout: x (images, channels / multiplier, i1, i2), w (channels, K1, K2), y (images, channels, o1,
 * o2); channel m reads channel m / multiplier of x:
 *     y[m, o] = bias[m] + sum over taps of w[m, t] * x[o * s - p + t * d], zero outside x.
 * With `reverse` the taps of w run backwards: the gradient of x where strides are 1.
 *
 * A work-item has a share of the tasks, in order: bands of `band` rows of MORE channels of y. It
 * spreads the rows of x that a band reads over a grid (see plane.cl) and sums vectors along rows.
 * Where a row of y is shorter than a vector, the lanes beyond it spill into the next rows, which are
 * written later; only past the item's share they are held back.
 * Results are finished (epilogue.cl) before they are stored.
 * Geometry: one work-item per slot of scratch, work-groups of one. */

#ifndef WALK
#define WALK 0 /* 1: depthwise_walk, for 3 x 3 taps with strides and dilations of 1 */
#endif
#ifndef MORE
#define MORE 1 /* channels of y that are summed together: 1, 2 or 4; above 1 rows fill a vector */
#endif
#ifndef K1
#define K1 3 /* taps along rows' axis */
#endif
#ifndef K2
#define K2 3 /* taps along columns' axis */
#endif
#ifndef S2
#define S2 1 /* stride along columns */
#endif
#ifndef D2
#define D2 1 /* dilation along columns */
#endif

#include "plane.cl"
#include "epilogue.cl"

#define TAPS (K1 * K2)

#define ARGUMENTS                                                                                  \
    __global const T *x, __global const T *w, __global const T *bias, __global T *y,               \
        __global ACC *slots, const int has_bias, const int reverse, const int tasks,               \
        const int bands, const int band, const int channels, const int multiplier,                 \
        const int slot_size, const int grid_size, const int i1, const int i2, const int o1,        \
        const int o2, const int s1, const int p1, const int p2, const int d1,            \
        const int sheet FINISH_PARAMETERS

/* Stores the first `room` results of a vector from element `to` on. */
INLINE void put_result(__global T *y, const int to, const vec v, const int room FINISH_PARAMETERS)
{
    if (room >= V)
        *(__global stored *)(y + to) = NARROW(FINISH(v, to));
    else {
        ACC lanes[V];
        *(vec *)lanes = v;
        for (int i = 0; i < room; ++i) y[to + i] = (T)FINISH_ONE(lanes[i], to + i);
    }
}

/* This item's tasks, and where in y they end. */
#define FIND_SHARE                                                                                 \
    const int slot = get_global_id(0), count = get_global_size(0);                                 \
    const int begin = SHARE(slot, count), end = SHARE(slot + 1, count);                            \
    const int last_col = MOST(o2 - V, 0), pitch = S2 * sheet;                                      \
    const int limit = end / bands * MORE * o1 * o2 + end % bands * band * o2;                      \
    __global ACC *grid = slots + slot * slot_size;                                                 \
    fill(grid, grid_size, 0);                                                                      \
    int first = begin / bands * MORE, channel = first % channels, number = begin % bands;          \
    int held = -1

/* Planes `first` on of y, band `number` of them. Counted: for small planes divisions cost much. */
#define NEXT_TASK                                                                                  \
    if (++number == bands) {                                                                       \
        number = 0;                                                                                \
        first += MORE;                                                                             \
        channel += MORE;                                                                           \
        if (channel == channels) channel = 0;                                                      \
    }

/* First row and number of rows of the task; spreads what it reads, unless the grid holds it from the
 * task before. */
#define FIND_TASK                                                                                  \
    const int top = number * band, rows = LEAST(band, o1 - top);                                   \
    const int source = multiplier == 1 ? first : first / multiplier;                               \
    if (source * bands + number != held)                                                           \
        spread(grid, x + source * i1 * i2, i1, i2, S2, top * s1 - p1,                              \
               (rows - 1) * s1 + (K1 - 1) * d1 + 1, p2, sheet, bands > 1, 0);                      \
    held = source * bands + number;                                                                \
    const int base = first * o1 * o2 + top * o2

#if WALK
/* Down the rows of a column of vectors: each element of x is read once for three rows of y. */
#define LOAD_ROW(row)                                                                              \
    const vec x0 = *(__global const vec *)(from + (row) * pitch);                                  \
    const vec x1 = *(__global const vec *)(from + (row) * pitch + 1);                              \
    const vec x2 = *(__global const vec *)(from + (row) * pitch + 2)
#define SUM(c, a, b, d) (c + w##a * x0 + w##b * x1 + w##d * x2)
#define WEIGHT(t) const vec w##t = (vec)(ACC)(reverse ? weights[TAPS - 1 - t] : weights[t]);

__kernel ALONE void depthwise_walk(ARGUMENTS)
{
    FIND_SHARE;
    for (int task = begin; task < end; ++task) {
        FIND_TASK;
        const vec start = (vec)(has_bias ? (ACC)bias[channel] : (ACC)0);
        __global const T *weights = w + channel * TAPS;
        WEIGHT(0) WEIGHT(1) WEIGHT(2) WEIGHT(3) WEIGHT(4) WEIGHT(5) WEIGHT(6) WEIGHT(7) WEIGHT(8)
        for (int col = 0;; col = LEAST(col + V, last_col)) {
            __global const ACC *from = grid + col;
            vec c0, c1;
            {
                LOAD_ROW(0);
                c0 = SUM(start, 0, 1, 2);
            }
            {
                LOAD_ROW(1);
                c0 = SUM(c0, 3, 4, 5);
                c1 = SUM(start, 0, 1, 2);
            }
            for (int row = 0; row < rows; ++row) {
                LOAD_ROW(row + 2);
                const int to = base + row * o2 + col;
                put_result(y, to, SUM(c0, 6, 7, 8), limit - to FINISH_ARGUMENTS);
                c0 = SUM(c1, 3, 4, 5);
                c1 = SUM(start, 0, 1, 2);
            }
            if (col == last_col) break;
        }
        NEXT_TASK
    }
}
#else
#if MORE == 4
#define CHUNKS 3 /* vectors along rows in work */
#define EACH_CHUNK(F) F(0) F(1) F(2)
#define EACH_CHANNEL(F, j) F(j, 0) F(j, 1) F(j, 2) F(j, 3)
#define EACH_WEIGHT(F) F(0) F(1) F(2) F(3)
#elif MORE == 2
#define CHUNKS 4
#define EACH_CHUNK(F) F(0) F(1) F(2) F(3)
#define EACH_CHANNEL(F, j) F(j, 0) F(j, 1)
#define EACH_WEIGHT(F) F(0) F(1)
#else
#define CHUNKS 4
#define EACH_CHUNK(F) F(0) F(1) F(2) F(3)
#define EACH_CHANNEL(F, j) F(j, 0)
#define EACH_WEIGHT(F) F(0)
#endif
#if TAPS <= 25
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

/* The place of chunk j; past the last one it is the last one again. */
#define PLACE(j)                                                                                   \
    __global const ACC *from##j = grid + row * s1 * pitch + col;                                   \
    const int to##j = base + row * o2 + col;                                                       \
    if (col < last_col)                                                                            \
        col = LEAST(col + V, last_col);                                                              \
    else if (row + 1 < rows) {                                                                     \
        col = 0;                                                                                   \
        ++row;                                                                                     \
    }
#define START1(j, m) vec c##j##_##m = (vec)(has_bias ? (ACC)bias[channel + m] : (ACC)0);
#define ADD1(j, m) c##j##_##m += w##m * x##j;
#define KEEP1(j, m)                                                                                \
    put_result(y, to##j + m * o1 * o2, c##j##_##m, MORE > 1 ? V : limit - to##j FINISH_ARGUMENTS);
#define START(j) EACH_CHANNEL(START1, j)
#define ADD(j)                                                                                     \
    const vec x##j = *(__global const vec *)(from##j + at);                                        \
    EACH_CHANNEL(ADD1, j)
#define KEEP(j) EACH_CHANNEL(KEEP1, j)
#define WEIGHT(m) const vec w##m = (vec)taps[m * TAPS + t1 * K2 + t2];

__kernel ALONE void depthwise(ARGUMENTS)
{
    FIND_SHARE;
    __global ACC *taps = grid + grid_size;
    const int chunks = ((last_col + V - 1) / V + 1);
    for (int task = begin; task < end; ++task) {
        FIND_TASK;
        __global const T *weights = w + channel * TAPS;
        for (int m = 0; m < MORE; ++m)
            for (int t = 0; t < TAPS; ++t)
                taps[m * TAPS + t] = (ACC)weights[m * TAPS + (reverse ? TAPS - 1 - t : t)];
        int row = 0, col = 0;
        for (int chunk = 0; chunk < rows * chunks; chunk += CHUNKS) {
            EACH_CHUNK(PLACE)
            EACH_CHUNK(START)
            UNROLL for (int t1 = 0; t1 < K1; ++t1)
                UNROLL for (int t2 = 0; t2 < K2; ++t2) {
                    const int at = t1 * d1 * pitch + t2 * D2 % S2 * sheet + t2 * D2 / S2;
                    EACH_WEIGHT(WEIGHT)
                    EACH_CHUNK(ADD)
                }
            EACH_CHUNK(KEEP)
        }
        NEXT_TASK
    }
}
#endif
