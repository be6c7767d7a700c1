/* Batch normalisation for training and inference, and its gradient.
 *
 * x is (images, channels, inner), each channel normalised by statistics over images and inner.
 * A channel is cut into `slices` of `images_per_slice` images, joined in a fixed order; the fused
 * kernels take a channel as one slice. Statistics are made in two passes (mean, then squares
 * around it) while a slice is in the cache, slices joined by Chan's rule: nothing cancels.
 * Geometry: see each kernel. Results are deterministic. */

#ifndef T
#define T float /* element type of x, y and their gradients */
#endif
#ifndef TP
#define TP float /* element type of scale, bias and their gradients */
#endif
#ifndef TS
#define TS float /* element type of running statistics */
#endif
#ifndef ACC
#define ACC float /* type of arithmetic */
#endif
#ifndef LANES
#define LANES 16 /* work-items that share the inner axis of a slice, a power of two */
#endif
#ifndef ROWS
#define ROWS 4 /* images that a work-group handles at a time, a power of two */
#endif
#ifndef RUNNING
#define RUNNING 0 /* 1 writes the running mean, 2 the running variance, 3 both */
#endif
#ifndef WIDTH
#define WIDTH 16 /* elements that an item reads at once: 4, 8 or 16 */
#endif
#ifndef WIDEN
#define WIDEN(v) (v) /* WIDTH elements as ACC, convert_float16(v) for half */
#endif
#ifndef NARROW
#define NARROW(v) (v) /* the reverse */
#endif

/* ACTIVATE(type, v): what is done with each result; RESIDUAL: a tensor is added before that.
 * MASK_GRADIENT(type, g, y): the gradient g behind an activation whose result was y; where RESIDUAL
 * it is stored, too. */
#ifndef ACTIVATE
#define ACTIVATE(type, v) (v)
#endif

#include "group.cl"

#define JOIN_TOKENS(a, b) a##b
#define VECTOR(type, width) JOIN_TOKENS(type, width)
typedef VECTOR(ACC, WIDTH) wide;
/* Kernels with explicit vectors: a compiler that joins work-items into vectors should not. */
#define EXPLICIT __attribute__((vec_type_hint(VECTOR(ACC, WIDTH))))
/* Unaligned on purpose; a plain load, since PoCL does not inline vloadn. */
typedef VECTOR(T, WIDTH) narrow __attribute__((aligned(sizeof(T))));

static ACC add_up(const wide v)
{
#if WIDTH == 16
    const VECTOR(ACC, 8) a = v.lo + v.hi;
    const VECTOR(ACC, 4) b = a.lo + a.hi;
#elif WIDTH == 8
    const VECTOR(ACC, 4) b = v.lo + v.hi;
#else
    const VECTOR(ACC, 4) b = v;
#endif
    return (b.x + b.y) + (b.z + b.w);
}

#define LOAD(p, at) WIDEN(*(__global const narrow *)((p) + (at)))
#define STORE(p, at, v) (*(__global narrow *)((p) + (at)) = NARROW(v))

#if defined(RESIDUAL) && !defined(MASK_GRADIENT)
#define RESIDUAL_ARGUMENT __global const T *residual,
#define WITH_RESIDUALS(at, v) ((v) + LOAD(residual, at))
#define WITH_RESIDUAL(at, v) ((v) + (ACC)residual[at])
#else
#define RESIDUAL_ARGUMENT
#define WITH_RESIDUALS(at, v) (v)
#define WITH_RESIDUAL(at, v) (v)
#endif
#ifdef MASK_GRADIENT
#define RESULT_ARGUMENT __global const T *result,
#define FLOWS(at) MASK_GRADIENT(wide, LOAD(dy, at), LOAD(result, at))
#define FLOW(at) MASK_GRADIENT(ACC, (ACC)dy[at], (ACC)result[at])
#else
#define RESULT_ARGUMENT
#define FLOWS(at) LOAD(dy, at)
#define FLOW(at) ((ACC)dy[at])
#endif
#if defined(RESIDUAL) && defined(MASK_GRADIENT)
#define MASKED_ARGUMENT __global T *masked,
#define KEEP_FLOWS(at, v) STORE(masked, at, v)
#define KEEP_FLOW(at, v) masked[at] = (T)(v)
#else
#define MASKED_ARGUMENT
#define KEEP_FLOWS(at, v)
#define KEEP_FLOW(at, v)
#endif

/* (x - mean) * factor + shift, and what else is done with it. */
#define RESULTS(at)                                                                             \
    {                                                                                           \
        const wide v = WITH_RESIDUALS(at, (LOAD(x, at) - mean) * factor + shift);               \
        STORE(y, at, ACTIVATE(wide, v));                                                        \
    }
