/* Dynamic quantisation of floats to unsigned bytes, by several work-items.
 * Layout: x and y dense; parts of `part` elements (a multiple of W), the last one shorter.
 *
 * extremes: the least and the greatest element of a part, at least as far apart as to have 0
 *     between them; one work-item a part.
 * quantise: every work-item finds the range of all parts, and from it the scale and the zero point,
 *     which the first one stores; then it quantises its part. */

#define W 16
#include "byte_vectors.cl"

#define LESS(a, b) ((a) < (b) ? (a) : (b))
#define MORE(a, b) ((a) > (b) ? (a) : (b))

__kernel HINT void extremes(__global const float *x, __global float2 *found, const int size,
                            const int part)
{
    const int begin = (int)get_global_id(0) * part;
    const int end = min(begin + part, size);
    REALS lows = 0, highs = 0;
    int i = begin;
    for (; i + W <= end; i += W) {
        const REALS v = *(__global const REALS_ANYWHERE *)(x + i);
        lows = LESS(v, lows);
        highs = MORE(v, highs);
    }
    float low = 0, high = 0;
    for (; i < end; ++i) {
        low = LESS(x[i], low);
        high = MORE(x[i], high);
    }
    for (int l = 0; l < W; ++l) {
        low = LESS(((float *)&lows)[l], low);
        high = MORE(((float *)&highs)[l], high);
    }
    found[get_global_id(0)] = (float2)(low, high);
}

__kernel HINT void quantise(__global const float *x, __global const float2 *found,
                            __global float *scale, __global uchar *zero, __global uchar *y,
                            const int size, const int part, const int parts)
{
    float low = 0, high = 0;
    for (int p = 0; p < parts; ++p) {
        low = LESS(found[p].s0, low);
        high = MORE(found[p].s1, high);
    }
    const float step = (high > low ? high - low : 1.0f) / 255.0f;
    const float middle = rint(clamp(-low / step, 0.0f, 255.0f));
    if (get_global_id(0) == 0) {
        scale[0] = step;
        zero[0] = (uchar)middle;
    }
    const int begin = (int)get_global_id(0) * part;
    const int end = min(begin + part, size);
    int i = begin;
    for (; i + W <= end; i += W) {
        const REALS v = *(__global const REALS_ANYWHERE *)(x + i) / (REALS)step;
        const REALS whole = rounded(v, -middle, 255.0f - middle);
        *(__global BYTES_ANYWHERE *)(y + i) = BYTES_OF(whole + middle);
    }
    for (; i < end; ++i)
        y[i] = (uchar)(rint(clamp(x[i] / step, -middle, 255.0f - middle)) + middle);
}
