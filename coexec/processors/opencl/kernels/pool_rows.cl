/* Pooling along rows: windows of up to two axes without dilation, strides of 1 or 2 along columns.
 * Layout: x (planes, i1, i2), y (planes, o1, o2); output o reads x[o * s - p + t], t < (K1, K2).
 * pool_rows is the maximum or the average of windows; pool_rows_grad gives the gradient of x from
 * that of y (and, for maxima, from x): which tap of each window is its first maximum, then for every
 * element of x the windows in which it is that tap.
 *
 * A work-item has a share of the tasks, in order: bands of `band` rows of a plane of the result. It
 * spreads the rows that a band reads over a grid (see plane.cl) and works on vectors along rows.
 * Where a row of the result is shorter than a vector, lanes beyond it spill into the next rows, which
 * are written later; only past the item's share they are held back.
 * Geometry: one work-item per slot of scratch, work-groups of one. */

#ifndef GRAD
#define GRAD 0 /* 1: the gradient */
#endif
#ifndef MAXIMUM
#define MAXIMUM 1 /* 1: maxima, 0: averages */
#endif
#ifndef PADDED
#define PADDED 1 /* some taps may fall outside of x */
#endif
#ifndef INCLUDE_PAD
#define INCLUDE_PAD 0 /* averages: padding counts as elements */
#endif
#ifndef LOWEST
#define LOWEST (-INFINITY) /* what every element is at least */
#endif
#ifndef I
#define I int /* integer as wide as ACC */
#endif
#ifndef K1
#define K1 3 /* taps along rows' axis */
#endif
#ifndef K2
#define K2 3 /* taps along columns' axis */
#endif
#ifndef S1
#define S1 2 /* stride along rows */
#endif
#ifndef S2
#define S2 2 /* stride along columns: 1 or 2 */
#endif
#ifndef P2
#define P2 1 /* padding along columns, modulo S2 */
#endif

#include "plane.cl"

typedef JOIN(I, V) places __attribute__((aligned(sizeof(I))));

#define UNROLL _Pragma("unroll")
#define AT(t1, t2) ((t1) * pitch + (t2) % S2 * sheet + (t2) / S2)
#define OUTSIDE (MAXIMUM ? (ACC)LOWEST : (ACC)0)

/* Elements of window o along an axis for an average. */
INLINE int count_taps(const int o, const int taps, const int stride, const int pad, const int in,
                      const int end)
{
    int count = 0;
    for (int t = 0; t < taps; ++t) {
        const int p = o * stride - pad + t;
        count += INCLUDE_PAD ? p < in + end : p >= 0 && p < in;
    }
    return count;
}

/* First tap of window o along an axis that lies inside. */
INLINE int first_tap(const int o, const int stride, const int pad)
{
    return MOST(pad - o * stride, 0);
}

#define SIZES                                                                                      \
    const int tasks, const int bands, const int band, const int slot_size, const int grid_size,    \
        const int i1, const int i2, const int o1, const int o2, const int p1, const int p2,        \
        const int e1, const int e2, const int sheet

#if !GRAD
__kernel ALONE void pool_rows(__global const T *x, __global T *y, __global ACC *slots, SIZES)
{
    const int slot = get_global_id(0), count = get_global_size(0);
    const int begin = SHARE(slot, count), end = SHARE(slot + 1, count);
    const int last_col = MOST(o2 - V, 0), pitch = S2 * sheet;
    const int limit = end / bands * o1 * o2 + end % bands * band * o2;
    __global ACC *grid = slots + slot * slot_size;
    __global ACC *counts = grid + grid_size;
    fill(grid, grid_size, OUTSIDE);
    for (int o = 0; o < o2; ++o) counts[o] = (ACC)count_taps(o, K2, S2, p2, i2, e2);
    for (int task = begin; task < end; ++task) {
        const int plane = task / bands, top = task % bands * band, rows = LEAST(band, o1 - top);
        spread(grid, x + plane * i1 * i2, i1, i2, S2, top * S1 - p1, (rows - 1) * S1 + K1, p2,
               sheet, bands > 1, OUTSIDE);
        for (int row = 0; row < rows; ++row) {
            const ACC row_count = (ACC)count_taps(top + row, K1, S1, p1, i1, e1);
            for (int col = 0;; col = LEAST(col + V, last_col)) {
                __global const ACC *from = grid + row * S1 * pitch + col;
                vec sum = *(__global const vec *)from;
#if MAXIMUM
                places lost = sum != sum;
#endif
                UNROLL for (int t = 1; t < K1 * K2; ++t) {
                    const vec v = *(__global const vec *)(from + AT(t / K2, t % K2));
#if MAXIMUM
                    sum = v > sum ? v : sum;
                    lost |= v != v;
#else
                    sum += v;
#endif
                }
#if MAXIMUM
                sum = lost ? (vec)NAN : sum; /* A NaN is never lost. */
#elif PADDED
                const vec elements = row_count * *(__global const vec *)(counts + col);
                sum /= elements > 1 ? elements : (vec)1;
#else
                sum /= (ACC)(K1 * K2);
#endif
                const int to = (plane * o1 + top + row) * o2 + col;
                put(y + to, sum, limit - to);
                if (col == last_col) break;
            }
        }
    }
}
#else
#if MAXIMUM
#define SOURCE __global const T *x,
#define FLOW(t, from)                                                                              \
    (*(__global const places *)(taps + (from)) == (t) ? *(__global const vec *)(flow + (from))    \
                                                      : (vec)0)