#define RESULT(at)                                                                              \
    {                                                                                           \
        const ACC v = WITH_RESIDUAL(at, ((ACC)x[at] - mean) * factor + shift);                  \
        y[at] = (T)ACTIVATE(ACC, v);                                                            \
    }
/* factor * (dy - level - slope * (x - mean)); all operands are read before anything is stored. */
#define GRADIENTS(at)                                                                           \
    {                                                                                           \
        const wide v = LOAD(x, at) - mean, flow = FLOWS(at);                                    \
        KEEP_FLOWS(at, flow);                                                                   \
        STORE(dx, at, factor * (flow - level - slope * v));                                     \
    }
#define GRADIENT(at)                                                                            \
    {                                                                                           \
        const ACC v = (ACC)x[at] - mean, flow = FLOW(at);                                       \
        KEEP_FLOW(at, flow);                                                                    \
        dx[at] = (T)(factor * (flow - level - slope * v));                                      \
    }

/* The elements of a row of x that are this work-item's: WIDTH, or what is left at the end. */
#define ROW_PART                                                                                \
    const int row = get_global_id(1), i = get_global_id(0) * WIDTH;                             \
    if (row >= rows || i >= inner) return;                                                      \
    const int channel = row % channels, first = row * inner + i;                                \
    const int last = row * inner + min(inner, i + WIDTH)

#define SCALE_AND_SHIFT                                                                         \
    if (i + WIDTH <= inner)                                                                     \
        RESULTS(first)                                                                          \
    else                                                                                        \
        for (int at = first; at < last; ++at) RESULT(at)

/* y = (x - mean) / sqrt(variance + epsilon) * scale + bias per channel, statistics given.
 * Geometry: (inner / WIDTH, images * channels). */
EXPLICIT __kernel void batch_apply(
    __global const T *x, __global const TP *scale, __global const TP *bias,
    __global const TS *means, __global const TS *variances, RESIDUAL_ARGUMENT __global T *y,
    const int rows, const int channels, const int inner, const float epsilon)
{
    ROW_PART;
    const ACC mean = means[channel], shift = bias[channel];
    const ACC factor = (ACC)scale[channel] / sqrt((ACC)variances[channel] + (ACC)epsilon);
    SCALE_AND_SHIFT;
}

#define SLICE                                                                                   \
    const int lane = get_local_id(0), channel = get_group_id(2), slice = get_group_id(1);       \
    const int first_image = slice * images_per_slice;                                           \
    const int last_image = min(images, first_image + images_per_slice)

/* All elements of the slice that are this work-item's, WIDTH at a time; `at` is a place. */
#define FOR_WIDE(at)                                                                            \
    for (int image = first_image + get_local_id(1); image < last_image; image += ROWS)          \
        for (int i = lane * WIDTH, at = (image * channels + channel) * inner + i;               \
             i + WIDTH <= inner; i += LANES * WIDTH, at += LANES * WIDTH)
/* And those that are left at the end of each image. */
#define FOR_REST(at)                                                                            \
    for (int image = first_image + get_local_id(1); image < last_image; image += ROWS)          \
        for (int i = inner / WIDTH * WIDTH + lane,                                              \
                 at = (image * channels + channel) * inner + i;                                 \
             i < inner; i += LANES, at += LANES)

#define CENTRED(at) ((ACC)x[at] - mean)

/* Mean of the slice, and the sum of squares around it. */
#define SLICE_MEAN(count)                                                                       \
    wide wide_total = 0;                                                                        \
    ACC total = 0;                                                                              \
    FOR_WIDE(at) wide_total += LOAD(x, at);                                                     \
    FOR_REST(at) total += x[at];                                                                \
    const ACC mean = sum_group(add_up(wide_total) + total, partial) / (count)

#define SLICE_SQUARES                                                                           \
    wide wide_squares = 0;                                                                      \
    ACC squares = 0;                                                                            \
    FOR_WIDE(at)                                                                                \
    {                                                                                           \
        const wide v = LOAD(x, at) - mean;                                                      \
        wide_squares += v * v;                                                                  \
    }                                                                                           \
    FOR_REST(at) squares += CENTRED(at) * CENTRED(at);                                          \
    squares = sum_group(add_up(wide_squares) + squares, partial)

