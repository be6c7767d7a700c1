/* Convolutions of single channels and their gradients where planes are small: the lanes of a vector
 * are neighbouring channels.
 * Layout: x (images, channels, i1, i2), w (channels, taps), y (images, channels, o1, o2):
 *     y[m, o] = bias[m] + sum over taps of w[m, t] * x[m, o * s - p + t * d], zero outside x.
 * With negative d (and an origin that makes up for it) this is the gradient of x where s is 1.
 *
 * A work-item has a share of the groups of V channels, or of their images (group by group), in
 * order. It gathers planes of a group on a grid of vectors, one for each position of the padded x,
 * and a plane of vectors, one for each position of y. Where a group has fewer channels, its lanes
 * repeat the last one and are not stored. Results y are finished (epilogue.cl) before they are
 * stored.
 * slots: slot_size elements for each item: the grid, a plane, a vector and a number for each tap.
 * Geometry: one work-item per slot, work-groups of one. */

#ifndef WEIGHT_GRADIENT
#define WEIGHT_GRADIENT 0 /* 0: y of x and w; 1: w of x and y, for any taps */
#endif
#ifndef K1
#define K1 3 /* taps along rows' axis */
#endif
#ifndef K2
#define K2 3 /* taps along columns' axis */
#endif

#include "alone.cl"
#include "epilogue.cl"

#define INLINE static inline __attribute__((always_inline))
#define NOT_INLINE static __attribute__((noinline)) /* long, called often: programs build faster */
#define AT(p) (*(__global fetched *)(p))
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define SHARE(slot, count) ((int)((long)tasks * (slot) / (count)))
#define TAPS (K1 * K2)
#if TAPS <= 25
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

#define LANE(k) from[LEAST(k, now - 1) * apart]
#if V == 16
#define LANES                                                                                   \
    LANE(0), LANE(1), LANE(2), LANE(3), LANE(4), LANE(5), LANE(6), LANE(7), LANE(8), LANE(9),   \
        LANE(10), LANE(11), LANE(12), LANE(13), LANE(14), LANE(15)
#elif V == 8
#define LANES LANE(0), LANE(1), LANE(2), LANE(3), LANE(4), LANE(5), LANE(6), LANE(7)
#elif V == 4
#define LANES LANE(0), LANE(1), LANE(2), LANE(3)
#else
#define LANES LANE(0), LANE(1)
#endif

/* The lanes of v to places `apart` from each other. */
#define SPLIT4(a, b, c, d, k)                                                                   \
    to[k * apart] = v.a, to[(k + 1) * apart] = v.b;                                             \
    to[(k + 2) * apart] = v.c, to[(k + 3) * apart] = v.d
INLINE void split(__global ACC *to, const fetched v, const int apart)
{
#if V == 2
    to[0] = v.s0, to[apart] = v.s1;
#else
    SPLIT4(s0, s1, s2, s3, 0);
#endif
#if V >= 8
    SPLIT4(s4, s5, s6, s7, 4);
#endif
#if V == 16
    SPLIT4(s8, s9, sa, sb, 8);
    SPLIT4(sc, sd, se, sf, 12);
#endif
}

/* `rows` x `cols` elements of `now` channels, `apart` from each other, to vectors; `pitch` of them
 * from row to row. */
NOT_INLINE void gather(__global ACC *to, __global const T *from, const int now, const int apart,
                   const int rows, const int cols, const int pitch)
{
    for (int row = 0; row < rows; ++row, to += (pitch - cols) * V)
        for (int col = 0; col < cols; ++col, ++from, to += V) AT(to) = WIDEN((JOIN(T, V))(LANES));
}

INLINE void clear(__global ACC *to, const int vectors)
{
    for (int i = 0; i < vectors; ++i) AT(to + i * V) = 0;
}

#define ARGUMENTS                                                                               \
    __global ACC *slots, const int images, const int tasks, const int channels,                 \
        const int slot_size, const int grid_size, const int pitch, const int i1, const int i2,  \
        const int o1, const int o2, const int s1, const int s2, const int p1, const int p2,     \
        const int d1, const int d2, const int origin

