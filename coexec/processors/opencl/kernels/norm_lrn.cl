/* Local response normalisation with an exponent of 3/4, by lone work-items.
 * Layout: x and y (images * channels, inner), type float; inner >= V.
 *     y = x / (bias + ratio * sum of squares over channels [c - before, c + after])^(3/4)
 * Planes of the channels around one are read again for each: they stay in cache.
 * sqrt and pow of vectors are calls on some runtimes, one lane after the other; here Newton's method
 * finds reciprocal roots, to the last two bits. The sum is positive (bias > 0, ratio >= 0).
 * Geometry: one work-item per `per_item` planes, work-groups of one. */

#include "alone.cl"

typedef JOIN(int, V) bits;
#define AS_(type, v) as_##type(v)
#define AS(type, v) AS_(type, v)
#define LARGEST 1e38f /* roots of larger sums overflow on the way; their results are 0 in any case */

/* 1 / sqrt(a): a guess within 4 %, each step doubles its digits. */
static inline __attribute__((always_inline)) fetched inverse_root(const fetched a)
{
    const fetched part = 0.5f * a;
    fetched r = AS(JOIN(float, V), 0x5f3759df - (AS(JOIN(int, V), a) >> 1));
    r *= 1.5f - part * r * r;
    r *= 1.5f - part * r * r;
    r *= 1.5f - part * r * r;
    return r;
}

__kernel ALONE void lrn_planes(__global const float *x, __global float *y, const int rows,
                               const int channels, const int inner, const int before,
                               const int after, const float ratio, const float bias,
                               const int per_item)
{
    const int begin = get_global_id(0) * per_item;
    const int end = begin + per_item < rows ? begin + per_item : rows;
    for (int row = begin; row < end; ++row) {
        const int channel = row % channels;
        const int first = row - (before < channel ? before : channel);
        const int left = channels - 1 - channel, last = row + (after < left ? after : left);
        for (int start = 0; start < inner; start += V) {
            const int i = start + V <= inner ? start : inner - V;
            fetched squares = 0;
            for (int other = first; other <= last; ++other) {
                const fetched v = *(__global const stored *)(x + other * inner + i);
                squares += v * v;
            }
            fetched base = bias + ratio * squares;
            base = base > LARGEST ? (fetched)LARGEST : base;
            const fetched r = inverse_root(base); /* base^(-1/2) */
            *(__global stored *)(y + row * inner + i) =
                *(__global const stored *)(x + row * inner + i) * r * inverse_root(base * r);
        }
    }
}