/* Sums of squares, of dy * (x - mean), and of dy. */
#define SLICE_FLOWS                                                                             \
    wide wide_squares = 0, wide_along = 0, wide_plain = 0;                                      \
    ACC squares = 0, along = 0, plain = 0;                                                      \
    FOR_WIDE(at)                                                                                \
    {                                                                                           \
        const wide v = LOAD(x, at) - mean, flow = FLOWS(at);                                    \
        wide_squares += v * v;                                                                  \
        wide_along += flow * v;                                                                 \
        wide_plain += flow;                                                                     \
    }                                                                                           \
    FOR_REST(at)                                                                                \
    {                                                                                           \
        const ACC v = CENTRED(at), flow = FLOW(at);                                             \
        squares += v * v;                                                                       \
        along += flow * v;                                                                      \
        plain += flow;                                                                          \
    }                                                                                           \
    squares = sum_group(add_up(wide_squares) + squares, partial);                               \
    along = sum_group(add_up(wide_along) + along, partial);                                     \
    plain = sum_group(add_up(wide_plain) + plain, partial)

/* Statistics of slices: (slices, channels, 2) mean and sum of squares around it.
 * Geometry of this and the next: (LANES, ROWS * slices, channels), work-group (LANES, ROWS, 1). */
EXPLICIT __kernel void batch_statistics(
    __global const T *x, __global ACC *statistics, const int images, const int channels,
    const int inner, const int images_per_slice)
{
    __local ACC partial[LANES * ROWS];
    SLICE;
    SLICE_MEAN(((last_image - first_image) * inner));
    SLICE_SQUARES;
    if (lane == 0 && get_local_id(1) == 0) {
        statistics[2 * (slice * channels + channel)] = mean;
        statistics[2 * (slice * channels + channel) + 1] = squares;
    }
}

/* Slices for the gradient: (slices, channels, 4) mean, squares, sum of dy * (x - mean), of dy. */
EXPLICIT __kernel void batch_grad_statistics(
    __global const T *x, __global const T *dy, RESULT_ARGUMENT __global ACC *statistics,
    const int images, const int channels, const int inner, const int images_per_slice)
{
    __local ACC partial[LANES * ROWS];
    SLICE;
    SLICE_MEAN(((last_image - first_image) * inner));
    SLICE_FLOWS;
    if (lane == 0 && get_local_id(1) == 0) {
        __global ACC *to = statistics + 4 * (slice * channels + channel);
        to[0] = mean;
        to[1] = squares;
        to[2] = along;
        to[3] = plain;
    }
}

/* Mean and sum of squares of a channel from its slices (Chan, Golub and LeVeque 1979). */
#define JOIN_STATISTICS(fields)                                                                 \
    ACC mean = 0, squares = 0, count = 0;                                                       \
    for (int slice = 0; slice < slices; ++slice) {                                              \
        __global const ACC *from = statistics + fields * (slice * channels + channel);          \
        const int slice_images = min(images, (slice + 1) * images_per_slice) -                  \
                                 slice * images_per_slice;                                      \
        const ACC n = (ACC)slice_images * inner, difference = from[0] - mean;                   \
        const ACC joined = count + n;                                                           \
        mean += difference * n / joined;                                                        \
        squares += from[1] + difference * difference * count * n / joined;                      \
        count = joined;                                                                         \
    }

/* Running statistics: old * momentum + batch * (1 - momentum), the variance biased as in ONNX. */
#if RUNNING & 1
#define RUNNING_MEAN_ARGUMENTS __global const TS *old_means, __global TS *new_means,
#define WRITE_MEAN(mean)                                                                        \
    new_means[channel] = (TS)((ACC)old_means[channel] * (ACC)momentum + (mean) * (1 - (ACC)momentum))
#else
#define RUNNING_MEAN_ARGUMENTS
#define WRITE_MEAN(mean)
#endif
#if RUNNING & 2
#define RUNNING_VARIANCE_ARGUMENTS __global const TS *old_variances, __global TS *new_variances,
#define WRITE_VARIANCE(variance)                                                                \
    new_variances[channel] = (TS)((ACC)old_variances[channel] * (ACC)momentum +                 \
                                  (variance) * (1 - (ACC)momentum))
#else
#define RUNNING_VARIANCE_ARGUMENTS
#define WRITE_VARIANCE(variance)
#endif

/* Joins slices: table (channels, 2) with mean and scale / deviation. Geometry: (channels). */
__kernel void batch_join(
    __global const ACC *statistics, __global const TP *scale, __global ACC *table,
    RUNNING_MEAN_ARGUMENTS RUNNING_VARIANCE_ARGUMENTS
    const int images, const int channels, const int inner, const int images_per_slice,
    const int slices, const float epsilon, const float momentum)
{
    const int channel = get_global_id(0);
    if (channel >= channels) return;
    JOIN_STATISTICS(2)
    const ACC variance = squares / count;
    table[2 * channel] = mean;
    table[2 * channel + 1] = (ACC)scale[channel] / sqrt(variance + (ACC)epsilon);
    WRITE_MEAN(mean);
    WRITE_VARIANCE(variance);
}

