/* Batch normalisation by lone work-items, for CPUs: training, inference and the gradient.
 *
 * x is (images, channels, inner), each channel normalised by statistics over images and inner. The
 * planes of a channel are walked in parts small enough for the first cache: some whole planes, or
 * a chunk of one (part % chunks; the last chunk of a plane takes what is left). A part is read
 * once: sums are taken around the mean of the parts before it (the first: around that of an eighth
 * of it) and joined to theirs (Chan, Golub and LeVeque 1979). What cancels when they are taken
 * around a part's own mean is no more than a few times what the join adds: rounding stays small
 * however far the mean is from 0.
 *
 * FORM 0: batch_whole. Item i has the channels from i * per_item on; each is read again for the
 *         result, from a cache if it fits one.
 * FORM 1: batch_sums, then batch_result. Item (slice, channel) has the parts of a channel from
 *         slice * per_slice on; records (slices, channels) of Moments. For few large channels.
 * FORM 2: batch_given. Item i has the planes from i * per_item on; statistics are operands.
 * GRADIENT 1: the gradient's kernels (FORM 0 and 1), which have other operands.
 * Every plane has V elements at least. What a whole vector does not reach at the end of a plane is
 * computed as one that overlaps the one before. Results are deterministic. */

#ifndef TP
#define TP float /* element type of scale, bias and their gradients */
#endif
#ifndef TS
#define TS float /* element type of running statistics */
#endif
#ifndef FORM
#define FORM 0 /* which kernels the program holds, see above */
#endif
#ifndef GRADIENT
#define GRADIENT 0 /* 1: the gradient */
#endif
#ifndef ACTIVATE
#define ACTIVATE(type, v) (v) /* what becomes of a result v of that type (ACC or a vector) */
#endif
/* RESIDUAL: defined where a tensor like x is added before ACTIVATE.
 * MASK_GRADIENT(type, g, y): defined where dy passes an activation with result y first: the
 * gradient of its operand, of g = dy. With RESIDUAL the kernels also write that gradient. */

#include "lanes.cl"

#ifdef RESIDUAL
#define RESIDUAL_ARGUMENT __global const T *residual,
#define MASKED_ARGUMENT __global T *masked,
#else
#define RESIDUAL_ARGUMENT
#define MASKED_ARGUMENT
#endif
#ifdef MASK_GRADIENT
#define RESULT_ARGUMENT __global const T *activated,
#else
#define RESULT_ARGUMENT
#endif

/* Planes walked side by side: each is a stream of its own, and memory serves several at a time better
 * than one; with many operands more of them would drive each other out of the first cache. */
#if GRADIENT || defined(RESIDUAL)
#define TOGETHER 2
#define EACH(F) F(0) F(1)
#else
#define TOGETHER 4
#define EACH(F) F(0) F(1) F(2) F(3)
#endif

typedef struct {
    ACC count, mean;
    ACC squares; /* sum of (x - mean)^2 */
#if GRADIENT
    ACC along, plain; /* sums of dy * (x - mean) and of dy */
#endif
} Moments;

INLINE void join_moments(Moments *all, const Moments part)
{
    const ACC count = all->count + part.count, difference = part.mean - all->mean;
    const ACC share = part.count / count;
    const ACC mean = all->mean + difference * share;
#if GRADIENT
    all->along += (all->mean - mean) * all->plain;
    all->along += part.along + (part.mean - mean) * part.plain;
    all->plain += part.plain;
#endif
    all->squares += part.squares + difference * difference * all->count * share;
    all->mean = mean;
    all->count = count;
}

/* Mean of `planes` pieces of `length` elements, `stride` apart. */
INLINE ACC mean_of(__global const T *x, const int planes, const int stride, const int length)
{
    const fetched keep = new_lanes(length);
    fetched s0 = 0, s1 = 0;
    for (int plane = 0; plane < planes; ++plane, x += stride) {
        int i = 0;
        for (; i + 2 * V <= length; i += 2 * V) {
            s0 += GET(x + i);
            s1 += GET(x + i + V);
        }
        if (i + V <= length) {
            s0 += GET(x + i);
            i += V;
        }
        if (i < length) s1 += ONLY(keep, GET(x + length - V));
    }
    return add_up(s0 + s1) / ((ACC)planes * length);
}

/* What the first part is centred around: the mean of an eighth of it. */
INLINE ACC first_centre(__global const T *x, const int planes, const int stride, const int length)
{
    if (planes > 1) return mean_of(x, (planes + 7) / 8, stride, length);
    return mean_of(x, 1, stride, max(length / 8 / V, 1) * V);
}

#if GRADIENT == 0

