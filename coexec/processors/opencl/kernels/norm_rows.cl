/* Normalisation of rows by lone work-items, for CPUs: LayerNormalization, RMSNormalization and
 * their gradients.
 *
 * x is (rows, length), each row normalised by its own statistics; scale and bias are (length).
 * Statistics are made in two passes (mean, then squares around it): nothing cancels. Item i has the
 * rows from i * per_item on. rows_grad also sums what flows to scale and bias over its rows:
 * sums (items, 2, length), which join_rows adds up (item i has V columns). A row has V elements at
 * least. Results are deterministic. */

#ifndef TP
#define TP float /* element type of scale, bias and their gradients */
#endif
#ifndef TS
#define TS float /* element type of stored statistics */
#endif
#ifndef CENTRE
#define CENTRE 1 /* subtract the mean (0 for RMS) */
#endif
#ifndef GRADIENT
#define GRADIENT 0 /* 1: the gradient's kernels */
#endif
#ifndef SAME_PARAMETERS
#define SAME_PARAMETERS 1 /* 1: TP and ACC are one type; 0: convert */
#endif

#include "lanes.cl"

typedef JOIN(TP, V) parameters __attribute__((aligned(sizeof(TP))));
#if SAME_PARAMETERS
#define PARAMETER(p) (*(__global const parameters *)(p))
#define TO_PARAMETER(v) (v)
#else
#define TURN_(type) convert_##type
#define TURN(type) TURN_(type)
#define PARAMETER(p) TURN(JOIN(ACC, V))(*(__global const parameters *)(p))
#define TO_PARAMETER(v) TURN(JOIN(TP, V))(v)
#endif

/* Mean (0 for RMS) of a row. */
INLINE ACC row_mean(__global const T *x, const int length, const fetched keep)
{
#if CENTRE
    fetched s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    int i = 0;
    for (; i + 4 * V <= length; i += 4 * V) {
        s0 += GET(x + i);
        s1 += GET(x + i + V);
        s2 += GET(x + i + 2 * V);
        s3 += GET(x + i + 3 * V);
    }
    for (; i + V <= length; i += V) s0 += GET(x + i);
    if (i < length) s1 += ONLY(keep, GET(x + length - V));
    return add_up((s0 + s1) + (s2 + s3)) / length;
#else
    return 0;
#endif
}

#define ROWS                                                                                    \
    const int item = get_global_id(0), begin = item * per_item;                                 \
    const int end = min(rows, begin + per_item);                                                \
    const fetched keep = new_lanes(length)

#if GRADIENT == 0

ALONE __kernel void rows_norm(__global const T *x, __global const TP *scale,
                              __global const TP *bias, __global T *y, __global TS *means,
                              __global TS *inverses, const int stores, const int biased,
                              const int rows, const int length, const int per_item,
                              const float epsilon)
{
    ROWS;
    for (int row = begin; row < end; ++row) {
        __global const T *from = x + row * length;
        __global T *to = y + row * length;
        const ACC mean1 = row_mean(from, length, keep);
        const fetched mean = mean1;
        fetched s0 = 0, s1 = 0;
        int i = 0;
        for (; i + 2 * V <= length; i += 2 * V) {
            const fetched v0 = GET(from + i) - mean, v1 = GET(from + i + V) - mean;
            s0 += v0 * v0;
            s1 += v1 * v1;
        }
        if (i + V <= length) {
            const fetched v = GET(from + i) - mean;
            s0 += v * v;
            i += V;
        }
        if (i < length) {
            const fetched v = ONLY(keep, GET(from + length - V) - mean);
            s1 += v * v;
        }
        const ACC inverse1 = 1 / sqrt(add_up(s0 + s1) / length + (ACC)epsilon);
        const fetched inverse = inverse1;
#define NORMAL(i) ((GET(from + (i)) - mean) * inverse * PARAMETER(scale + (i)))
        if (biased) {
            for (i = 0; i + V <= length; i += V) PUT(to + i, NORMAL(i) + PARAMETER(bias + i));
            i = length - V;
            PUT(to + i, NORMAL(i) + PARAMETER(bias + i));
        } else {
            for (i = 0; i + V <= length; i += V) PUT(to + i, NORMAL(i));
            PUT(to + length - V, NORMAL(length - V));
        }
        if (stores & 1) means[row] = (TS)mean1;
        if (stores & 2) inverses[row] = (TS)inverse1;
    }
}

