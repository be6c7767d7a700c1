/* Normalisation over groups of channels of one image by lone work-items, for CPUs: Group- and
 * InstanceNormalization.
 *
 * x is (rows, segments, inner): a row is a group of an image, a segment a channel of it, of which
 * scale and bias have one value each; rows are (images, groups). Statistics are made in two passes
 * (mean, then squares around it): nothing cancels. Item i has the rows from i * per_item on.
 * A segment has V elements at least. Results are deterministic. */

#ifndef TP
#define TP float /* element type of scale and bias */
#endif

#include "lanes.cl"

/* Sum of `length` elements, or of their squares around `mean`. */
#define SUM_OF(f, sum)                                                                          \
    ACC sum;                                                                                    \
    {                                                                                           \
        fetched s0 = 0, s1 = 0, s2 = 0, s3 = 0;                                                 \
        int i = 0;                                                                              \
        for (; i + 4 * V <= length; i += 4 * V) {                                               \
            s0 += f(GET(from + i));                                                             \
            s1 += f(GET(from + i + V));                                                         \
            s2 += f(GET(from + i + 2 * V));                                                     \
            s3 += f(GET(from + i + 3 * V));                                                     \
        }                                                                                       \
        for (; i + V <= length; i += V) s0 += f(GET(from + i));                                 \
        if (i < length) s1 += ONLY(keep, f(GET(from + length - V)));                            \
        sum = add_up((s0 + s1) + (s2 + s3));                                                    \
    }
#define ITSELF(v) (v)
#define SQUARE(v) (((v) - mean) * ((v) - mean))

ALONE __kernel void groups_norm(__global const T *x, __global const TP *scale,
                                __global const TP *bias, __global T *y, const int rows,
                                const int groups, const int segments, const int inner,
                                const int per_item, const float epsilon)
{
    const int begin = get_global_id(0) * per_item, end = min(rows, begin + per_item);
    const int length = segments * inner;
    const fetched keep = new_lanes(length);
    for (int row = begin; row < end; ++row) {
        __global const T *from = x + row * length;
        __global T *to = y + row * length;
        SUM_OF(ITSELF, total)
        const fetched mean = total / length;
        SUM_OF(SQUARE, squares)
        const ACC inverse = 1 / sqrt(squares / length + (ACC)epsilon);
        /* Backwards: what was read last is still in a cache. */
        for (int segment = segments - 1; segment >= 0; --segment) {
            const int channel = row % groups * segments + segment;
            const fetched factor = (ACC)scale[channel] * inverse, shift = (ACC)bias[channel];
            const int at = segment * inner;
            for (int i = inner - V;;) {
                PUT(to + at + i, (GET(from + at + i) - mean) * factor + shift);
                if (i == 0) break;
                i = i > V ? i - V : 0;
            }
        }
    }
}
