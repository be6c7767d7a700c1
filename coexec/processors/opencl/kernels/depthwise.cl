/* Convolutions in which every channel of the result reads one channel of x, two spatial axes.
 * Layout: x (images, x_channels, i1, i2); result (images, channels, w1, w2), of which the positions
 * (o * q + u) are written, o < (o1, o2); channel m reads channel m / multiplier of x:
 *     y[m, o] = bias[m] + sum over taps of w[m, t] * x[o * s - p + t * d], zero outside x,
 * where w[m, t] lies at m * w_channel + w_base + t1 * w_1 + t2 * w_2 (taps may run backwards).
 * depthwise_weight is its gradient:
 *     w[m, t] = sum over images and o of y[m, o] * x[o * s - p + t * d].
 *
 * A work-item owns a slot. It spreads a plane of x over a grid there: padded, and with rows and
 * columns sorted by their remainder modulo the stride, so that for a given tap all positions of the
 * result, row after row with the grid's pitch h2, read consecutive elements. Vectors then run over
 * rows regardless of the plane's width; what they compute between rows is dropped (depthwise) or
 * multiplied by zero (depthwise_weight).
 * Geometry: one work-item per slot, work-groups of one; tasks are divided evenly, in order. */

#ifndef WEIGHT
#define WEIGHT 0 /* 1: the gradient of the weights instead */
#endif

#include "alone.cl"

typedef fetched vec;

#define CHUNKS 4              /* vectors in work: as many sums hide the latency of a multiply-add */
#define GROUP 5               /* taps in work in depthwise_weight */
#define SLACK ((CHUNKS + 1) * V) /* elements past a grid that vectors may touch */

inline void widen(__global ACC *to, __global const T *from, const int count)
{
    int i = 0;
    for (; i + V <= count; i += V)
        *(__global vec *)(to + i) = WIDEN(*(__global const stored *)(from + i));
    for (; i < count; ++i) to[i] = (ACC)from[i];
}

inline void narrow(__global T *to, __global const ACC *from, const int count)
{
    int i = 0;
    for (; i + V <= count; i += V)
        *(__global stored *)(to + i) = NARROW(*(__global const vec *)(from + i));
    for (; i < count; ++i) to[i] = (T)from[i];
}

inline void clear(__global ACC *to, const int count)
{
    for (int i = 0; i < count; ++i) to[i] = 0;
}

/* A plane of x on a grid of s1 * s2 sheets of h1 rows with pitch h2; margins stay as they are. */
inline void spread(__global ACC *grid, __global const T *x, const int i1, const int i2,
                   const int s1, const int s2, const int p1, const int p2, const int h1,
                   const int h2)
{
    const int first = max(0, -p2), last = min(i2, h2 * s2 - p2);
    for (int row = max(0, -p1); row < i1 && row + p1 < h1 * s1; ++row) {
        __global ACC *to = grid + (row + p1) % s1 * s2 * h1 * h2 + (row + p1) / s1 * h2;
        __global const T *from = x + row * i2;
        if (s2 == 1)
            widen(to + first + p2, from + first, last - first);
        else
            for (int sheet = 0; sheet < s2; ++sheet, to += h1 * h2) {
                /* The first column from `first` on whose remainder is `sheet`. */
                const int c = first + (sheet - (first + p2) % s2 + s2) % s2;
                __global ACC *t = to + (c + p2) / s2;
                for (int j = c; j < last; j += s2) *t++ = (ACC)from[j];
            }
    }
}

/* Where the element that each tap adds to result 0 lies on the grid. */
inline void find_taps(__global int *at, const int k1, const int k2, const int s1, const int s2,
                      const int d1, const int d2, const int h1, const int h2)
{
    for (int t = 0; t < k1 * k2; ++t) {
        const int r = t / k2 * d1, c = t % k2 * d2;
        at[t] = (r % s1 * s2 + c % s2) * h1 * h2 + r / s1 * h2 + c / s2;
    }
}

#define WINDOW                                                                                     \
    const int i1, const int i2, const int o1, const int o2, const int k1, const int k2,            \
        const int s1, const int s2, const int p1, const int p2, const int d1, const int d2,        \
        const int h1, const int h2

#if !WEIGHT
#define EACH_CHUNK(F) F(0) F(1) F(2) F(3)
#define START(j) vec c##j = (vec)start;
#define ADD(j) c##j += weight * *(__global const vec *)(from + j * V);
#define KEEP(j) *(__global vec *)(sums + f + j * V) = c##j;

