/* Depthwise convolutions of bytes, channels last: every channel has its own window.
 * Layout and rounding as in integer_conv.cl; weights (C, 1, taps).
 *
 * pack_taps: weights as floats (taps, stored channels), 0 where there are none; one work-item each.
 * depthwise: products of bytes and their sums are exact in float; geometry (vectors of 16
 *     channels, lines), one work-item each. */

#ifndef KERNEL_HEIGHT
#define KERNEL_HEIGHT 3
#define KERNEL_WIDTH 3
#endif
#ifndef STRIDE
#define STRIDE 1 /* along a line */
#endif
#ifndef LOW
#define LOW 0 /* bounds of the bytes */
#define HIGH 255
#endif

#define W 16
#include "byte_vectors.cl"

__kernel void pack_taps(__global const char *weights, __global float *packed, const int channels,
                        const int stored)
{
    const int n = get_global_id(0);
    const int c = n % stored;
    packed[n] = c < channels ? weights[c * KERNEL_HEIGHT * KERNEL_WIDTH + n / stored] : 0;
}

__kernel HINT void depthwise(
    __global const uchar *x, __global const float16 *packed, __global const int16 *bias,
    __global const float16 *scale, __global uchar *y, const float y_zero, const float zero,
    const int height, const int width, const int stored, const int out_height, const int out_width,
    const int stride_y, const int pad_y, const int pad_x, const int dilation_y,
    const int dilation_x)
{
    const int vector = get_global_id(0);
    const int line = get_global_id(1);
    const int vectors = stored / 16;
    const int top = line % out_height * stride_y - pad_y;
    __global const uchar *image = x + line / out_height * height * width * stored + vector * 16;
    __global uchar *to = y + line * out_width * stored + vector * 16;
    const float16 factor = scale[vector];
    const float16 start = AS(float, bias[vector]);
    for (int ox = 0; ox < out_width; ++ox, to += stored) {
        const int left = ox * STRIDE - pad_x;
        float16 sum = start;
        for (int ky = 0; ky < KERNEL_HEIGHT; ++ky) {
            const int iy = top + ky * dilation_y;
            if (iy < 0 || iy >= height) continue;
            for (int kx = 0; kx < KERNEL_WIDTH; ++kx) {
                const int ix = left + kx * dilation_x;
                if (ix < 0 || ix >= width) continue;
                sum += (REALS_AT(image + (iy * width + ix) * stored) - zero)
                       * packed[(ky * KERNEL_WIDTH + kx) * vectors + vector];
            }
        }
        const REALS whole = rounded(sum * factor, LOW - y_zero, HIGH - y_zero);
        *(__global BYTES_ANYWHERE *)to = BYTES_OF(whole + y_zero);
    }
}