/* y = (x - mean) * factor + bias with a table of mean and factor. Geometry as batch_apply. */
EXPLICIT __kernel void batch_apply_table(
    __global const T *x, __global const TP *bias, RESIDUAL_ARGUMENT __global const ACC *table,
    __global T *y, const int rows, const int channels, const int inner)
{
    ROW_PART;
    const ACC mean = table[2 * channel], factor = table[2 * channel + 1], shift = bias[channel];
    SCALE_AND_SHIFT;
}

/* Joins slices of the gradient: dscale, dbias, and a table (channels, 4) with mean, factor,
 * mean of dy and the coefficient of x - mean in dx. Geometry: (channels). */
__kernel void batch_grad_join(
    __global const ACC *statistics, __global const TP *scale, __global ACC *table,
    __global TP *dscale, __global TP *dbias, const int images, const int channels,
    const int inner, const int images_per_slice, const int slices, const float epsilon)
{
    const int channel = get_global_id(0);
    if (channel >= channels) return;
    JOIN_STATISTICS(4)
    const ACC inverse = 1 / sqrt(squares / count + (ACC)epsilon);
    ACC along = 0, plain = 0;
    for (int slice = 0; slice < slices; ++slice) {
        __global const ACC *from = statistics + 4 * (slice * channels + channel);
        along += from[2] + (from[0] - mean) * from[3];
        plain += from[3];
    }
    table[4 * channel] = mean;
    table[4 * channel + 1] = (ACC)scale[channel] * inverse;
    table[4 * channel + 2] = plain / count;
    table[4 * channel + 3] = along * inverse * inverse / count;
    dscale[channel] = (TP)(along * inverse);
    dbias[channel] = (TP)plain;
}

/* dx = factor * (dy - mean of dy - coefficient * (x - mean)). Geometry as batch_apply. */
EXPLICIT __kernel void batch_grad_apply(
    __global const T *x, __global const T *dy, RESULT_ARGUMENT MASKED_ARGUMENT
    __global const ACC *table, __global T *dx, const int rows, const int channels,
    const int inner)
{
    ROW_PART;
    __global const ACC *from = table + 4 * channel;
    const ACC mean = from[0], factor = from[1], level = from[2], slope = from[3];
    if (i + WIDTH <= inner)
        GRADIENTS(first)
    else
        for (int at = first; at < last; ++at) GRADIENT(at)
}

/* The whole of a channel by one work-group, which reads x again while it is still in the cache.
 * Geometry of this and the next: (LANES, ROWS, channels), work-group (LANES, ROWS, 1). */
EXPLICIT __kernel void batch_fused(
    __global const T *x, __global const TP *scale, __global const TP *bias, RESIDUAL_ARGUMENT
    __global T *y, RUNNING_MEAN_ARGUMENTS RUNNING_VARIANCE_ARGUMENTS
    const int images, const int channels, const int inner, const int images_per_slice,
    const float epsilon, const float momentum)
{
    __local ACC partial[LANES * ROWS];
    SLICE;
    const ACC count = (ACC)images * inner;
    SLICE_MEAN(count);
    SLICE_SQUARES;
    const ACC variance = squares / count, shift = bias[channel];
    const ACC factor = (ACC)scale[channel] / sqrt(variance + (ACC)epsilon);
    FOR_WIDE(at) RESULTS(at)
    FOR_REST(at) RESULT(at)
    if (lane == 0 && get_local_id(1) == 0) {
        WRITE_MEAN(mean);
        WRITE_VARIANCE(variance);
    }
}

EXPLICIT __kernel void batch_grad_fused(
    __global const T *x, __global const TP *scale, __global const T *dy, RESULT_ARGUMENT
    MASKED_ARGUMENT __global T *dx, __global TP *dscale, __global TP *dbias, const int images, const int channels,
    const int inner, const int images_per_slice, const float epsilon)
{
    __local ACC partial[LANES * ROWS];
    SLICE;
    const ACC count = (ACC)images * inner;
    SLICE_MEAN(count);
    SLICE_FLOWS;
    const ACC inverse = 1 / sqrt(squares / count + (ACC)epsilon);
    const ACC factor = (ACC)scale[channel] * inverse, level = plain / count;
    const ACC slope = along * inverse * inverse / count;
    FOR_WIDE(at) GRADIENTS(at)
    FOR_REST(at) GRADIENT(at)
    if (lane == 0 && get_local_id(1) == 0) {
        dscale[channel] = (TP)(along * inverse);
        dbias[channel] = (TP)plain;
    }
}