#define OPERANDS x
#define STATISTICS_ARGUMENTS __global const T *x,
#define FIELDS(n) fetched sum##n = 0, squares##n = 0;
#define ADD(n, at, only)                                                                        \
    {                                                                                           \
        const fetched v = only(GET(x + (at)) - centre);                                         \
        sum##n += v;                                                                            \
        squares##n += v * v;                                                                    \
    }

#else

#ifdef MASK_GRADIENT
#define FLOW(at) MASK_GRADIENT(fetched, GET(dy + (at)), GET(activated + (at)))
#define OPERANDS x, dy, activated
#else
#define FLOW(at) GET(dy + (at))
#define OPERANDS x, dy
#endif
#define STATISTICS_ARGUMENTS __global const T *x, __global const T *dy, RESULT_ARGUMENT
#define FIELDS(n) fetched sum##n = 0, squares##n = 0, along##n = 0, plain##n = 0;
#define ADD(n, at, only)                                                                        \
    {                                                                                           \
        const fetched v = only(GET(x + (at)) - centre), down = only(FLOW(at));                  \
        sum##n += v;                                                                            \
        squares##n += v * v;                                                                    \
        along##n += down * v;                                                                   \
        plain##n += down;                                                                       \
    }

#endif
#if TOGETHER == 2
#define ALL(field) add_up(field##0 + field##1)
#else
#define ALL(field) add_up((field##0 + field##1) + (field##2 + field##3))
#endif
#define WHOLE(v) (v)
#define NEW(v) ONLY(keep, v)

/* Moments of a part from element `first` on, in one pass around `around`. */
INLINE Moments part_moments(STATISTICS_ARGUMENTS const int first, const int planes,
                            const int stride, const int length, const ACC around)
{
    const fetched keep = new_lanes(length), centre = around;
    EACH(FIELDS)
    int plane = 0, at = first;
    for (; plane + TOGETHER <= planes; plane += TOGETHER, at += TOGETHER * stride) {
        const int end = at + length;
        int i = at;
        for (; i + V <= end; i += V) {
#define ADD_NEXT(n) ADD(n, i + n * stride, WHOLE)
            EACH(ADD_NEXT)
        }
        if (i < end) {
#define ADD_LAST(n) ADD(n, end - V + n * stride, NEW)
            EACH(ADD_LAST)
        }
    }
    for (; plane < planes; ++plane, at += stride) {
        const int end = at + length;
        int i = at;
        for (; i + 2 * V <= end; i += 2 * V) {
            ADD(0, i, WHOLE)
            ADD(1, i + V, WHOLE)
        }
        if (i + V <= end) {
            ADD(0, i, WHOLE)
            i += V;
        }
        if (i < end) ADD(1, end - V, NEW)
    }
    Moments found;
    found.count = (ACC)planes * length;
    const ACC sum = ALL(sum), apart = sum / found.count, within = ALL(squares) - sum * apart;
    found.mean = around + apart;
    found.squares = within < 0 ? 0 : within;
#if GRADIENT
    found.plain = ALL(plain);
    found.along = ALL(along) - apart * found.plain;
#endif
    return found;
}

/* Where a part of `channel` begins, how many planes it has and what of them. */
#define PART_ARGUMENTS                                                                          \
    const int images, const int channels, const int inner, const int images_per_part,           \
        const int chunks, const int chunk
#define PARTS images, channels, inner, images_per_part, chunks, chunk
#define PART_PLACE                                                                              \
    const int image = part / chunks * images_per_part, number = part % chunks;                  \
    const int begin = number * chunk, length = number == chunks - 1 ? inner - begin : chunk;    \
    const int planes = min(images_per_part, images - image), stride = channels * inner;         \
    const int at = (image * channels + channel) * inner + begin

/* Moments of parts `first` to `last` of a channel. */
INLINE Moments moments_of(STATISTICS_ARGUMENTS const int channel, const int first, const int last,
                          PART_ARGUMENTS)
{
    Moments all = {0};
    for (int part = first; part < last; ++part) {
        PART_PLACE;
        const ACC around = part > first ? all.mean : first_centre(x + at, planes, stride, length);
        join_moments(&all, part_moments(OPERANDS, at, planes, stride, length, around));
    }
    return all;
}

#if GRADIENT == 0

#ifdef RESIDUAL
#define RESULT_OF(i) \
    ACTIVATE(fetched, (GET(x + (i)) - mean) * factor + shift + GET(residual + (i)))
#else
#define RESULT_OF(i) ACTIVATE(fetched, (GET(x + (i)) - mean) * factor + shift)
#endif

/* y = (x - mean) * factor + shift for `length` elements from `at` on, of one plane or TOGETHER planes
 * `stride` apart. The operands of overlapping vectors are read first: y may be an operand's storage. */