#else
#define SOURCE
#define FLOW(t, from) (*(__global const vec *)(flow + (from)))
#endif
/* Adds what columns of phase b receive through tap (t1, t2). */
#define ADD(c, b)                                                                                  \
    if ((b + P2 + t2) % S2 == 0) c += FLOW(t1 * K2 + t2, from + (b + P2 - t2) / S2);

/* The grid of flow holds the gradients of windows from first on, `width` to a row with a margin
 * of zeros on their left. lift: its first row minus the band's first row / S1; centre: where it
 * holds the window of column 0 and tap 0 (but for P2). The grid of taps is alike. */
__kernel ALONE void pool_rows_grad(SOURCE __global const T *y, __global T *result,
                                   __global ACC *slots, SIZES, const int flow_rows,
                                   const int width, const int lift, const int centre,
                                   const int margin)
{
    const int slot = get_global_id(0), count = get_global_size(0);
    const int begin = SHARE(slot, count), end = SHARE(slot + 1, count);
    const int last_col = MOST(i2 - S2 * V + S2 - 1, 0) / S2 * S2, pitch = S2 * sheet;
    const int last_window = MOST(o2 - V, 0), flow_size = flow_rows * width + 2 * V;
    const int limit = end / bands * i1 * i2 + end % bands * band * i2;
    __global ACC *grid = slots + slot * slot_size;
    __global ACC *flow = grid + grid_size;
    __global I *taps = (__global I *)(flow + flow_size);
    __global ACC *counts = (__global ACC *)(taps + flow_size);
    __global I *firsts = (__global I *)counts;
    fill(grid, grid_size, OUTSIDE);
    fill(flow, flow_size, 0);
    for (int o = 0; o < o2 + V; ++o)
#if MAXIMUM
        firsts[o] = first_tap(o, S2, p2);
#else
        counts[o] = o < o2 ? (ACC)count_taps(o, K2, S2, p2, i2, e2) : (ACC)0;
#endif
    for (int task = begin; task < end; ++task) {
        const int plane = task / bands, top = task % bands * band, rows = LEAST(band, i1 - top);
        const int first = top / S1 + lift;
        const int low = MOST(first, 0), high = LEAST(first + flow_rows, o1);
        spread(flow, y + plane * o1 * o2, o1, o2, 1, first, flow_rows, margin, width, bands > 1,
               0);
#if MAXIMUM
        spread(grid, x + plane * i1 * i2, i1, i2, S2, low * S1 - p1, (high - low - 1) * S1 + K1,
               p2, sheet, bands > 1, OUTSIDE);
#endif
        for (int o = low; o < high; ++o) {
            const int row = (o - first) * width + margin;
#if MAXIMUM
            const places start = (places)(I)(first_tap(o, S1, p1) * K2);
#else
            const ACC row_count = (ACC)count_taps(o, K1, S1, p1, i1, e1);
#endif
            for (int col = 0; col < o2; col += V) {
#if MAXIMUM
                __global const ACC *from =
                    grid + (o - low) * S1 * pitch + LEAST(col, last_window);
                vec best = (vec)LOWEST;
                places tap = start + *(__global const places *)(firsts + LEAST(col, last_window));
                UNROLL for (int t = 0; t < K1 * K2; ++t) {
                    const vec v = *(__global const vec *)(from + AT(t / K2, t % K2));
                    const places better = (v > best) | (v != v);
                    best = better ? v : best;
                    tap = better ? (places)t : tap;
                }
                *(__global places *)(taps + row + LEAST(col, last_window)) = tap;
#else
                /* Past the end of the row counts are 0: what stands there is left as it is. */
                const vec elements = row_count * *(__global const vec *)(counts + col);
                __global vec *at = (__global vec *)(flow + row + col);
                *at /= elements > 1 ? elements : (vec)1;
#endif
            }
        }
        for (int row = top; row < top + rows; ++row)
            for (int col = 0;; col = LEAST(col + S2 * V, last_col)) {
                vec even = 0, odd = 0;
                UNROLL for (int t1 = 0; t1 < K1; ++t1) {
                    const int z = row + p1 - t1;
                    if (z % S1 == 0) {
                        const int from = (z / S1 - first) * width + centre + col / S2;
                        UNROLL for (int t2 = 0; t2 < K2; ++t2) {
                            ADD(even, 0)
#if S2 == 2
                            ADD(odd, 1)
#endif
                        }
                    }
                }
                const int to = (plane * i1 + row) * i2 + col;
#if S2 == 2
                vec left, right;
                left.even = even.lo;
                left.odd = odd.lo;
                right.even = even.hi;
                right.odd = odd.hi;
                put(result + to, left, limit - to);
                if (col + V < i2) put(result + to + V, right, limit - to - V);
#else
                put(result + to, even, limit - to);
#endif
                if (col == last_col) break;
            }
    }
}
#endif
