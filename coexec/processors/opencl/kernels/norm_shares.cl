/* Batch normalisation of a batch of which each processor has a share: what is joined between steps.
 *
 * x is (images, channels, inner), vectors have one value per channel.
 * STEP 0: join_statistics, one work-item per channel: mean and variance of the batch from those of all
 *         shares, new running statistics from old ones.
 * STEP 1: batch_share_sums, lone work-items: item i has the channels from i * per_item on, each read
 *         once. Planes have V elements at least; what a whole vector does not reach at the end of a
 *         plane is read as one that overlaps the one before.
 * STEP 2: batch_share_flow, lone work-items: item i has the planes from i * per_item on.
 * STEP 3: batch_statistics_naive, STEP 4: batch_share_sums_naive: a work-group of LANES items per
 *         channel. STEP 5: batch_share_flow_naive: one element per work-item.
 * Results are deterministic. */

#ifndef STEP
#define STEP 0 /* which kernels the program holds, see above */
#endif
#ifndef TM
#define TM float /* element type of statistics, and of sums as operands */
#endif
#ifndef TA
#define TA float /* type of arithmetic with them */
#endif
#ifndef TV
#define TV float /* element type of running variances; TS is that of running means */
#endif
#ifndef RUNNING
#define RUNNING 0 /* 1: there are running statistics */
#endif
#ifndef EACH_SHARE
#define EACH_SHARE(F) F(0) F(1) /* what is written for each share of the batch */
#endif
#define LANES_ONLY (STEP == 1 || STEP == 2)

#if LANES_ONLY
#define GRADIENT 1
#if STEP == 2
#define TOGETHER 1 /* planes with coefficients of their own */
#endif
#include "norm_streams.cl"
#else
#ifndef T
#define T float /* element type of x and dy */
#endif
#ifndef TP
#define TP float /* element type of scale, bias and their gradients */
#endif
#ifndef TS
#define TS float /* element type of running means, and of sums as results */
#endif
#define ROWS 1
#include "group.cl"
#endif

#if STEP == 0

#define SHARE_ARGUMENT(k) __global const TM *mean##k, __global const TM *variance##k, const float part##k,
#define ADD_MEAN(k) mean += (TA)part##k * (TA)mean##k[channel];
#define ADD_VARIANCE(k)                                                                         \
    {                                                                                           \
        const TA apart = (TA)mean##k[channel] - mean;                                           \
        variance += (TA)part##k * ((TA)variance##k[channel] + apart * apart);                   \
    }
#define BLEND(type, old, new) ((type)((TA)(old) * (TA)momentum + (new) * (1 - (TA)momentum)))

__kernel void join_statistics(
#if RUNNING
    __global const TS *old_means, __global const TV *old_variances, __global TS *new_means,
    __global TV *new_variances,
#endif
    EACH_SHARE(SHARE_ARGUMENT) __global TM *means, __global TM *variances, const int channels,
    const float momentum)
{
    const int channel = get_global_id(0);
    if (channel >= channels) return;
    TA mean = 0, variance = 0;
    EACH_SHARE(ADD_MEAN)
    EACH_SHARE(ADD_VARIANCE)
    means[channel] = (TM)mean;
    variances[channel] = (TM)variance;
#if RUNNING
    new_means[channel] = BLEND(TS, old_means[channel], mean);
    new_variances[channel] = BLEND(TV, old_variances[channel], variance);
#endif
}

#elif STEP == 1

#define FIELDS(k) fetched along##k = 0, plain##k = 0;
#ifdef RESIDUAL
#define KEEP(k) PUT(masked + i + o##k, down##k);
#else
#define KEEP(k)
#endif
/* All elements are fetched before a masked one is stored, which may be the storage of dy: masking
 * twice what two vectors share changes nothing. */
#define TAKE(k) const fetched v##k = GET(x + i + o##k) - mean, down##k = FLOW(i + o##k);
#define ADD(k)                                                                                  \
    {                                                                                           \
        const fetched share = part * down##k;                                                   \
        along##k += share * v##k;                                                               \
        plain##k += share;                                                                      \
    }
#define TAKE_IN(k)                                                                              \
    if (k < left) {                                                                             \
        alongs += along##k;                                                                     \
        plains += plain##k;                                                                     \
    }

ALONE __kernel void batch_share_sums(__global const T *x, __global const TM *means,
                                     __global const T *dy, RESULT_ARGUMENT MASKED_ARGUMENT
                                     __global TS *along, __global TS *plain, const int images,
                                     const int channels, const int inner, const int per_item)
{
    const int item = get_global_id(0), end = min(channels, (item + 1) * per_item);
    const int stride = channels * inner;
    const fetched keep = new_lanes(inner), whole = 1;
    for (int channel = item * per_item; channel < end; ++channel) {
        const fetched mean = (ACC)means[channel];
        fetched alongs = 0, plains = 0;
        for (int image = 0; image < images; image += TOGETHER) {
            const int left = images - image, at = (image * channels + channel) * inner;
            EACH(STREAM)
            EACH(FIELDS)
            for (int f = 0; f < inner; f += V) {
                const fetched part = f + V <= inner ? whole : keep;
                const int i = at + PLACE(f, inner);
                EACH(TAKE)
                EACH(ADD)
                EACH(KEEP)
            }
            EACH(TAKE_IN)
        }
        along[channel] = (TS)add_up(alongs);
        plain[channel] = (TS)add_up(plains);
    }
}

