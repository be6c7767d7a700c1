/* Batch normalisation of a share of a batch, and its gradient, by one lone work-item that meets
 * those of other processors, which have the other shares and work at the same time.
 *
 * x is (images, channels, inner). Blocks of per_block channels are summed up, which the others are
 * told; a block of which all sums are there is finished, from a cache if nobody is late. As long as
 * somebody is, more blocks are summed up. All members' sums are joined in the same order: all get
 * the same statistics, whoever comes first.
 *
 * place: MEMBERS lines of LINE words, the first of each is how many channels that member has summed
 * up; then 2 numbers per channel of each member: mean and variance, or the sums of dy (x - mean) and
 * of dy. 0 when the pass begins. Counts from ABANDONED on: the pass came to no end, and nobody will
 * use its results. Who waits in vain for PATIENCE readings makes NaN.
 * GRADIENT 1: the gradient; mean and variance of the batch are operands. */

#ifndef MEMBERS
#define MEMBERS 2
#endif
#ifndef MEMBER
#define MEMBER 0 /* which of them this one is */
#endif
#ifndef GRADIENT
#define GRADIENT 0
#endif
#ifndef RUNNING
#define RUNNING 0 /* 1: there are running statistics */
#endif
#ifndef EACH_MEMBER
#define EACH_MEMBER(F) F(0) F(1) /* what is written for each member */
#endif
#ifndef PATIENCE
#define PATIENCE (1UL << 37) /* a minute and more */
#endif
#define LINE 16
#define ABANDONED 0x7f000000

#if GRADIENT
#include "norm_streams.cl"
#else
#define FORM 4
#include "norm_planes.cl"
#endif

typedef volatile __global int *Counts;
typedef volatile __global float *Sums;
#define SUMS_OF(k) ((Sums)(place + MEMBERS * LINE) + (k) * 2 * channels)

/* Channels of which all sums are there. */
INLINE int known(Counts place)
{
    int least = place[0];
    for (int k = 1; k < MEMBERS; ++k) least = min(least, place[k * LINE]);
    return least;
}

INLINE void tell(__global int *place, const int channels)
{
    /* A full barrier: what was written before is there for whoever sees the number. */
    atomic_xchg((Counts)place + MEMBER * LINE, channels);
}

/* Whether all sums of so many channels come at last. */
INLINE int wait_for(__global int *place, const int channels)
{
    ulong left = PATIENCE;
    while (known(place) < channels)
        if (--left == 0) return 0;
    return 1;
}

#define BLOCKS(SUM_UP, FINISH)                                                                  \
    int summed = 0, finished = 0, late = 0;                                                     \
    while (finished < channels) {                                                               \
        const int next = min(finished + per_block, channels);                                   \
        if (summed == channels || known(place) >= next) {                                       \
            late |= !wait_for(place, next);                                                     \
            atomic_or((Counts)place + MEMBER * LINE, 0);                                        \
            for (int channel = finished; channel < next; ++channel) FINISH;                     \
            finished = next;                                                                    \
        } else {                                                                                \
            const int last = min(summed + per_block, channels);                                 \
            for (int channel = summed; channel < last; ++channel) SUM_UP;                       \
            tell(place, summed = last);                                                         \
        }                                                                                       \
    }

#if GRADIENT == 0

#define PART_ARGUMENT(k) const float part##k,
#define PART_OF(k) part##k,
#define ADD_MEAN(k) mean += part##k * SUMS_OF(k)[2 * channel];
#define ADD_VARIANCE(k)                                                                         \
    {                                                                                           \
        const ACC apart = SUMS_OF(k)[2 * channel] - mean;                                       \
        variance += part##k * (SUMS_OF(k)[2 * channel + 1] + apart * apart);                    \
    }

INLINE void sum_up(__global const T *x, __global int *place, PART_ARGUMENTS, const int channel)
{
    const int parts = (images + images_per_part - 1) / images_per_part * chunks;
    const Moments all = moments_of(x, channel, 0, parts, PARTS);
    Sums own = SUMS_OF(MEMBER) + 2 * channel;
    own[0] = all.mean;
    own[1] = all.squares / all.count;
}

INLINE void finish(__global const T *x, __global const TP *scale, __global const TP *bias,
                   __global int *place, RESIDUAL_ARGUMENT __global T *y, __global TS *means,
                   __global TS *variances, const int images, const int channels, const int inner,
                   EACH_MEMBER(PART_ARGUMENT) const float epsilon, const int late,
                   const int channel)
{
    ACC mean = late ? NAN : 0, variance = 0;
    EACH_MEMBER(ADD_MEAN)
    EACH_MEMBER(ADD_VARIANCE)
    means[channel] = mean;
    variances[channel] = variance;
    const ACC factor = (ACC)scale[channel] / sqrt(variance + (ACC)epsilon), shift = bias[channel];
    /* Backwards: what was read last is still in a cache. */
    for (int image = (images - 1) / TOGETHER * TOGETHER; image >= 0; image -= TOGETHER)
        normalise(DESTINATION, (image * channels + channel) * inner, images - image,
                  channels * inner, inner, mean, factor, shift);
}

#if RUNNING
#define RUNNING_OPERANDS                                                                        \
    __global const TS *old_means, __global const TS *old_variances, __global TS *new_means,     \
        __global TS *new_variances,
