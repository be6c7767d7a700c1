/* Pooling with the window known to the compiler: taps unrolled, no division but by constants, no
 * branch that depends on the position. Layout and geometry as in pool.cl.
 *
 * The gradient of max_pool takes two kernels: which tap of each window is the maximum (one byte
 * an output), then for each input the windows in which it is that tap. */

#ifndef T
#define T float /* element type of x and y */
#endif
#ifndef ACC
#define ACC float /* type that sums are made in */
#endif
#ifndef LOWEST
#define LOWEST (-INFINITY) /* what every element is at least */
#endif
#ifndef PADDED
#define PADDED 0 /* some taps may fall outside of x */
#endif
#ifndef INCLUDE_PAD
#define INCLUDE_PAD 0 /* averages: padding counts as elements */
#endif
/* Window per axis: taps, stride, dilation, padding before. */
#ifndef KERNEL_D
#define KERNEL_D 1
#define STRIDE_D 1
#define DILATION_D 1
#define PAD_D 0
#endif
#ifndef KERNEL_H
#define KERNEL_H 2
#define STRIDE_H 2
#define DILATION_H 1
#define PAD_H 0
#endif
#ifndef KERNEL_W
#define KERNEL_W 2
#define STRIDE_W 2
#define DILATION_W 1
#define PAD_W 0
#endif

/* Input sizes, output sizes, padding after. */
#define SIZES                                                                                   \
    const int rows, const int in_d, const int in_h, const int in_w, const int out_d,            \
        const int out_h, const int out_w, const int end_d, const int end_h, const int end_w

#define LOCATE(size_d, size_h, size_w)                                                          \
    const int w = get_global_id(0);                                                             \
    const int row = get_global_id(1);                                                           \
    if (w >= (size_w) || row >= rows) return;                                                   \
    const int h = row % (size_h);                                                               \
    const int d = row / (size_h) % (size_d);                                                    \
    const int plane = row / (size_h) / (size_d)

#define FOR_TAPS                                                                                \
    _Pragma("unroll") for (int kd = 0; kd < KERNEL_D; ++kd)                                     \
    _Pragma("unroll") for (int kh = 0; kh < KERNEL_H; ++kh)                                     \
    _Pragma("unroll") for (int kw = 0; kw < KERNEL_W; ++kw)

/* Reads a tap, `otherwise` where it falls outside: a masked load at a place linear in w, so that
 * neighbouring items can be joined in vectors. */
#define READ_TAP(from, otherwise)                                                               \
    const int pd = d * STRIDE_D - PAD_D + kd * DILATION_D;                                      \
    const int ph = h * STRIDE_H - PAD_H + kh * DILATION_H;                                      \
    const int pw = w * STRIDE_W - PAD_W + kw * DILATION_W;                                      \
    const int inside = !PADDED || ((pd >= 0) & (pd < in_d) & (ph >= 0) & (ph < in_h) &          \
                                   (pw >= 0) & (pw < in_w));                                    \
    const T v = inside ? (from)[(pd * in_h + ph) * in_w + pw] : (T)(otherwise)

__kernel void max_pool(__global const T *x, __global T *y, SIZES)
{
    LOCATE(out_d, out_h, out_w);
    __global const T *from = x + plane * in_d * in_h * in_w;
    T best = LOWEST;
    FOR_TAPS
    {
        READ_TAP(from, LOWEST);
        /* A NaN is never lost. */
        best = ((v > best) | (v != v)) ? v : best;
    }
    y[row * out_w + w] = best;
}

/* Number of the tap that is the first maximum of each window; 255 where all are padding. */
__kernel void max_pool_taps(__global const T *x, __global uchar *taps, SIZES)
{
    LOCATE(out_d, out_h, out_w);
    __global const T *from = x + plane * in_d * in_h * in_w;
    T best = LOWEST;
    int tap = 255;
    FOR_TAPS
    {
        READ_TAP(from, LOWEST);
        const int better = inside & ((v > best) | (v != v) | (tap == 255));
        best = better ? v : best;
        tap = better ? (kd * KERNEL_H + kh) * KERNEL_W + kw : tap;
    }
    taps[row * out_w + w] = (uchar)tap;
}

/* Windows that can hold a position: at most so many per axis. */
#define WINDOWS(a) ((DILATION_##a * (KERNEL_##a - 1)) / STRIDE_##a + 1)

#define FOR_WINDOWS                                                                             \
    _Pragma("unroll") for (int jd = WINDOWS(D) - 1; jd >= 0; --jd)                              \
    _Pragma("unroll") for (int jh = WINDOWS(H) - 1; jh >= 0; --jh)                              \
    _Pragma("unroll") for (int jw = WINDOWS(W) - 1; jw >= 0; --jw)