INLINE void normalise(__global const T *x, RESIDUAL_ARGUMENT __global T *y, const int at,
                      const int planes, const int stride, const int length, const ACC mean_,
                      const ACC factor_, const ACC shift_)
{
    const fetched mean = mean_, factor = factor_, shift = shift_;
    const int end = at + length, last = end - V;
    int i = at;
#define TAKE_LAST(n) const fetched last##n = RESULT_OF(last + n * stride);
#define TAKE_NEXT(n) const fetched v##n = RESULT_OF(i + n * stride);
#define GIVE_LAST(n) PUT(y + last + n * stride, last##n);
#define GIVE_NEXT(n) PUT(y + i + n * stride, v##n);
    if (planes == TOGETHER) {
        EACH(TAKE_LAST)
        for (; i < last; i += V) {
            EACH(TAKE_NEXT)
            EACH(GIVE_NEXT)
        }
        EACH(GIVE_LAST)
        return;
    }
    TAKE_LAST(0)
    for (; i < last - V; i += 2 * V) {
        const fetched v0 = RESULT_OF(i), v1 = RESULT_OF(i + V);
        PUT(y + i, v0);
        PUT(y + i + V, v1);
    }
    if (i < last) PUT(y + i, RESULT_OF(i));
    GIVE_LAST(0)
}
#ifdef RESIDUAL
#define DESTINATION x, residual, y
#else
#define DESTINATION x, y
#endif

/* Running statistics: old * momentum + batch * (1 - momentum), the variance biased as in ONNX.
 * `running` is 1 for the mean, 2 for the variance, 3 for both; the operands of others are unused. */
#define RUNNING_ARGUMENTS                                                                       \
    __global const TS *old_means, __global const TS *old_variances, __global TS *new_means,     \
        __global TS *new_variances, const int running
#define BLEND(old, new) ((TS)((ACC)(old) * (ACC)momentum + (new) * (1 - (ACC)momentum)))
#define WRITE_RUNNING(mean, variance)                                                           \
    if (running & 1) new_means[channel] = BLEND(old_means[channel], mean);                      \
    if (running & 2) new_variances[channel] = BLEND(old_variances[channel], variance)

#else

