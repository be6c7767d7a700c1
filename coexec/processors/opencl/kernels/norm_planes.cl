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
 * FORM 3: batch_statistics. Channels as in FORM 0; no result but mean and variance.
 * FORM 2: batch_given. Item i has the planes from i * per_item on; statistics are operands.
 * FORM 4: no kernel (norm_joint.cl has its own).
 * GRADIENT 1: the gradient's kernels (FORM 0 and 1), which have other operands.
 * Every plane has V elements at least. What a whole vector does not reach at the end of a plane is
 * computed as one that overlaps the one before. Results are deterministic. */

#ifndef FORM
#define FORM 0 /* which kernels the program holds, see above */
#endif
#if FORM == 2
#define TOGETHER 1 /* planes with coefficients of their own */
#endif

#include "norm_streams.cl"

#if FORM != 2

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

/* Mean of `planes` pieces of `length` elements from `at` on, `stride` apart. */
INLINE ACC mean_of(X_ARGUMENT int at, const int planes, const int stride, const int length)
{
    const fetched keep = new_lanes(length), whole = 1;
    fetched sum = 0;
    for (int plane = 0; plane < planes; ++plane, at += stride)
        for (int f = 0; f < length; f += V)
            sum += (f + V <= length ? whole : keep) * X_AT(at + PLACE(f, length));
    return add_up(sum) / ((ACC)planes * length);
}

/* What the first part is centred around: the mean of an eighth of it. */
INLINE ACC first_centre(X_ARGUMENT const int at, const int planes, const int stride,
                        const int length)
{
    const int some = max(length / 8 / V, 1) * V;
    return mean_of(X, at, (planes + 7) / 8, stride, planes > 1 ? length : some);
}

