/* The gradient of a depthwise convolution's weights.
 * Layout: x (images, channels / multiplier, i1, i2), y (images, channels, o1, o2), the gradient of
 * the result, w (channels, taps); channel m reads channel m / multiplier of x:
 *     w[m, t] = sum over images and o of y[m, o] * x[o * s - p + t * d], zero outside x.
 *
 * A work-item has a share of the tasks, MORE channels each. It spreads bands of planes over grids
 * (see plane.cl), unless vectors fit them where they are, and sums products of rows for GROUP taps at
 * once. Rows of y are filled up with zeros to whole vectors. Small planes are done for `together`
 * tasks image by image, so that memory is read in long runs.
 * BITS: defined where x is there as blocks of codes (compress.cl): each plane is expanded, to
 * `window_at` of the slot.
 * Geometry: one work-item per slot of scratch, work-groups of one. */

#ifndef GROUP
#define GROUP 9 /* taps in work: 3, 5 or 9 */
#endif
#ifndef MORE
#define MORE 1 /* channels in work: 1, or 2 with 5 taps */
#endif
#ifndef S2
#define S2 1 /* stride along columns */
#endif

#include "plane.cl"

#ifdef BITS
#include "blocks.cl"
#include "block_vectors.cl"
#define X_ARGUMENT __global const uint *words, __global const E *ends, const int window_at,
#else
#define X_ARGUMENT __global const T *x,
#endif

#if GROUP == 9
#define EACH_TAP(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8)
#elif GROUP == 5
#define EACH_TAP(F) F(0) F(1) F(2) F(3) F(4)
#else
#define EACH_TAP(F) F(0) F(1) F(2)
#endif

#define POINT(j) __global const ACC *from##j = left + at[LEAST(t + j, taps - 1)];
#define START(j) vec c##j = 0, e##j = 0;
#if MORE == 2
#define ADD(j)                                                                                     \
    {                                                                                              \
        const vec v = *(__global const vec *)(from##j + f);                                        \
        c##j += y0 * v;                                                                            \
        e##j += y1 * v;                                                                            \
    }
#define KEEP(j)                                                                                    \
    if (t + j < taps) {                                                                            \
        *(__global vec *)(sums + (t + j) * V) += c##j;                                             \
        *(__global vec *)(sums + (taps + t + j) * V) += e##j;                                      \
    }
#else
#define ADD(j) c##j += y0 * *(__global const vec *)(from##j + f);
#define KEEP(j)                                                                                    \
    if (t + j < taps) *(__global vec *)(sums + (t + j) * V) += c##j;
#endif

INLINE ACC sum_lanes(__global const ACC *lanes)
{
    ACC half_sums[V / 2];
    for (int i = 0; i < V / 2; ++i) half_sums[i] = lanes[i] + lanes[i + V / 2];
    ACC sum = 0;
    for (int i = 0; i < V / 2; ++i) sum += half_sums[i];
    return sum;
}

__kernel ALONE void depthwise_weight(
    X_ARGUMENT __global const T *y, __global T *w, __global ACC *slots, const int images,
    const int tasks, const int bands, const int band, const int channels, const int multiplier,
    const int slot_size, const int grid_size, const int right_size, const int i1, const int i2,
    const int o1, const int o2, const int k1, const int k2, const int s1, const int p1,
    const int p2, const int d1, const int d2, const int sheet, const int y_pitch,
    const int x_stays, const int y_stays, const int together)
{
    const int slot = get_global_id(0), count = get_global_size(0), taps = k1 * k2;
    const int end = SHARE(slot + 1, count), pitch = x_stays ? i2 : S2 * sheet;
    __global ACC *grid = slots + slot * slot_size;
    __global ACC *right = grid + grid_size;
    __global ACC *base = right + MORE * right_size;
    __global int *at = (__global int *)(base + together * MORE * taps * V);
    for (int t = 0; t < taps; ++t)
        at[t] = t / k2 * d1 * pitch + t % k2 * d2 % S2 * sheet + t % k2 * d2 / S2;
    fill(grid, grid_size + MORE * right_size, 0);
    for (int start = SHARE(slot, count); start < end; start += together) {
        const int now = LEAST(together, end - start);
        fill(base, now * MORE * taps * V, 0);
        /* Counted, one after the other: for small planes divisions cost much. */
        int image = 0, number = 0, own = 0;
        for (int step = 0; step < images * bands * now; ++step) {
            const int channel = (start + own) * MORE, top = number * band;
            const int rows = LEAST(band, o1 - top);
            const int out_plane = image * channels + channel;
            const int source = multiplier == 1 ? out_plane : out_plane / multiplier;
            __global ACC *sums = base + own * MORE * taps * V;
#ifdef BITS
            const int from = source * i1 * i2;
            __global const T *plane = grid + window_at + from % BLOCK;
            if (number == 0) expand_run(words, ends, grid + window_at, from, i1 * i2);
#else
            __global const T *plane = x + source * i1 * i2;
#endif
            __global const T *result = y + out_plane * o1 * o2 + top * o2;
            __global const ACC *left = grid, *right0 = right;
            int apart = right_size;
#if SAME
            if (x_stays) left = plane + top * s1 * i2;
            if (y_stays) {
                right0 = result;
                apart = o1 * o2;
            }
#endif
            if (left == grid)
                spread(grid, plane, i1, i2, S2, top * s1 - p1,
                       (rows - 1) * s1 + (k1 - 1) * d1 + 1, p2, sheet, bands > 1, 0);
            if (right0 == right)
                for (int m = 0; m < MORE; ++m)
                    for (int row = 0; row < rows; ++row)
                        copy_run(right + m * right_size + row * y_pitch,
                                 result + m * o1 * o2 + row * o2, o2);
            for (int t = 0; t < taps; t += GROUP) {
                EACH_TAP(POINT)
                EACH_TAP(START)
                for (int row = 0; row < rows; ++row) {
                    __global const ACC *to = right0 + row * y_pitch;
                    for (int col = 0; col < o2; col += V) {
                        const int f = row * s1 * pitch + col;
                        const vec y0 = *(__global const vec *)(to + col);
#if MORE == 2
                        const vec y1 = *(__global const vec *)(to + apart + col);
#endif
                        EACH_TAP(ADD)
                    }
                }
                EACH_TAP(KEEP)
            }
            if (++own < now) continue;
            own = 0;
            if (++number < bands) continue;
            number = 0;
            ++image;
        }
        for (int t = 0; t < now * MORE * taps; ++t)
            w[start * MORE * taps + t] = (T)sum_lanes(base + t * V);
    }
}