/* dx = factor * (dy - level - slope * (x - mean)), as in normalise. */
INLINE void flow_back(STATISTICS_ARGUMENTS MASKED_ARGUMENT __global T *dx, const int at,
                      const int planes, const int stride, const int length, const ACC mean_,
                      const ACC factor_, const ACC level_, const ACC slope_)
{
    const fetched mean = mean_, factor = factor_, level = level_, slope = slope_;
#ifdef RESIDUAL
#define KEEP(i, down) PUT(masked + (i), down);
#else
#define KEEP(i, down)
#endif
    const int end = at + length, last = end - V;
    int i = at;
#define TAKE(name, i)                                                                           \
    const fetched down_##name = FLOW(i);                                                        \
    const fetched name = factor * (down_##name - level - slope * (GET(x + (i)) - mean));
#define GIVE(name, i)                                                                           \
    PUT(dx + (i), name);                                                                        \
    KEEP(i, down_##name)
#define TAKE_LAST(n) TAKE(last##n, last + n * stride)
#define TAKE_NEXT(n) TAKE(v##n, i + n * stride)
#define GIVE_LAST(n) GIVE(last##n, last + n * stride)
#define GIVE_NEXT(n) GIVE(v##n, i + n * stride)
    if (planes == TOGETHER) {
        EACH(TAKE_LAST)
        for (; i < last; i += V) {
            EACH(TAKE_NEXT)
            EACH(GIVE_NEXT)
        }
        EACH(GIVE_LAST)
        return;
    }
    TAKE_LAST(0)
    for (; i < last; i += V) {
        TAKE_NEXT(0)
        GIVE_NEXT(0)
    }
    GIVE_LAST(0)
}
#ifdef RESIDUAL
#define DESTINATION OPERANDS, masked, dx
#else
#define DESTINATION OPERANDS, dx
#endif

#endif

#if GRADIENT == 0
/* What a result is made with, from all.squares and the like. */
#define COEFFICIENTS                                                                            \
    const ACC variance = all.squares / all.count, shift = (ACC)bias[channel];                   \
    const ACC factor = (ACC)scale[channel] / sqrt(variance + (ACC)epsilon)
#define RESULT_FROM(at, planes, length)                                                         \
    normalise(DESTINATION, at, planes, channels * inner, length, all.mean, factor, shift)
#else
#define COEFFICIENTS                                                                            \
    const ACC inverse = 1 / sqrt(all.squares / all.count + (ACC)epsilon);                       \
    const ACC factor = (ACC)scale[channel] * inverse, level = all.plain / all.count;            \
    const ACC slope = all.along * inverse * inverse / all.count
#define RESULT_FROM(at, planes, length)                                                         \
    flow_back(DESTINATION, at, planes, channels * inner, length, all.mean, factor, level, slope)
#define WRITE_PARAMETERS                                                                        \
    dscale[channel] = (TP)(all.along * inverse);                                                \
    dbias[channel] = (TP)all.plain
#endif

#if FORM == 0

#if GRADIENT == 0
ALONE __kernel void batch_whole(__global const T *x, __global const TP *scale,
                                __global const TP *bias, RESIDUAL_ARGUMENT __global T *y,
                                RUNNING_ARGUMENTS, PART_ARGUMENTS, const int per_item,
                                const float epsilon, const float momentum)
#else
ALONE __kernel void batch_grad_whole(__global const T *x, __global const TP *scale,
                                     __global const T *dy, RESULT_ARGUMENT MASKED_ARGUMENT
                                     __global T *dx, __global TP *dscale, __global TP *dbias,
                                     PART_ARGUMENTS, const int per_item, const float epsilon)
#endif
{
    const int item = get_global_id(0);
    const int parts = (images + images_per_part - 1) / images_per_part * chunks;
    const int end = min(channels, (item + 1) * per_item);
    for (int channel = item * per_item; channel < end; ++channel) {
        const Moments all = moments_of(OPERANDS, channel, 0, parts, PARTS);
        COEFFICIENTS;
        /* Backwards: what was read last is still in a cache. */
        for (int left = images; left > 0;) {
            const int planes = left >= TOGETHER ? TOGETHER : 1;
            left -= planes;
            RESULT_FROM((left * channels + channel) * inner, planes, inner);
        }
#if GRADIENT
        WRITE_PARAMETERS;
#else
        WRITE_RUNNING(all.mean, variance);
#endif
    }
}

#elif FORM == 1

#define SLICE                                                                                   \
    const int slice = get_global_id(0), channel = get_global_id(1);                             \
    const int parts = (images + images_per_part - 1) / images_per_part * chunks;                \
    const int begin_part = slice * per_slice, end_part = min(parts, begin_part + per_slice)

#if GRADIENT
#define batch_sums batch_grad_sums
#define batch_result batch_grad_result
#endif
ALONE __kernel void batch_sums(STATISTICS_ARGUMENTS __global Moments *records, PART_ARGUMENTS,
                               const int per_slice)
{
    SLICE;
    records[slice * channels + channel] =
        moments_of(OPERANDS, channel, begin_part, end_part, PARTS);
}

#if GRADIENT == 0
ALONE __kernel void batch_result(__global const T *x, __global const TP *scale,
                                 __global const TP *bias, RESIDUAL_ARGUMENT __global T *y,
                                 RUNNING_ARGUMENTS, __global const Moments *records,
                                 PART_ARGUMENTS, const int per_slice, const float epsilon,
                                 const float momentum)
#else
ALONE __kernel void batch_result(__global const T *x, __global const TP *scale,
                                 __global const T *dy, RESULT_ARGUMENT MASKED_ARGUMENT
                                 __global T *dx, __global TP *dscale, __global TP *dbias,
                                 __global const Moments *records, PART_ARGUMENTS,
                                 const int per_slice, const float epsilon)
#endif
{
    SLICE;
    Moments all = {0};
    for (int other = 0; other < (int)get_global_size(0); ++other)
        join_moments(&all, records[other * channels + channel]);
    COEFFICIENTS;
    for (int part = begin_part; part < end_part; ++part) {
        PART_PLACE;
        for (int plane = 0; plane < planes;) {
            const int next = planes - plane >= TOGETHER ? TOGETHER : 1;
            RESULT_FROM(at + plane * stride, next, length);
            plane += next;
        }
    }
    if (slice > 0) return;
#if GRADIENT
    WRITE_PARAMETERS;
#else
    WRITE_RUNNING(all.mean, variance);
#endif
}

#else

ALONE __kernel void batch_given(__global const T *x, __global const TP *scale,
                                __global const TP *bias, __global const TS *means,
                                __global const TS *variances, RESIDUAL_ARGUMENT __global T *y,
                                const int images, const int channels, const int inner,
                                const int per_item, const float epsilon)
{
    const int item = get_global_id(0);
    const int end = min(images * channels, (item + 1) * per_item);
    for (int row = item * per_item; row < end; ++row) {
        const int channel = row % channels;
        const ACC mean = means[channel], shift = bias[channel];
        const ACC factor = (ACC)scale[channel] / sqrt((ACC)variances[channel] + (ACC)epsilon);
        normalise(DESTINATION, row * inner, 1, 0, inner, mean, factor, shift);
    }
}

#endif
