/* Bytes with channels last (batch, height, width, stored channels): what stands between
 * convolutions. A value is (byte - zero) * scale; rounded values are halves to even.
 *
 * quantise_last:   floats (batch, channels, positions) to bytes, one work-item per position.
 * quantise_words:  the same; geometry (vectors of W positions, batch). The last vector of an image
 *                  begins where it ends with it.
 * dequantise_last: bytes to floats, one work-item per position.
 * add:             rint((a - a_zero) * a_factor + (b - b_zero) * b_factor) + zero, within LOW ..
 *                  HIGH; one work-item per vector of W bytes.
 * join:            a tensor's channels, W at least, at `first` of those of a wider one, one work-item
 *                  per position. The last vector begins where it ends with them.
 * max_pool:        one work-item per position of y, W channels at a time.
 * mean:            over positions; geometry (vectors of W channels, batch). */

#ifndef LOW
#define LOW 0
#define HIGH 255
#endif
#ifndef KERNEL_HEIGHT
#define KERNEL_HEIGHT 3
#define KERNEL_WIDTH 3
#endif

#include "byte_vectors.cl"

#define NEAREST(v, zero) (rounded(v, LOW - (zero), HIGH - (zero)) + (zero))

__kernel HINT void join(__global const uchar *x, __global uchar *y, const int size,
                        const int channels, const int x_stored, const int y_stored,
                        const int first, const float x_zero, const float factor, const float zero)
{
    const int n = get_global_id(0);
    if (n >= size) return;
    for (int c = 0; c < channels; c += W) {
        const int begin = min(c, channels - W);
        const REALS v = (REALS_AT(x + n * x_stored + begin) - x_zero) * factor;
        *(__global BYTES_ANYWHERE *)(y + n * y_stored + first + begin) = BYTES_OF(NEAREST(v, zero));
    }
}

#if W == 1
__kernel void quantise_last(__global const float *x, __global uchar *y, const int size,
                            const int positions, const int channels, const int stored,
                            const float scale, const float zero)
{
    const int n = get_global_id(0);
    if (n >= size) return;
    __global const float *from = x + n / positions * channels * positions + n % positions;
    __global uchar *to = y + n * stored;
    for (int c = 0; c < stored; ++c)
        to[c] = BYTES_OF(NEAREST(c < channels ? from[c * positions] / scale : 0, zero));
}

__kernel void dequantise_last(__global const uchar *x, __global float *y, const int size,
                              const int positions, const int channels, const int stored,
                              const float scale, const float zero)
{
    const int n = get_global_id(0);
    if (n >= size) return;
    __global const uchar *from = x + n * stored;
    __global float *to = y + n / positions * channels * positions + n % positions;
    for (int c = 0; c < channels; ++c) to[c * positions] = ((float)from[c] - zero) * scale;
}
#else

__kernel HINT void quantise_words(__global const float *x, __global uint *y, const int positions,
                                  const int channels, const int words, const float scale,
                                  const float zero)
{
    const int start = min((int)get_global_id(0) * W, positions - W);
    __global const float *from = x + get_global_id(1) * channels * positions + start;
    __global uint *to = y + (get_global_id(1) * positions + start) * words;
    for (int word = 0; word < words; ++word) {
        UINTS four = 0;
        for (int i = 0; i < 4; ++i) {
            const int c = word * 4 + i;
            REALS v = 0;
            if (c < channels) v = *(__global const REALS_ANYWHERE *)(from + c * positions) / scale;
            four |= AS(uint, AS(int, NEAREST(v, zero))) << (uint)(8 * i);
        }
        if (words == 1) *(__global UINTS_ANYWHERE *)to = four;
        for (int l = 0; l < W && words > 1; ++l) to[l * words + word] = ((uint *)&four)[l];
    }
}

__kernel HINT void add(__global const uchar *a, __global const uchar *b, __global uchar *y,
                  const int size, const float a_zero, const float a_factor, const float b_zero,
                  const float b_factor, const float zero)
{
    const int n = get_global_id(0) * W;
    if (n >= size) return;
    const REALS sum =
        (REALS_AT(a + n) - a_zero) * a_factor + (REALS_AT(b + n) - b_zero) * b_factor;
    *(__global BYTES_ANYWHERE *)(y + n) = BYTES_OF(NEAREST(sum, zero));
}

__kernel HINT void max_pool(__global const uchar *x, __global uchar *y, const int size,
                       const int stored, const int height, const int width, const int out_height,
                       const int out_width, const int stride_y, const int stride_x,
                       const int pad_y, const int pad_x, const int dilation_y,
                       const int dilation_x, const float x_zero, const float factor,
                       const float zero)
{
    const int n = get_global_id(0);
    if (n >= size) return;
    const int top = n / out_width % out_height * stride_y - pad_y;
    const int left = n % out_width * stride_x - pad_x;
    __global const uchar *image = x + n / out_width / out_height * height * width * stored;
    for (int c = 0; c < stored; c += W) {
        BYTES most = 0;
        for (int ky = 0; ky < KERNEL_HEIGHT; ++ky) {
            const int iy = top + ky * dilation_y;
            if (iy < 0 || iy >= height) continue;
            for (int kx = 0; kx < KERNEL_WIDTH; ++kx) {
                const int ix = left + kx * dilation_x;
                if (ix < 0 || ix >= width) continue;
                const BYTES here =
                    *(__global const BYTES_ANYWHERE *)(image + (iy * width + ix) * stored + c);
                most = here > most ? here : most;
            }
        }
        const REALS v = (AS(float, AS(int, most)) - x_zero) * factor;
        *(__global BYTES_ANYWHERE *)(y + n * stored + c) = BYTES_OF(NEAREST(v, zero));
    }
}

__kernel HINT void mean(__global const uchar *x, __global uchar *y, const int positions,
                   const int stored, const float x_zero, const float factor, const float zero)
{
    const int c = get_global_id(0) * W;
    __global const uchar *from = x + get_global_id(1) * positions * stored + c;
    INTS sum = 0;
    for (int i = 0; i < positions; ++i)
        sum += AS(int, *(__global const BYTES_ANYWHERE *)(from + i * stored));
    const REALS v = (AS(float, sum) / (float)positions - x_zero) * factor;
    *(__global BYTES_ANYWHERE *)(y + get_global_id(1) * stored + c) = BYTES_OF(NEAREST(v, zero));
}
#endif
