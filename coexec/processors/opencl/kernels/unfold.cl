/* Blocks of images: col2im adds them up where they overlap, im2col takes them out.
 * Layout: images (planes, i0, i1, i2), columns (planes, k0 * k1 * k2, o0, o1, o2), contiguous; a
 * plane is a channel of an image, missing axes in front have extent 1.
 * Geometry: one work-item per element of the result along (innermost axis, all others), so that
 * each is written once and sums are in the order of taps. */

#ifndef T
#define T float /* element type */
#endif
#ifndef C
#define C float /* type to add in: float for half, T else */
#endif

#define BLOCKS                                                                                \
    const int rows, const int i0, const int i1, const int i2, const int o0, const int o1,     \
        const int o2, const int k0, const int k1, const int k2, const int s0, const int s1,   \
        const int s2, const int p0, const int p1, const int p2, const int d0, const int d1,   \
        const int d2

/* Position of the block whose tap t stands on x, or -1. */
inline int position(const int x, const int t, const int out, const int stride, const int pad,
                    const int dilation)
{
    const int at = x + pad - t * dilation;
    return at >= 0 && at % stride == 0 && at / stride < out ? at / stride : -1;
}

__kernel void col2im(__global const T *columns, __global T *images, BLOCKS)
{
    const int x2 = get_global_id(0), row = get_global_id(1), positions = o0 * o1 * o2;
    if (x2 >= i2 || row >= rows) return;
    const int x1 = row % i1, x0 = row / i1 % i0, plane = row / (i1 * i0);
    columns += plane * k0 * k1 * k2 * positions;
    C sum = 0;
    for (int t0 = 0; t0 < k0; ++t0) {
        const int q0 = position(x0, t0, o0, s0, p0, d0);
        if (q0 < 0) continue;
        for (int t1 = 0; t1 < k1; ++t1) {
            const int q1 = position(x1, t1, o1, s1, p1, d1);
            if (q1 < 0) continue;
            for (int t2 = 0; t2 < k2; ++t2) {
                const int q2 = position(x2, t2, o2, s2, p2, d2);
                if (q2 < 0) continue;
                const int tap = (t0 * k1 + t1) * k2 + t2;
                sum += (C)columns[tap * positions + (q0 * o1 + q1) * o2 + q2];
            }
        }
    }
    images[row * i2 + x2] = (T)sum;
}

__kernel void im2col(__global const T *images, __global T *columns, BLOCKS)
{
    const int q2 = get_global_id(0), row = get_global_id(1), taps = k0 * k1 * k2;
    if (q2 >= o2 || row >= rows) return;
    const int q1 = row % o1, q0 = row / o1 % o0, tap = row / (o1 * o0) % taps;
    const int plane = row / (o1 * o0 * taps);
    const int x0 = q0 * s0 - p0 + tap / (k1 * k2) * d0, x1 = q1 * s1 - p1 + tap / k2 % k1 * d1;
    const int x2 = q2 * s2 - p2 + tap % k2 * d2;
    const bool inside = x0 >= 0 && x0 < i0 && x1 >= 0 && x1 < i1 && x2 >= 0 && x2 < i2;
    columns[row * o2 + q2] = inside ? images[((plane * i0 + x0) * i1 + x1) * i2 + x2] : (T)0;
}