#else

#define ADD(n, at, only)                                                                        \
    {                                                                                           \
        const fetched v = only(GET(from + (at)) - mean);                                        \
        const fetched down = only(GET(flow + (at)) * PARAMETER(scale + (at)));                  \
        squares##n += v * v;                                                                    \
        along##n += v * down;                                                                   \
        plain##n += down;                                                                       \
    }
#define WHOLE(v) (v)
#define NEW(v) ONLY(keep, v)
#define COLUMN(p) (*(__global fetched *)(p))

/* dx, and what flows to scale and bias, of the elements from i on. */
#define RESULT(i, only)                                                                         \
    {                                                                                           \
        const fetched normal = (GET(from + (i)) - mean) * inverse, down = GET(flow + (i));      \
        PUT(to + (i), (down * PARAMETER(scale + (i)) - level - normal * slope) * inverse);      \
        COLUMN(dscale + (i)) += only(down * normal);                                            \
        COLUMN(dbias + (i)) += only(down);                                                      \
    }

ALONE __kernel void rows_grad(__global const T *x, __global const TP *scale,
                              __global const T *dy, __global T *dx, __global ACC *sums,
                              const int rows, const int length, const int per_item,
                              const float epsilon)
{
    ROWS;
    __global ACC *dscale = sums + 2 * item * length, *dbias = dscale + length;
    for (int i = 0; i < 2 * length; ++i) dscale[i] = 0;
    for (int row = begin; row < end; ++row) {
        __global const T *from = x + row * length, *flow = dy + row * length;
        __global T *to = dx + row * length;
        const fetched mean = row_mean(from, length, keep);
        fetched squares0 = 0, along0 = 0, plain0 = 0, squares1 = 0, along1 = 0, plain1 = 0;
        int i = 0;
        for (; i + 2 * V <= length; i += 2 * V) {
            ADD(0, i, WHOLE)
            ADD(1, i + V, WHOLE)
        }
        if (i + V <= length) {
            ADD(0, i, WHOLE)
            i += V;
        }
        if (i < length) ADD(1, length - V, NEW)
        const ACC inverse1 = 1 / sqrt(add_up(squares0 + squares1) / length + (ACC)epsilon);
        const fetched inverse = inverse1, slope = add_up(along0 + along1) * inverse1 / length;
        const fetched level = CENTRE ? add_up(plain0 + plain1) / length : 0;
        for (i = 0; i + V <= length; i += V) RESULT(i, WHOLE)
        if (i < length) RESULT(length - V, NEW)
    }
}

/* dscale and dbias, as far as `wanted` (1 and 2), from the items' sums. */
ALONE __kernel void join_rows(__global const ACC *sums, __global TP *dscale, __global TP *dbias,
                              const int wanted, const int items, const int length)
{
    const int first = get_global_id(0) * V;
    if (first + V <= length) {
        fetched along = 0, plain = 0;
        for (int item = 0; item < items; ++item) {
            along += *(__global const fetched *)(sums + 2 * item * length + first);
            plain += *(__global const fetched *)(sums + (2 * item + 1) * length + first);
        }
        if (wanted & 1) *(__global parameters *)(dscale + first) = TO_PARAMETER(along);
        if (wanted & 2) *(__global parameters *)(dbias + first) = TO_PARAMETER(plain);
        return;
    }
    for (int i = first; i < length; ++i) {
        ACC along = 0, plain = 0;
        for (int item = 0; item < items; ++item) {
            along += sums[2 * item * length + i];
            plain += sums[(2 * item + 1) * length + i];
        }
        if (wanted & 1) dscale[i] = (TP)along;
        if (wanted & 2) dbias[i] = (TP)plain;
    }
}

#endif