#else
#define RUNNING_OPERANDS
#endif
#define MIXED(old, new) ((TS)((ACC)(old) * (ACC)momentum + (new) * (1 - (ACC)momentum)))

ALONE __kernel void batch_joint(__global const T *x, __global const TP *scale,
                                __global const TP *bias, __global int *words,
                                RESIDUAL_ARGUMENT __global T *y, __global TS *means,
                                __global TS *variances, RUNNING_OPERANDS PART_ARGUMENTS,
                                EACH_MEMBER(PART_ARGUMENT) const int offset,
                                const int per_block, const float epsilon, const float momentum)
{
    __global int *place = words + offset;
#ifdef RESIDUAL
#define MORE residual,
#else
#define MORE
#endif
    BLOCKS(sum_up(x, place, PARTS, channel),
           finish(x, scale, bias, place, MORE y, means, variances, images, channels, inner,
                  EACH_MEMBER(PART_OF) epsilon, late, channel))
#if RUNNING
    if (known(place) >= ABANDONED) return;
    for (int channel = 0; channel < channels; ++channel) {
        new_means[channel] = MIXED(old_means[channel], means[channel]);
        new_variances[channel] = MIXED(old_variances[channel], variances[channel]);
    }
#endif
}

#else

#define AS_THEY_ARE(f) /* coefficients are the same for all vectors */
#define FIELDS(k) fetched along##k = 0, plain##k = 0;
#define ADD(k)                                                                                  \
    {                                                                                           \
        const fetched down = part * FLOW(i + o##k);                                             \
        along##k += down * (X_AT(i + o##k) - mean);                                             \
        plain##k += down;                                                                       \
    }
#define TAKE_IN(k)                                                                              \
    if (k < left) {                                                                             \
        alongs += along##k;                                                                     \
        plains += plain##k;                                                                     \
    }
#define ADD_MEMBER(k)                                                                           \
    all_along += SUMS_OF(k)[2 * channel];                                                       \
    all_plain += SUMS_OF(k)[2 * channel + 1];
#ifdef MASK_GRADIENT
#define FLOW_ARGUMENTS X_ARGUMENT __global const T *dy, RESULT_ARGUMENT
#define FLOW_OPERANDS X, dy, ACTIVATED,
#else
#define FLOW_ARGUMENTS X_ARGUMENT __global const T *dy,
#define FLOW_OPERANDS X, dy,
#endif
#ifdef RESIDUAL
#define TARGETS masked, dx
#else
#define TARGETS dx
#endif

INLINE void sum_up(FLOW_ARGUMENTS __global const TS *means, __global int *place,
                   const int images, const int channels, const int inner, const int channel)
{
    const int stride = channels * inner;
    const fetched keep = new_lanes(inner), whole = 1, mean = (ACC)means[channel];
    fetched alongs = 0, plains = 0;
    for (int image = 0; image < images; image += TOGETHER) {
        const int left = images - image, at = (image * channels + channel) * inner;
        EACH(STREAM)
        EACH(FIELDS)
        for (int f = 0; f < inner; f += V) {
            const fetched part = f + V <= inner ? whole : keep;
            const int i = at + PLACE(f, inner);
            EACH(ADD)
        }
        EACH(TAKE_IN)
    }
    Sums own = SUMS_OF(MEMBER) + 2 * channel;
    own[0] = add_up(alongs);
    own[1] = add_up(plains);
}

INLINE void finish(FLOW_ARGUMENTS __global const TP *scale, __global const TS *means,
                   __global const TS *variances, __global int *place, MASKED_ARGUMENT
                   __global T *dx, __global TP *dscale, __global TP *dbias, const int images,
                   const int channels, const int inner, const int count, const float epsilon,
                   const int late, const int channel)
{
    ACC all_along = late ? NAN : 0, all_plain = 0;
    EACH_MEMBER(ADD_MEMBER)
    const ACC inverse = 1 / sqrt((ACC)variances[channel] + (ACC)epsilon);
    const fetched mean = (ACC)means[channel], level = all_plain / count;
    const fetched slope = all_along * inverse * inverse / count;
    const fetched factor = (ACC)scale[channel] * inverse;
    dscale[channel] = (TP)(all_along * inverse);
    dbias[channel] = (TP)all_plain;
    const int stride = channels * inner;
    for (int image = (images - 1) / TOGETHER * TOGETHER; image >= 0; image -= TOGETHER) {
        const int left = images - image, at = (image * channels + channel) * inner;
        EACH(STREAM)
        WRITE_RESULTS(at, inner, AS_THEY_ARE)
    }
}

ALONE __kernel void batch_joint_grad(X_ARGUMENT __global const TP *scale, __global const T *dy,
                                     RESULT_ARGUMENT __global const TS *means,
                                     __global const TS *variances, __global int *words,
                                     MASKED_ARGUMENT __global T *dx, __global TP *dscale,
                                     __global TP *dbias, const int images, const int channels,
                                     const int inner, const int count, const int offset,
                                     const int per_block, const float epsilon)
{
    __global int *place = words + offset;
    BLOCKS(sum_up(FLOW_OPERANDS means, place, images, channels, inner, channel),
           finish(FLOW_OPERANDS scale, means, variances, place, TARGETS, dscale, dbias, images,
                  channels, inner, count, epsilon, late, channel))
}

#endif
