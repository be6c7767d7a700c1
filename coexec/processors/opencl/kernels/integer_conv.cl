/* Convolutions of bytes: y = bytes of scale[k] * (bias[k] + sum (x - zero) w), channels last.
 * Layout: x (batch, height, width, stored channels) unsigned; natural weights (K, C / groups, taps)
 * signed; y (batch, height, width, stored K). Bytes of y: rint, + y_zero, within LOW .. HIGH. With
 * RESIDUAL these are not stored, but what they stand for plus a tensor like y, rounded again:
 * rint((byte - y_zero) * own + (other - other_zero) * its), + last_zero, within LAST_LOW ..
 * LAST_HIGH.
 *
 * convolve_naive: one work-item per byte of y, any number of groups.
 * pack_words: weights as (blocks of LANES * VECS channels, taps, words of 4 channels, channels of
 *     a block), one work-item per word; what is not there is 0.
 * starts:   bias - zero * (sum of weights), one work-item per stored channel of y.
 * borders:  x with its borders filled with the zero point; one work-item per line.
 * convolve: dot products of words; geometry (lanes, tiles of TILE positions of a line, blocks). The
 *     last tile of a line starts where it ends with the line: some positions are computed twice. */

#include "byte_dots.cl"

#define LANES 16 /* channels of a vector, or of a work-group */
#ifndef TILE
#define TILE 4 /* positions of a line per work-item */
#endif
#ifndef VECS
#define VECS 1 /* channels of a work-item, in units of LANES: 1 to 4 */
#endif
#ifndef LOW
#define LOW 0 /* bounds of the bytes of a convolution */
#define HIGH 255
#endif
#ifndef LAST_LOW
#define LAST_LOW 0 /* bounds of the bytes of a sum */
#define LAST_HIGH 255
#endif
/* RESIDUAL: defined where a tensor is added. */

#ifdef RESIDUAL
#define OTHER_ARGS , __global const uchar *other, const float own, const float its, \
    const float other_zero, const float last_zero
#define FINISH(v, extra)                                                             \
    (rounded((rounded(v, LOW - y_zero, HIGH - y_zero)) * own + ((extra) - other_zero) * its, \
             LAST_LOW - last_zero, LAST_HIGH - last_zero)                              \
     + last_zero)
#else
#define OTHER_ARGS
#define FINISH(v, extra) (rounded(v, LOW - y_zero, HIGH - y_zero) + y_zero)
#endif

#if !VNNI
__kernel void convolve_naive(__global const uchar *x, __global const char *weights,
                             __global const int *bias, __global const float *scale,
                             __global uchar *y OTHER_ARGS, const float y_zero, const int zero,
                             const int size, const int height, const int width, const int x_stored,
                             const int out_height, const int out_width, const int y_stored,
                             const int channels, const int inner, const int outer,
                             const int kernel_height, const int kernel_width, const int stride_y,
                             const int stride_x, const int pad_y, const int pad_x,
                             const int dilation_y, const int dilation_x)
{
    const int n = get_global_id(0);
    if (n >= size) return;
    const int k = n % y_stored;
    const int ox = n / y_stored % out_width;
    const int oy = n / y_stored / out_width % out_height;
    const int image = n / y_stored / out_width / out_height;
    int sum = bias[k];
    for (int tap = 0; tap < kernel_height * kernel_width && k < channels; ++tap) {
        const int iy = oy * stride_y - pad_y + tap / kernel_width * dilation_y;
        const int ix = ox * stride_x - pad_x + tap % kernel_width * dilation_x;
        if (iy < 0 || iy >= height || ix < 0 || ix >= width) continue;
        __global const uchar *from = x + ((image * height + iy) * width + ix) * x_stored;
        for (int c = 0; c < inner; ++c)
            sum += ((int)from[k / outer * inner + c] - zero)
                   * weights[(k * inner + c) * kernel_height * kernel_width + tap];
    }
#ifdef RESIDUAL
    const float extra = other[n];
#endif
    y[n] = BYTES_OF(FINISH((float)sum * scale[k], extra));
}
#endif

__kernel void pack_words(__global const char *weights, __global char4 *packed, const int channels,
                         const int inner, const int taps, const int words)
{
    const int n = get_global_id(0);
    const int lane = n % (LANES * VECS);
    const int word = n / (LANES * VECS) % words;
    const int tap = n / (LANES * VECS) / words % taps;
    const int k = n / (LANES * VECS) / words / taps * LANES * VECS + lane;
    char four[4];
    for (int i = 0; i < 4; ++i) {
        const int c = word * 4 + i;
        four[i] = k < channels && c < inner ? weights[(k * inner + c) * taps + tap] : (char)0;
    }
    packed[n] = (char4)(four[0], four[1], four[2], four[3]);
}