__kernel ALONE void depthwise(
    __global const T *x, __global const T *w, __global const T *bias, __global T *y,
    __global ACC *slots, const int has_bias, const int tasks, const int channels,
    const int multiplier, const int slot_size, const int w_channel, const int w_base, const int w_1,
    const int w_2, const int w1, const int w2, const int q1, const int q2, const int u1,
    const int u2, WINDOW)
{
    const int x_channels = channels / multiplier, taps = k1 * k2;
    const int flat = (o1 - 1) * h2 + o2, grid_size = s1 * s2 * h1 * h2 + SLACK;
    const int slot = get_global_id(0), count = get_global_size(0);
    __global ACC *grid = slots + slot * slot_size;
    __global ACC *sums = grid + grid_size;
    __global int *at = (__global int *)(sums + o1 * h2 + SLACK);
    find_taps(at, k1, k2, s1, s2, d1, d2, h1, h2);
    clear(grid, grid_size);
    const int end = (int)((long)tasks * (slot + 1) / count);
    for (int task = (int)((long)tasks * slot / count); task < end; ++task) {
        const int image = task / channels, channel = task % channels;
        spread(grid, x + (image * x_channels + channel / multiplier) * i1 * i2, i1, i2, s1, s2, p1,
               p2, h1, h2);
        const ACC start = has_bias ? (ACC)bias[channel] : (ACC)0;
        __global const T *weights = w + channel * w_channel + w_base;
        for (int f = 0; f < flat; f += CHUNKS * V) {
            EACH_CHUNK(START)
            __global const int *tap = at;
            for (int t1 = 0; t1 < k1; ++t1)
                for (int t2 = 0; t2 < k2; ++t2) {
                    const ACC weight = (ACC)weights[t1 * w_1 + t2 * w_2];
                    __global const ACC *from = grid + f + *tap++;
                    EACH_CHUNK(ADD)
                }
            EACH_CHUNK(KEEP)
        }
        __global T *plane = y + task * w1 * w2 + u1 * w2 + u2;
        for (int row = 0; row < o1; ++row) {
            if (q2 == 1)
                narrow(plane + row * q1 * w2, sums + row * h2, o2);
            else
                for (int c = 0; c < o2; ++c)
                    plane[row * q1 * w2 + c * q2] = (T)sums[row * h2 + c];
        }
    }
}
#else
#define EACH_TAP(F) F(0) F(1) F(2) F(3) F(4)
#define POINT(j)                                                                                   \
    __global const ACC *from##j = grid + at[min(t + j, taps - 1)];                                 \
    vec c##j = 0;
#define ADD(j) c##j += e * *(__global const vec *)(from##j + f);
#define KEEP(j)                                                                                    \
    if (t + j < taps) {                                                                            \
        __global vec *sum = (__global vec *)(sums + (t + j) * V);                                  \
        *sum = image ? *sum + c##j : c##j;                                                         \
    }

__kernel ALONE void depthwise_weight(
    __global const T *x, __global const T *y, __global T *w, __global ACC *slots, const int images,
    const int tasks, const int multiplier, const int slot_size, WINDOW)
{
    const int channels = tasks, x_channels = channels / multiplier, taps = k1 * k2;
    const int flat = (o1 - 1) * h2 + o2, grid_size = s1 * s2 * h1 * h2 + SLACK;
    const int slot = get_global_id(0), count = get_global_size(0);
    __global ACC *grid = slots + slot * slot_size;
    __global ACC *right = grid + grid_size;
    __global ACC *sums = right + o1 * h2 + SLACK;
    __global int *at = (__global int *)(sums + taps * V);
    find_taps(at, k1, k2, s1, s2, d1, d2, h1, h2);
    clear(grid, grid_size + o1 * h2 + SLACK);
    const int end = (int)((long)tasks * (slot + 1) / count);
    for (int channel = (int)((long)tasks * slot / count); channel < end; ++channel) {
        clear(sums, taps * V);
        for (int image = 0; image < images; ++image) {
            spread(grid, x + (image * x_channels + channel / multiplier) * i1 * i2, i1, i2, s1, s2,
                   p1, p2, h1, h2);
            __global const T *plane = y + (image * channels + channel) * o1 * o2;
            for (int row = 0; row < o1; ++row) widen(right + row * h2, plane + row * o2, o2);
            for (int t = 0; t < taps; t += GROUP) {
                EACH_TAP(POINT)
                for (int f = 0; f < flat; f += V) {
                    const vec e = *(__global const vec *)(right + f);
                    EACH_TAP(ADD)
                }
                EACH_TAP(KEEP)
            }
        }
        for (int t = 0; t < taps; ++t) {
            ACC sum = 0;
            for (int j = 0; j < V; ++j) sum += sums[t * V + j];
            w[channel * taps + t] = (T)sum;
        }
    }
}
#endif
