/* The gradient of a depthwise convolution's input where it has a stride of 1 or 2 along columns.
 * Layout: x (planes of i1 x i2) is the gradient of the result, w (channels, K1, K2), y (planes of
 * o1 x o2) the gradient of the input:
 *     y[o] = sum over taps t with (o + p - t * d) divisible by s of w[t] * x[(o + p - t * d) / s].
 * Even and odd columns read taps of their own; they are summed as two vectors and stored interleaved.
 * Geometry, tasks and grids as in depthwise.cl; bands are multiples of S1 rows. */

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
#ifndef D1
#define D1 1 /* dilation along rows */
#endif
#ifndef D2
#define D2 1 /* dilation along columns */
#endif
#ifndef P2
#define P2 1 /* padding along columns, modulo S2 */
#endif

#include "plane.cl"

#define TAPS (K1 * K2)
#if TAPS <= 25
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

/* Adds what tap t2 gives to columns of phase b. */
#define ADD(c, b)                                                                                  \
    if ((b + P2 + t2 * D2) % S2 == 0)                                                              \
        c += weight * *(__global const vec *)(from + (b + P2 - t2 * D2) / S2);

/* lift: the grid's first row minus the band's first row / S1; centre: where the grid holds what
 * column 0 reads through tap 0 (but for P2); margin: zeros on the left of a row. */
__kernel ALONE void depthwise_back(
    __global const T *x, __global const T *w, __global T *y, __global ACC *slots, const int tasks,
    const int bands, const int band, const int channels, const int slot_size, const int grid_size,
    const int i1, const int i2, const int o1, const int o2, const int p1, const int grid_rows,
    const int pitch, const int lift, const int centre, const int margin)
{
    const int slot = get_global_id(0), count = get_global_size(0);
    const int end = SHARE(slot + 1, count), last_col = MOST(o2 - S2 * V + S2 - 1, 0) / S2 * S2;
    const int limit = end / bands * o1 * o2 + end % bands * band * o2;
    __global ACC *grid = slots + slot * slot_size;
    fill(grid, grid_size, 0);
    int task = SHARE(slot, count), plane = task / bands, number = task % bands;
    int channel = plane % channels;
    for (; task < end; ++task) {
        const int top = number * band, rows = LEAST(band, o1 - top);
        const int first = top / S1 + lift, base = plane * o1 * o2;
        __global const T *weights = w + channel * TAPS;
        spread(grid, x + plane * i1 * i2, i1, i2, 1, first, grid_rows, margin, pitch, bands > 1, 0);
        for (int row = top; row < top + rows; ++row)
            for (int col = 0;; col = LEAST(col + S2 * V, last_col)) {
                vec even = 0, odd = 0;
                UNROLL for (int t1 = 0; t1 < K1; ++t1) {
                    const int z = row + p1 - t1 * D1;
                    if (z % S1 == 0) {
                        __global const ACC *from =
                            grid + (z / S1 - first) * pitch + centre + col / S2;
                        UNROLL for (int t2 = 0; t2 < K2; ++t2) {
                            const vec weight = (vec)(ACC)weights[t1 * K2 + t2];
                            ADD(even, 0)
#if S2 == 2
                            ADD(odd, 1)
#endif
                        }
                    }
                }
                const int to = base + row * o2 + col;
#if S2 == 2
                vec low, high;
                low.even = even.lo;
                low.odd = odd.lo;
                high.even = even.hi;
                high.odd = odd.hi;
                put(y + to, low, limit - to);
                if (col + V < o2) put(y + to + V, high, limit - to - V);
#else
                put(y + to, even, limit - to);
#endif
                if (col == last_col) break;
            }
        /* Counted: for small planes divisions cost much. */
        if (++number == bands) {
            number = 0;
            ++plane;
            if (++channel == channels) channel = 0;
        }
    }
}
