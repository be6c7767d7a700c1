/* Pooling over windows of up to three spatial axes, and its gradients as gathers (no atomics).
 *
 * Layout: x (planes, in_d, in_h, in_w), y (planes, out_d, out_h, out_w), row-major; a plane is one
 * channel of one image. Fewer spatial axes: leading ones are 1. Tap k of output o reads x at
 * o * stride - pad + k * dilation, where that lies inside.
 * Geometry of windows: x = position along w, y = all other positions (plane, d, h), both padded to
 * the work-group. Geometry of global_pool: see there.
 * Every work-item writes one element; sums are in a fixed order. */

#ifndef T
#define T float /* element type of x and y */
#endif
#ifndef ACC
#define ACC float /* type that sums are made in */
#endif
#ifndef INDICES
#define INDICES 0 /* max_pool: 1 writes where each maximum stood, 2 the same in column-major order */
#endif
#ifndef INCLUDE_PAD
#define INCLUDE_PAD 0 /* averages: padding counts as elements */
#endif
#ifndef TAP
#define TAP(v) (v) /* what is summed of an element */
#endif
#ifndef FINISH
#define FINISH(sum, count) ((sum) / (count)) /* result of a window */
#endif
#ifndef JOIN
#define JOIN(a, b) ((a) + (b)) /* global_pool: how two partial results join */
#endif
#ifndef START
#define START 0 /* global_pool: result of nothing */
#endif
#ifndef LOWEST
#define LOWEST (-INFINITY) /* what every element is at least */
#endif
#ifndef LANES
#define LANES 16 /* global_pool: work-items that share a plane, a power of two */
#endif
#ifndef PLANES
#define PLANES 4 /* global_pool: planes of a work-group */
#endif

/* Sizes of a window problem: in, out, kernel, stride, dilation, pad before, pad after. */
#define AXIS(a)                                                                                 \
    const int in_##a, const int out_##a, const int kernel_##a, const int stride_##a,            \
        const int dilation_##a, const int pad_##a, const int end_##a

/* Taps of output o that lie inside [0, in): first (included) and last (excluded). */
static int first_tap(int start, int dilation)
{
    return start >= 0 ? 0 : (-start + dilation - 1) / dilation;
}

static int last_tap(int start, int size, int kernel_size, int dilation)
{
    const int room = size - start;
    return room <= 0 ? 0 : min(kernel_size, (room + dilation - 1) / dilation);
}

/* Elements of a window along an axis for an average. */
static int count_taps(int o, int in, int kernel_size, int stride, int dilation, int pad, int end)
{
    const int start = o * stride - pad;
#if INCLUDE_PAD
    return last_tap(start, in + end, kernel_size, dilation);
#else
    return last_tap(start, in, kernel_size, dilation) - first_tap(start, dilation);
#endif
}

/* Outputs whose windows may hold input i: first (included) and last (included). */
static int first_window(int i, int kernel_size, int stride, int dilation, int pad)
{
    const int low = i + pad - (kernel_size - 1) * dilation;
    return low <= 0 ? 0 : (low + stride - 1) / stride;
}

static int last_window(int i, int out, int stride, int pad)
{
    return min(out - 1, (i + pad) / stride);
}

/* Position of this work-item's output: w, h, d, plane; returns if there is none. */
#define LOCATE(size_d, size_h, size_w)                                                          \
    const int w = get_global_id(0);                                                             \
    const int row = get_global_id(1);                                                           \
    if (w >= (size_w) || row >= rows) return;                                                   \
    const int h = row % (size_h);                                                               \
    const int d = row / (size_h) % (size_d);                                                    \
    const int plane = row / (size_h) / (size_d)

#define TAPS(a, o)                                                                              \
    const int start_##a = (o) * stride_##a - pad_##a;                                           \
    const int low_##a = first_tap(start_##a, dilation_##a);                                     \
    const int high_##a = last_tap(start_##a, in_##a, kernel_##a, dilation_##a)

/* All positions of the window, row by row; `at` is the place of the row's first element. */
#define FOR_WINDOW_ROWS(at)                                                                     \
    for (int kd = low_d; kd < high_d; ++kd)                                                     \
        for (int kh = low_h, at = ((start_d + kd * dilation_d) * in_h + start_h +               \
                                   low_h * dilation_h) * in_w + start_w;                        \
             kh < high_h; ++kh, at += dilation_h * in_w)

__kernel void max_pool(
    __global const T *x, __global T *y,
#if INDICES
    __global long *indices,
#endif
    const int rows, AXIS(d), AXIS(h), AXIS(w))
{
    LOCATE(out_d, out_h, out_w);
    __global const T *from = x + plane * in_d * in_h * in_w;
    TAPS(d, d);
    TAPS(h, h);
    TAPS(w, w);
    T best = LOWEST;
    int place = -1;
    FOR_WINDOW_ROWS(at)
    {
        for (int k = low_w; k < high_w; ++k) {
            const int here = at + k * dilation_w;
            const T v = from[here];
            /* The first maximum wins; a NaN is never lost. */
            if (v > best || v != v || place < 0) {
                best = v;
                place = here;
            }
        }
    }
    const int to = row * out_w + w;
    y[to] = best;
#if INDICES == 1
    indices[to] = (long)plane * (in_d * in_h * in_w) + place;
#elif INDICES == 2
    const int pw = place % in_w, ph = place / in_w % in_h, pd = place / in_w / in_h;
    indices[to] = (long)plane * (in_d * in_h * in_w) + (pw * in_h + ph) * in_d + pd;
#endif
}

