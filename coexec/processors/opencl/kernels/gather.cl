/* Columns of a convolution's input, gathered into a panel: included by packed.cl and dots.cl.
 *
 * A column is a position (image, o0, o1, o2) of the result, a row a channel and a tap (t0, t1, t2)
 * of the window. Element (row, column) is x[image, channel, o * s - p + t * d], zero outside x
 * (extents i0, i1, i2). Panels are [row][column], type ACC, `stride` elements between rows.
 * No kernel stands here; who includes it chooses how many columns lie side by side. */

#ifndef MASK
#define MASK int /* integer type as wide as ACC */
#endif

#include "alone.cl"

typedef JOIN(ACC, V) vec;
typedef JOIN(MASK, V) mask;

/* vloadn is a call on some runtimes. */
#define LOAD(p) WIDEN(*(__global const stored *)(p))
#define STORE(p, v) (*(__global stored *)(p) = NARROW(v))
#define AS_(type, v) as_##type(v)
#define AS(type, v) AS_(type, v)
#define KEEP(v, m) AS(JOIN(ACC, V), AS(JOIN(MASK, V), v) & (m))
#define MERGE(a, m, b, n) \
    AS(JOIN(ACC, V), (AS(JOIN(MASK, V), a) & (m)) | (AS(JOIN(MASK, V), b) & (n)))

/* Rows of a register tile: F for each of the first four. */
#define ROWS_4(F) F(0) F(1) F(2) F(3)

#define WINDOW                                                                                     \
    const int i0, const int i1, const int i2, const int o0, const int o1, const int o2,            \
        const int k0, const int k1, const int k2, const int s0, const int s1, const int s2,        \
        const int p0, const int p1, const int p2, const int d0, const int d1, const int d2
#define WINDOW_VALUES i0, i1, i2, o0, o1, o2, k0, k1, k2, s0, s1, s2, p0, p1, p2, d0, d1, d2

/* V elements of x from p on, or every other one of twice as many. */
inline vec load_run(__global const T *p, const int step)
{
    const vec near = LOAD(p);
    if (step == 1) return near;
    const vec far = LOAD(p + V);
    return (vec)(near.even, far.even);
}

/* Gather V columns from `column` on, `count` channels from `channel` on, all taps. Lanes of one tap
 * mostly lie in one or two runs of x, contiguous or of every other element: then two masked vector
 * loads (or pairs of loads) per channel do. */
inline void gather(__global const T *x, __global ACC *panel, const int stride, const int column,
                   const int columns, const int x_size, const int x_image, const int x_channel,
                   const int channel, const int count, WINDOW)
{
    int at[V], z0[V], z1[V], z2[V], from[V];
    int c2 = column % o2, c1 = column / o2 % o1, c0 = column / (o2 * o1) % o0;
    int image = column / (o2 * o1 * o0);
#pragma unroll 1
    for (int j = 0; j < V; ++j) {
        at[j] = image * x_image + channel * x_channel;
        z0[j] = c0 * s0 - p0;
        z1[j] = c1 * s1 - p1;
        z2[j] = column + j < columns ? c2 * s2 - p2 : -0x40000000;
        if (++c2 == o2) {
            c2 = 0;
            if (++c1 == o1) {
                c1 = 0;
                if (++c0 == o0) c0 = 0, ++image;
            }
        }
    }
    const int taps = k0 * k1 * k2;
    const int last = (count - 1) * x_channel + V * s2;
    for (int t = 0; t < taps; ++t) {
        const int t0 = t / (k1 * k2) * d0, t1 = t / k2 % k1 * d1, t2 = t % k2 * d2;
        for (int j = 0; j < V; ++j) {
            const int x0 = z0[j] + t0, x1 = z1[j] + t1, x2 = z2[j] + t2;
            const int inside =
                (x0 >= 0) & (x0 < i0) & (x1 >= 0) & (x1 < i1) & (x2 >= 0) & (x2 < i2);
            from[j] = inside ? at[j] + (x0 * i1 + x1) * i2 + x2 : -1;
        }
        /* Two runs: lane j of run r is x[run_r + j * s2]. A run may lie before x: unusable then. */
        int run_a = 0, run_b = 0, found = s2 > 2 ? 3 : 0;
        union { mask all; MASK each[V]; } in_a, in_b;
#pragma unroll 1
        for (int j = 0; j < V; ++j) {
            const int run = from[j] - j * s2;
            in_a.each[j] = in_b.each[j] = 0;
            if (from[j] < 0) continue;
            if (found == 0) run_a = run_b = run, found = 1;
            if (run == run_a) in_a.each[j] = -1;
            else if (found == 1) run_b = run, found = 2, in_b.each[j] = -1;
            else if (run == run_b) in_b.each[j] = -1;
            else found = 3;
        }
        __global ACC *to = panel + t * stride;
        const int low = min(run_a, run_b), high = max(run_a, run_b);
        if (found == 3 || low < 0 || high + last > x_size) {
            for (int c = 0; c < count; ++c)
#pragma unroll 4
                for (int j = 0; j < V; ++j)
                    to[c * taps * stride + j] =
                        from[j] < 0 ? (ACC)0 : (ACC)x[from[j] + c * x_channel];
        } else if (found == 2) {
            const mask keep_a = in_a.all, keep_b = in_b.all;
            for (int c = 0; c < count; ++c) {
                const vec a = load_run(x + run_a + c * x_channel, s2);
                const vec b = load_run(x + run_b + c * x_channel, s2);
                *(__global vec *)(to + c * taps * stride) = MERGE(a, keep_a, b, keep_b);
            }
        } else {
            const mask keep = in_a.all;
            for (int c = 0; c < count; ++c)
                *(__global vec *)(to + c * taps * stride) =
                    KEEP(load_run(x + run_a + c * x_channel, s2), keep);
        }
    }
}