#define FIND_SLOT                                                                               \
    const int slot = get_global_id(0), count = get_global_size(0), end = SHARE(slot + 1, count); \
    const int ins = i1 * i2, outs = o1 * o2;                                                    \
    __global ACC *grid = slots + slot * slot_size, *plane = grid + grid_size * V;               \
    __global ACC *taps = plane + outs * V, *inside = grid + (p1 * pitch + p2) * V

/* The group's channels; tasks are its images, one after the other. */
#define FIND_TASK                                                                               \
    const int channel = task / images * V, now = LEAST(V, channels - channel);                  \
    const int image = task % images, at = image * channels + channel;                           \
    if (task == begin || image == 0) gather(taps, w + channel * TAPS, now, TAPS, 1, TAPS, 0)

#define FOR_TAPS UNROLL for (int t1 = 0; t1 < K1; ++t1) UNROLL for (int t2 = 0; t2 < K2; ++t2)
#define TAP(from) ((from) + (t1 * d1 * pitch + t2 * d2) * V)
#define WEIGHT AT(taps + (t1 * K2 + t2) * V)

#if WEIGHT_GRADIENT == 0

__kernel ALONE void depthwise_lanes(__global const T *x, __global const T *w,
                                    __global const T *bias, __global T *y, const int has_bias,
                                    ARGUMENTS FINISH_PARAMETERS)
{
    FIND_SLOT;
    const int begin = SHARE(slot, count);
    clear(grid, grid_size);
    for (int task = begin; task < end; ++task) {
        FIND_TASK;
        fetched start = 0;
        if (has_bias) {
            __global const T *from = bias + channel;
            const int apart = 1;
            start = WIDEN((JOIN(T, V))(LANES));
        }
        gather(inside, x + at * ins, now, ins, i1, i2, pitch);
        for (int row = 0, to = 0; row < o1; ++row)
            for (int col = 0; col < o2; ++col, ++to) {
                __global const ACC *from = grid + (row * s1 * pitch + col * s2 + origin) * V;
                fetched sum = start;
                FOR_TAPS sum += WEIGHT * *(__global const fetched *)TAP(from);
                split(plane + to, sum, outs);
            }
        __global T *result = y + at * outs;
        int i = 0;
        for (; i + V <= now * outs; i += V)
            *(__global stored *)(result + i) = NARROW(FINISH(AT(plane + i), at * outs + i));
        for (; i < now * outs; ++i) result[i] = (T)FINISH_ONE(plane[i], at * outs + i);
    }
}

#else

#define EACH_TAP(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8)
#define GROUP 9 /* taps whose sums are in registers */
#define POINT(j) __global const ACC *from##j = grid + places[LEAST(t + j, count_taps - 1)];
#define START(j) fetched c##j = 0;
#define ADD(j) c##j += down * *(__global const fetched *)(from##j + f);
#define KEEP(j)                                                                                 \
    if (t + j < count_taps) AT(taps + (t + j) * V) += c##j;

__kernel ALONE void depthwise_lanes_weight(__global const T *x, __global const T *y,
                                           __global T *w, ARGUMENTS, const int k1, const int k2)
{
    FIND_SLOT;
    const int count_taps = k1 * k2;
    __global int *places = (__global int *)(taps + count_taps * V);
    for (int t = 0; t < count_taps; ++t) places[t] = (t / k2 * d1 * pitch + t % k2 * d2) * V;
    clear(grid, grid_size);
    for (int task = SHARE(slot, count); task < end; ++task) {
        const int channel = task * V, now = LEAST(V, channels - channel);
        clear(taps, count_taps);
        for (int image = 0, at = channel; image < images; ++image, at += channels) {
            gather(inside, x + at * ins, now, ins, i1, i2, pitch);
            gather(plane, y + at * outs, now, outs, 1, outs, 0);
            for (int t = 0; t < count_taps; t += GROUP) {
                EACH_TAP(POINT)
                EACH_TAP(START)
                for (int row = 0; row < o1; ++row)
                    for (int col = 0; col < o2; ++col) {
                        const int f = (row * s1 * pitch + col * s2) * V;
                        const fetched down = AT(plane + (row * o2 + col) * V);
                        EACH_TAP(ADD)
                    }
                EACH_TAP(KEEP)
            }
        }
        for (int lane = 0; lane < now; ++lane)
            for (int t = 0, to = (channel + lane) * count_taps; t < count_taps; ++t, ++to)
                w[to] = (T)taps[t * V + lane];
    }
}

#endif