__kernel void sum_pool(
    __global const T *x, __global T *y, const int rows, AXIS(d), AXIS(h), AXIS(w))
{
    LOCATE(out_d, out_h, out_w);
    __global const T *from = x + plane * in_d * in_h * in_w;
    TAPS(d, d);
    TAPS(h, h);
    TAPS(w, w);
    ACC sum = 0;
    FOR_WINDOW_ROWS(at)
    {
        for (int k = low_w; k < high_w; ++k) {
            const ACC v = from[at + k * dilation_w];
            sum += TAP(v);
        }
    }
    const int elements = count_taps(d, in_d, kernel_d, stride_d, dilation_d, pad_d, end_d) *
                         count_taps(h, in_h, kernel_h, stride_h, dilation_h, pad_h, end_h) *
                         count_taps(w, in_w, kernel_w, stride_w, dilation_w, pad_w, end_w);
    const ACC count = max(elements, 1);
    y[row * out_w + w] = (T)(FINISH(sum, count));
}

/* Whether the element at `mine` (of value v) is the maximum that max_pool found in a window. */
static int is_maximum(
    __global const T *from, const T v, const int mine, const int od, const int oh, const int ow,
    AXIS(d), AXIS(h), AXIS(w))
{
    TAPS(d, od);
    TAPS(h, oh);
    TAPS(w, ow);
    FOR_WINDOW_ROWS(at)
    {
        for (int k = low_w; k < high_w; ++k) {
            const int here = at + k * dilation_w;
            const T u = from[here];
            if (here < mine ? (v == v && !(u < v)) : (here > mine && (u > v || u != u))) return 0;
        }
    }
    return 1;
}

/* Windows that hold input i along axis a, of which `tap` is the offset in the window. */
#define FOR_WINDOWS(a, o, i)                                                                    \
    for (int o = first_window(i, kernel_##a, stride_##a, dilation_##a, pad_##a);                \
         o <= last_window(i, out_##a, stride_##a, pad_##a); ++o)                                \
        if (dilation_##a == 1 || (i + pad_##a - o * stride_##a) % dilation_##a == 0)

__kernel void max_pool_grad(
    __global const T *x, __global const T *dy, __global T *dx, const int rows, AXIS(d), AXIS(h),
    AXIS(w))
{
    LOCATE(in_d, in_h, in_w);
    __global const T *from = x + plane * in_d * in_h * in_w;
    const int mine = (d * in_h + h) * in_w + w;
    const T v = from[mine];
    ACC sum = 0;
    FOR_WINDOWS(d, od, d)
    FOR_WINDOWS(h, oh, h)
    FOR_WINDOWS(w, ow, w)
    if (is_maximum(from, v, mine, od, oh, ow,
                   in_d, out_d, kernel_d, stride_d, dilation_d, pad_d, end_d,
                   in_h, out_h, kernel_h, stride_h, dilation_h, pad_h, end_h,
                   in_w, out_w, kernel_w, stride_w, dilation_w, pad_w, end_w))
        sum += dy[((plane * out_d + od) * out_h + oh) * out_w + ow];
    dx[row * in_w + w] = (T)sum;
}

__kernel void average_pool_grad(
    __global const T *dy, __global T *dx, const int rows, AXIS(d), AXIS(h), AXIS(w))
{
    LOCATE(in_d, in_h, in_w);
    ACC sum = 0;
    FOR_WINDOWS(d, od, d)
    {
        const int count_d = count_taps(od, in_d, kernel_d, stride_d, dilation_d, pad_d, end_d);
        FOR_WINDOWS(h, oh, h)
        {
            const int count_h = count_taps(oh, in_h, kernel_h, stride_h, dilation_h, pad_h, end_h);
            FOR_WINDOWS(w, ow, w)
            {
                const ACC count = count_d * count_h *
                    count_taps(ow, in_w, kernel_w, stride_w, dilation_w, pad_w, end_w);
                const ACC v = dy[((plane * out_d + od) * out_h + oh) * out_w + ow];
                sum += v / count;
            }
        }
    }
    dx[row * in_w + w] = (T)sum;
}

/* A whole plane to one element. x (planes, size); work-group: LANES items for each of PLANES. */
__kernel void global_pool(__global const T *x, __global T *y, const int planes, const int size)
{
    __local ACC partial[PLANES * LANES];
    const int lane = get_local_id(0), slot = get_local_id(1) * LANES + lane;
    const int plane = get_global_id(1);
    ACC joined = START;
    if (plane < planes) {
        __global const T *from = x + plane * size;
        for (int i = lane; i < size; i += LANES) {
            const ACC v = from[i];
            joined = JOIN(joined, TAP(v));
        }
    }
    partial[slot] = joined;
    for (int half_lanes = LANES / 2; half_lanes > 0; half_lanes /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lane < half_lanes) {
            const ACC a = partial[slot], b = partial[slot + half_lanes];
            partial[slot] = JOIN(a, b);
        }
    }
    if (lane == 0 && plane < planes) {
        const ACC sum = partial[slot], count = size;
        y[plane] = (T)(FINISH(sum, count));
    }
}