/* Output o whose tap k is this input along an axis, and whether there is one. */
#define FIND_WINDOW(a, i, j, out, o, k, hit)                                                    \
    const int o = (i + PAD_##a) / STRIDE_##a - j;                                               \
    const int offset_##a = i + PAD_##a - o * STRIDE_##a;                                        \
    const int k = offset_##a / DILATION_##a;                                                    \
    const int hit = (o >= 0) & (o < out) & (k < KERNEL_##a) & (k * DILATION_##a == offset_##a)

#define FIND_WINDOWS                                                                            \
    FIND_WINDOW(D, d, jd, out_d, od, kd, hit_d);                                                \
    FIND_WINDOW(H, h, jh, out_h, oh, kh, hit_h);                                                \
    FIND_WINDOW(W, w, jw, out_w, ow, kw, hit_w);                                                \
    const int hit = hit_d & hit_h & hit_w;                                                      \
    const int at = ((plane * out_d + od) * out_h + oh) * out_w + ow

__kernel void max_pool_spread(
    __global const uchar *taps, __global const T *dy, __global T *dx, SIZES)
{
    LOCATE(in_d, in_h, in_w);
    ACC sum = 0;
    FOR_WINDOWS
    {
        FIND_WINDOWS;
        const int tap = hit ? taps[at] : 255;
        sum += tap == (kd * KERNEL_H + kh) * KERNEL_W + kw ? (ACC)dy[at] : (ACC)0;
    }
    dx[row * in_w + w] = (T)sum;
}

/* Gradient of windows that tile x (stride = kernel, no padding or dilation): one item a window,
 * which writes all its elements; incomplete windows at the ends get zeros.
 * Geometry: x = windows along w, y = all others, incomplete ones included. */
__kernel void max_pool_grad_tiled(
    __global const T *x, __global const T *dy, __global T *dx, SIZES)
{
    const int tiles_d = (in_d + KERNEL_D - 1) / KERNEL_D, tiles_h = (in_h + KERNEL_H - 1) / KERNEL_H;
    LOCATE(tiles_d, tiles_h, (in_w + KERNEL_W - 1) / KERNEL_W);
    const int corner = ((plane * in_d + d * KERNEL_D) * in_h + h * KERNEL_H) * in_w + w * KERNEL_W;
    const int complete = (d < out_d) & (h < out_h) & (w < out_w);
    T best = LOWEST, flow = 0;
    int place = -1;
    if (complete) {
        flow = dy[((plane * out_d + d) * out_h + h) * out_w + w];
        FOR_TAPS
        {
            const int at = corner + (kd * in_h + kh) * in_w + kw;
            const T v = x[at];
            const int better = (v > best) | (v != v) | (place < 0);
            best = better ? v : best;
            place = better ? at : place;
        }
    }
    FOR_TAPS
    {
        const int at = corner + (kd * in_h + kh) * in_w + kw;
        const int inside = complete | ((d * KERNEL_D + kd < in_d) & (h * KERNEL_H + kh < in_h) &
                                       (w * KERNEL_W + kw < in_w));
        if (inside) dx[at] = at == place ? flow : (T)0;
    }
}

/* Elements of window o along an axis for an average. */
#define COUNT(a, o, in, end, count)                                                             \
    int count = 0;                                                                              \
    _Pragma("unroll") for (int k = 0; k < KERNEL_##a; ++k)                                      \
    {                                                                                           \
        const int p = (o) * STRIDE_##a - PAD_##a + k * DILATION_##a;                            \
        count += INCLUDE_PAD ? p < (in) + (end) : ((p >= 0) & (p < (in)));                      \
    }

__kernel void average_pool(__global const T *x, __global T *y, SIZES)
{
    LOCATE(out_d, out_h, out_w);
    __global const T *from = x + plane * in_d * in_h * in_w;
    ACC sum = 0;
    FOR_TAPS
    {
        READ_TAP(from, 0);
        sum += (ACC)v;
    }
#if PADDED
    COUNT(D, d, in_d, end_d, count_d);
    COUNT(H, h, in_h, end_h, count_h);
    COUNT(W, w, in_w, end_w, count_w);
    const ACC count = max(count_d * count_h * count_w, 1);
#else
    const ACC count = KERNEL_D * KERNEL_H * KERNEL_W;
#endif
    y[row * out_w + w] = (T)(sum / count);
}

__kernel void average_pool_grad(__global const T *dy, __global T *dx, SIZES)
{
    LOCATE(in_d, in_h, in_w);
    ACC sum = 0;
    FOR_WINDOWS
    {
        FIND_WINDOWS;
#if PADDED
        COUNT(D, od, in_d, end_d, count_d);
        COUNT(H, oh, in_h, end_h, count_h);
        COUNT(W, ow, in_w, end_w, count_w);
        const ACC count = max(count_d * count_h * count_w, 1);
#else
        const ACC count = KERNEL_D * KERNEL_H * KERNEL_W;
#endif
        sum += hit ? (ACC)dy[at] / count : (ACC)0;
    }
    dx[row * in_w + w] = (T)sum;
}