#elif STEP == 2 || STEP == 5

#define SHARE_ARGUMENT(k) __global const TM *along##k, __global const TM *plain##k,
#define ADD_SHARE(k)                                                                            \
    all_along += (ACC)along##k[channel];                                                        \
    all_plain += (ACC)plain##k[channel];
#define FLOW_ARGUMENTS                                                                          \
    __global const T *x, __global const TP *scale, __global const T *dy,                        \
        __global const TM *means, __global const TM *variances,                                 \
        EACH_SHARE(SHARE_ARGUMENT) __global T *dx, __global TP *dscale, __global TP *dbias,     \
        const int images, const int channels, const int inner, const int count,                 \
        const float epsilon
/* What the gradient is made with in a channel. */
#define COEFFICIENTS                                                                            \
    ACC all_along = 0, all_plain = 0;                                                           \
    EACH_SHARE(ADD_SHARE)                                                                       \
    const ACC inverse = 1 / sqrt((ACC)variances[channel] + (ACC)epsilon);                       \
    const ACC one_slope = all_along * inverse * inverse / count, one_mean = means[channel];     \
    const ACC one_factor = (ACC)scale[channel] * inverse, one_level = all_plain / count
#define WRITE_PARAMETERS                                                                        \
    dscale[channel] = (TP)(all_along * inverse);                                                \
    dbias[channel] = (TP)all_plain

#if STEP == 2

#define AS_THEY_ARE(f) /* coefficients are the same for all vectors */

ALONE __kernel void batch_share_flow(FLOW_ARGUMENTS, const int per_item)
{
    const int item = get_global_id(0), left = 1, stride = 0;
    const int end = min(images * channels, (item + 1) * per_item);
    EACH(STREAM)
    for (int row = item * per_item; row < end; ++row) {
        const int channel = row % channels, at = row * inner;
        COEFFICIENTS;
        const fetched mean = one_mean, factor = one_factor, level = one_level, slope = one_slope;
        WRITE_RESULTS(at, inner, AS_THEY_ARE)
        if (row < channels) {
            WRITE_PARAMETERS;
        }
    }
}

#else

__kernel void batch_share_flow_naive(FLOW_ARGUMENTS)
{
    const int at = get_global_id(0), channel = at / inner % channels;
    if (at >= images * channels * inner) return;
    COEFFICIENTS;
    dx[at] = (T)(one_factor * ((ACC)dy[at] - one_level - one_slope * ((ACC)x[at] - one_mean)));
    if (at < channels * inner && at % inner == 0) {
        WRITE_PARAMETERS;
    }
}

#endif

#else

/* The elements of a channel that are this work-item's; `at` is the place of one. */
#define FOR_CHANNEL(at)                                                                         \
    for (int n = get_local_id(0), at = 0;                                                       \
         n < images * inner && (at = (n / inner * channels + channel) * inner + n % inner, 1);  \
         n += LANES)

#if STEP == 3

__kernel void batch_statistics_naive(__global const T *x, __global TM *means,
                                     __global TM *variances, const int images,
                                     const int channels, const int inner)
{
    __local ACC partial[LANES];
    const int channel = get_group_id(0);
    ACC sum = 0, squares = 0;
    FOR_CHANNEL(at) sum += (ACC)x[at];
    const ACC mean = sum_group(sum, partial) / (images * inner);
    FOR_CHANNEL(at) squares += ((ACC)x[at] - mean) * ((ACC)x[at] - mean);
    squares = sum_group(squares, partial);
    if (get_local_id(0)) return;
    means[channel] = (TM)mean;
    variances[channel] = (TM)(squares / (images * inner));
}

#else

__kernel void batch_share_sums_naive(__global const T *x, __global const TM *means,
                                     __global const T *dy, __global TS *along,
                                     __global TS *plain, const int images, const int channels,
                                     const int inner)
{
    __local ACC partial[LANES];
    const int channel = get_group_id(0);
    const ACC mean = means[channel];
    ACC alongs = 0, plains = 0;
    FOR_CHANNEL(at)
    {
        alongs += (ACC)dy[at] * ((ACC)x[at] - mean);
        plains += (ACC)dy[at];
    }
    alongs = sum_group(alongs, partial);
    plains = sum_group(plains, partial);
    if (get_local_id(0)) return;
    along[channel] = (TS)alongs;
    plain[channel] = (TS)plains;
}

#endif
#endif