#if GRADIENT == 0
#define OPERANDS x
#define STATISTICS_ARGUMENTS __global const T *x,
#define FIELDS(k) fetched sum##k = 0, squares##k = 0;
#define ADD(k)                                                                                  \
    {                                                                                           \
        const fetched v = part * (X_AT(i + o##k) - centre);                                  \
        sum##k += v;                                                                            \
        squares##k += v * v;                                                                    \
    }
#define TAKE_IN(k)                                                                              \
    if (k < left) {                                                                             \
        sums += sum##k;                                                                         \
        squares += squares##k;                                                                  \
    }
#else
#ifdef MASK_GRADIENT
#define OPERANDS X, dy, ACTIVATED
#else
#define OPERANDS X, dy
#endif
#define STATISTICS_ARGUMENTS X_ARGUMENT __global const T *dy, RESULT_ARGUMENT
#define FIELDS(k) fetched sum##k = 0, squares##k = 0, along##k = 0, plain##k = 0;
#define ADD(k)                                                                                  \
    {                                                                                           \
        const fetched v = part * (X_AT(i + o##k) - centre), down = part * FLOW(i + o##k);    \
        sum##k += v;                                                                            \
        squares##k += v * v;                                                                    \
        along##k += down * v;                                                                   \
        plain##k += down;                                                                       \
    }
#define TAKE_IN(k)                                                                              \
    if (k < left) {                                                                             \
        sums += sum##k;                                                                         \
        squares += squares##k;                                                                  \
        along += along##k;                                                                      \
        plain += plain##k;                                                                      \
    }
#endif

/* Moments of a part from element `first` on, in one pass around `around`. */
INLINE Moments part_moments(STATISTICS_ARGUMENTS const int first, const int planes,
                            const int stride, const int length, const ACC around)
{
    const fetched keep = new_lanes(length), whole = 1, centre = around;
    fetched sums = 0, squares = 0;
#if GRADIENT
    fetched along = 0, plain = 0;
#endif
    for (int plane = 0; plane < planes; plane += TOGETHER) {
        const int left = planes - plane, at = first + plane * stride;
        EACH(STREAM)
        EACH(FIELDS)
        for (int f = 0; f < length; f += V) {
            const fetched part = f + V <= length ? whole : keep;
            const int i = at + PLACE(f, length);
            EACH(ADD)
        }
        EACH(TAKE_IN)
    }
    Moments found;
    found.count = (ACC)planes * length;
    const ACC sum = add_up(sums), apart = sum / found.count;
    const ACC within = add_up(squares) - sum * apart;
    found.mean = around + apart;
    found.squares = within < 0 ? 0 : within;
#if GRADIENT
    found.plain = add_up(plain);
    found.along = add_up(along) - apart * found.plain;
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
        const ACC around = part > first ? all.mean : first_centre(X, at, planes, stride, length);
        join_moments(&all, part_moments(OPERANDS, at, planes, stride, length, around));
    }
    return all;
}

#endif

#define AS_THEY_ARE(f) /* coefficients are the same for all vectors */

#if GRADIENT == 0

#ifdef RESIDUAL
#define DESTINATION x, residual, KEEP_X_TARGETS KEEP_Y_TARGETS y
#else
#define DESTINATION x, KEEP_X_TARGETS KEEP_Y_TARGETS y
#endif

/* y = (x - mean) * factor + shift for `length` elements from `at` on, of the first of
 * `left` planes, `stride` apart. */
INLINE void normalise(__global const T *x, RESIDUAL_ARGUMENT KEEP_X_ARGUMENT KEEP_Y_ARGUMENT
                      __global T *y, const int at, const int left, const int stride,
                      const int length, const ACC mean_, const ACC factor_, const ACC shift_)
{
    const fetched mean = mean_, factor = factor_, shift = shift_;
    EACH(STREAM)
    KEEP_X_BLOCKS(at, length)
    WRITE_RESULTS(at, length, AS_THEY_ARE)
    KEEP_Y_BLOCKS(at, length)
}

#define RUNNING_ARGUMENTS                                                                       \
    __global const TS *old_means, __global const TS *old_variances, __global TS *new_means,     \
        __global TS *new_variances, const int running

#else

#ifdef RESIDUAL
#define DESTINATION OPERANDS, masked, dx
#else
#define DESTINATION OPERANDS, dx
#endif

/* dx = factor * (dy - level - slope * (x - mean)), as in normalise. */
INLINE void flow_back(STATISTICS_ARGUMENTS MASKED_ARGUMENT __global T *dx, const int at,
                      const int left, const int stride, const int length, const ACC mean_,
                      const ACC factor_, const ACC level_, const ACC slope_)
{
    const fetched mean = mean_, factor = factor_, level = level_, slope = slope_;
    EACH(STREAM)
    WRITE_RESULTS(at, length, AS_THEY_ARE)
}

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
                                __global const TP *bias, RESIDUAL_ARGUMENT KEEP_X_ARGUMENT
                                KEEP_Y_ARGUMENT __global T *y, RUNNING_ARGUMENTS,
                                PART_ARGUMENTS, const int per_item, const float epsilon,
                                const float momentum)
#else
ALONE __kernel void batch_grad_whole(X_ARGUMENT __global const TP *scale,
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
        for (int image = (images - 1) / TOGETHER * TOGETHER; image >= 0; image -= TOGETHER)
            RESULT_FROM((image * channels + channel) * inner, images - image, inner);
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
                                 __global const TP *bias, RESIDUAL_ARGUMENT KEEP_X_ARGUMENT
                                 KEEP_Y_ARGUMENT __global T *y, RUNNING_ARGUMENTS,
                                 __global const Moments *records, PART_ARGUMENTS,
                                 const int per_slice, const float epsilon, const float momentum)
#else
ALONE __kernel void batch_result(X_ARGUMENT __global const TP *scale,
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
        for (int plane = 0; plane < planes; plane += TOGETHER)
            RESULT_FROM(at + plane * stride, planes - plane, length);
    }
    if (slice > 0) return;
#if GRADIENT
    WRITE_PARAMETERS;
#else
    WRITE_RUNNING(all.mean, variance);
#endif
}

#elif FORM == 3

ALONE __kernel void batch_statistics(__global const T *x, __global TS *means,
                                     __global TS *variances, PART_ARGUMENTS, const int per_item)
{
    const int item = get_global_id(0);
    const int parts = (images + images_per_part - 1) / images_per_part * chunks;
    const int end = min(channels, (item + 1) * per_item);
    for (int channel = item * per_item; channel < end; ++channel) {
        const Moments all = moments_of(OPERANDS, channel, 0, parts, PARTS);
        means[channel] = (TS)all.mean;
        variances[channel] = (TS)(all.squares / all.count);
    }
}

#elif FORM == 2

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