__kernel void starts(__global const char *weights, __global const int *bias, __global int *start,
                     const int channels, const int depth, const int zero)
{
    const int k = get_global_id(0);
    int sum = 0;
    for (int i = 0; i < depth && k < channels; ++i) sum += weights[k * depth + i];
    start[k] = bias[k] - zero * sum;
}

__kernel void borders(__global const uint *x, __global uint *wide, const int height,
                      const int width, const int words, const int wide_height,
                      const int wide_width, const int pad_y, const int pad_x, const int zero)
{
    const int line = get_global_id(0);
    const int iy = line % wide_height - pad_y;
    const uint fill = (uint)zero * 0x01010101u;
    __global uint *to = wide + line * wide_width * words;
    const int inside = iy >= 0 && iy < height;
    const int begin = inside ? min(pad_x, wide_width) * words : wide_width * words;
    const int end = inside ? min(pad_x + width, wide_width) * words : wide_width * words;
    __global const uint *from =
        x + ((line / wide_height * height + iy) * width - pad_x) * words;
    for (int i = 0; i < begin; ++i) to[i] = fill;
    for (int i = begin; i < end; ++i) to[i] = from[i];
    for (int i = end; i < wide_width * words; ++i) to[i] = fill;
}

#include "byte_tiles.cl"

#define DECLARE_ONE(p, v) INTS sum_##p##_##v = start_##v;
#define DECLARE(p) EACH(DECLARE_ONE, p)
#define ADD_ONE(p, v) sum_##p##_##v = DOT(sum_##p##_##v, four_##p, w_##v);
#define ADD(p)                                 \
    const int four_##p = from[p * position];   \
    EACH(ADD_ONE, p)
#define LOAD_START(p, v) const INTS start_##v = *(__global const INTS *)(start + k + v * LANES);
#define LOAD_WEIGHTS(p, v) const INTS w_##v = *(__global const INTS *)(w + v * LANES);
#define LOAD_SCALE(p, v) const REALS scale_##v = *(__global const REALS *)(scale + k + v * LANES);
#ifdef RESIDUAL
#define EXTRA(p, v) REALS_AT(other + at + p * y_stored + v * LANES)
#else
#define EXTRA(p, v) 0
#endif
#define STORE_ONE(p, v)                                                                       \
    *(__global BYTES_ANYWHERE *)(y + at + p * y_stored + v * LANES) =                          \
        BYTES_OF(FINISH(AS(float, sum_##p##_##v) * scale_##v, EXTRA(p, v)));
#define STORE(p) EACH(STORE_ONE, p)

__kernel HINT void convolve(__global const int *x, __global const int *packed,
                            __global const int *start, __global const float *scale,
                            __global uchar *y OTHER_ARGS, const float y_zero,
                            const int out_height, const int out_width, const int y_stored,
                            const int words, const int kernel_height, const int kernel_width,
                            const int image_words, const int stride_y, const int position,
                            const int step_y, const int step_x)
{
    const int tiles = (out_width + TILE - 1) / TILE;
    const int tile = get_global_id(1);
    const int ox = min(tile % tiles * TILE, out_width - TILE);
    const int oy = tile / tiles % out_height;
    const int image = tile / tiles / out_height;
#if VNNI
    const int lane = 0;
#else
    const int lane = get_local_id(0);
#endif
    const int k = get_global_id(2) * LANES * VECS + lane;
    __global const int *first = x + image * image_words + oy * stride_y + ox * position;
    __global const int *w =
        packed + get_global_id(2) * kernel_height * kernel_width * words * LANES * VECS + lane;
    EACH(LOAD_START, 0)
    POSITIONS(DECLARE)
    for (int ky = 0; ky < kernel_height; ++ky)
        for (int kx = 0; kx < kernel_width; ++kx) {
            __global const int *from = first + ky * step_y + kx * step_x;
            for (int word = 0; word < words; ++word, ++from, w += LANES * VECS) {
                EACH(LOAD_WEIGHTS, 0)
                POSITIONS(ADD)
            }
        }
    EACH(LOAD_SCALE, 0)
    const int at = ((image * out_height + oy) * out_width + ox) * y_stored + k;
    POSITIONS(STORE)
}
