/* Convolution and its gradients, one element at a time, up to three spatial axes.
 * Layout: x (batch, in_channels, i0, i1, i2), w (out_channels, in_channels / groups, k0, k1, k2),
 * y (batch, out_channels, o0, o1, o2); missing axes have extent, stride and dilation 1, padding 0.
 * y[o] reads x[o * s - p + k * d], zero outside.
 * Geometry: one work-item per element of the result, padded to the work-group size. */

#ifndef T
#define T float /* element type */
#endif
#ifndef ACC
#define ACC float /* type of sums */
#endif
#ifndef HAS_BIAS
#define HAS_BIAS 0 /* 1: a bias per channel of the result is an operand */
#endif

#define GEOMETRY                                                                                   \
    const int total, const int batch, const int in_channels, const int out_channels,               \
        const int groups, const int i0, const int i1, const int i2, const int o0, const int o1,    \
        const int o2, const int k0, const int k1, const int k2, const int s0, const int s1,        \
        const int s2, const int p0, const int p1, const int p2, const int d0, const int d1,        \
        const int d2

#if HAS_BIAS
#define BIAS __global const T *bias,
#define START(channel) ((ACC)bias[channel])
#else
#define BIAS
#define START(channel) ((ACC)0)
#endif

__kernel void conv_naive(__global const T *x, __global const T *w, BIAS __global T *y, GEOMETRY)
{
    int i = get_global_id(0);
    if (i >= total) return;
    __global T *result = y + i;
    const int z2 = i % o2 * s2 - p2;
    i /= o2;
    const int z1 = i % o1 * s1 - p1;
    i /= o1;
    const int z0 = i % o0 * s0 - p0;
    i /= o0;
    const int channel = i % out_channels, image = i / out_channels;
    const int inner = in_channels / groups;
    const int first = channel / (out_channels / groups) * inner;
    ACC sum = START(channel);
    for (int c = 0; c < inner; ++c) {
        __global const T *plane = x + (image * in_channels + first + c) * (i0 * i1 * i2);
        __global const T *taps = w + (channel * inner + c) * (k0 * k1 * k2);
        for (int t0 = 0; t0 < k0; ++t0) {
            const int x0 = z0 + t0 * d0;
            if (x0 < 0 || x0 >= i0) continue;
            for (int t1 = 0; t1 < k1; ++t1) {
                const int x1 = z1 + t1 * d1;
                if (x1 < 0 || x1 >= i1) continue;
                for (int t2 = 0; t2 < k2; ++t2) {
                    const int x2 = z2 + t2 * d2;
                    if (x2 < 0 || x2 >= i2) continue;
                    sum += (ACC)plane[(x0 * i1 + x1) * i2 + x2] *
                           (ACC)taps[(t0 * k1 + t1) * k2 + t2];
                }
            }
        }
    }
    *result = (T)sum;
}

/* The output position that reads input position x through tap t, or -1. */
int source(const int x, const int t, const int stride, const int pad, const int dilation,
           const int extent)
{
    const int z = x + pad - t * dilation;
    return z < 0 || z % stride || z / stride >= extent ? -1 : z / stride;
}

/* x from y: the gradient of the input, and the transposed convolution (which may have a bias). */
__kernel void conv_input_naive(__global const T *y, __global const T *w, BIAS __global T *x,
                               GEOMETRY)
{
    int i = get_global_id(0);
    if (i >= total) return;
    __global T *result = x + i;
    const int x2 = i % i2;
    i /= i2;
    const int x1 = i % i1;
    i /= i1;
    const int x0 = i % i0;
    i /= i0;
    const int channel = i % in_channels, image = i / in_channels;
    const int inner = in_channels / groups, outer = out_channels / groups;
    const int first = channel / inner * outer;
    ACC sum = START(channel);
    for (int k = first; k < first + outer; ++k) {
        __global const T *plane = y + (image * out_channels + k) * (o0 * o1 * o2);
        __global const T *taps = w + (k * inner + channel % inner) * (k0 * k1 * k2);
        for (int t0 = 0; t0 < k0; ++t0) {
            const int y0 = source(x0, t0, s0, p0, d0, o0);
            if (y0 < 0) continue;
            for (int t1 = 0; t1 < k1; ++t1) {
                const int y1 = source(x1, t1, s1, p1, d1, o1);
                if (y1 < 0) continue;
                for (int t2 = 0; t2 < k2; ++t2) {
                    const int y2 = source(x2, t2, s2, p2, d2, o2);
                    if (y2 < 0) continue;
                    sum += (ACC)plane[(y0 * o1 + y1) * o2 + y2] *
                           (ACC)taps[(t0 * k1 + t1) * k2 + t2];
                }
            }
        }
    }
    *result = (T)sum;
}

/* w from x and y: the gradient of the weights. */
__kernel void conv_weight_naive(__global const T *x, __global const T *y, __global T *w, GEOMETRY)
{
    int i = get_global_id(0);
    if (i >= total) return;
    __global T *result = w + i;
    const int t2 = i % k2;
    i /= k2;
    const int t1 = i % k1;
    i /= k1;
    const int t0 = i % k0;
    i /= k0;
    const int inner = in_channels / groups;
    const int k = i / inner;
    const int c = k / (out_channels / groups) * inner + i % inner;
    ACC sum = 0;
    for (int image = 0; image < batch; ++image) {
        __global const T *from = x + (image * in_channels + c) * (i0 * i1 * i2);
        __global const T *plane = y + (image * out_channels + k) * (o0 * o1 * o2);
        for (int y0 = 0; y0 < o0; ++y0) {
            const int x0 = y0 * s0 - p0 + t0 * d0;
            if (x0 < 0 || x0 >= i0) continue;
            for (int y1 = 0; y1 < o1; ++y1) {
                const int x1 = y1 * s1 - p1 + t1 * d1;
                if (x1 < 0 || x1 >= i1) continue;
                for (int y2 = 0; y2 < o2; ++y2) {
                    const int x2 = y2 * s2 - p2 + t2 * d2;
                    if (x2 < 0 || x2 >= i2) continue;
                    sum += (ACC)from[(x0 * i1 + x1) * i2 + x2] *
                           (ACC)plane[(y0 * o1 + y1) * o2 + y2];
                }
            }
        }
    }
    *result = (T)sum;
}
