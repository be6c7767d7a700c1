/* Normalisation over rows (LayerNormalization, RMSNormalization, Group- and Instance-) with
 * gradients, and LRN.
 *
 * x is (rows, segments, inner), each row normalised by its own statistics; a layer has one segment
 * and scale[i], a group has one segment per channel and scale[channel]. Statistics are made in two
 * passes (mean, then squares around it): nothing cancels. Geometry: see each kernel. Sums are in a
 * fixed order: results are deterministic. */

#ifndef T
#define T float /* element type of x, y and their gradients */
#endif
#ifndef TP
#define TP float /* element type of scale, bias and their gradients */
#endif
#ifndef TS
#define TS float /* element type of stored statistics */
#endif
#ifndef ACC
#define ACC float /* type of arithmetic */
#endif
#ifndef LANES
#define LANES 16 /* work-items that share a row; a power of two */
#endif
#ifndef ROWS
#define ROWS 4 /* rows (or images) that a work-group handles at a time, a power of two */
#endif
#ifndef CENTRE
#define CENTRE 1 /* subtract the mean (0 for RMS) */
#endif
#ifndef BIAS
#define BIAS 1 /* there is a bias */
#endif
#ifndef STORE_MEAN
#define STORE_MEAN 0 /* layer: write the mean of each row */
#endif
#ifndef STORE_INVERSE
#define STORE_INVERSE 0 /* layer: write 1 / deviation of each row */
#endif
#ifndef BY_SEGMENT
#define BY_SEGMENT 0 /* scale and bias belong to segments (channels), not to elements */
#endif
#ifndef POWER
#define POWER(base, beta) pow(base, -(beta)) /* LRN */
#endif

#include "group.cl"

/* Sum of `value` over the LANES items of each row of the work-group, known to all of them. */
COLLECTIVE ACC sum_lanes(ACC value, __local ACC *partial)
{
#if LANES == 1
    return value;
#else
    const int lane = get_local_id(0);
    __local ACC *own = partial + get_local_id(1) * LANES;
    barrier(CLK_LOCAL_MEM_FENCE);
    own[lane] = value;
    for (int half_lanes = LANES / 2; half_lanes > 0; half_lanes /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lane < half_lanes) own[lane] += own[lane + half_lanes];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    return own[0];
#endif
}

#if BY_SEGMENT
#define PARAMETER(row, segment, i) (((row) % groups) * segments + (segment))
#else
#define PARAMETER(row, segment, i) (i)
#endif

#define FOR_ROW(i)                                                                              \
    for (int i = lane; i < length; i += LANES)
#define FOR_SEGMENTS(segment, at)                                                               \
    for (int segment = 0, at = 0; segment < segments; ++segment, at += inner)
#define FOR_INNER(i)                                                                            \
    for (int i = lane; i < inner; i += LANES)

/* Mean (0 for RMS) and 1 / deviation of a row; items of rows beyond the last do as the last. */
#define ROW_STATISTICS(from)                                                                    \
    ACC mean = 0;                                                                               \
    if (CENTRE) {                                                                               \
        ACC total = 0;                                                                          \
        FOR_ROW(i) total += from[i];                                                            \
        mean = sum_lanes(total, partial) / length;                                              \
    }                                                                                           \
    ACC squares = 0;                                                                            \
    FOR_ROW(i)                                                                                  \
    {                                                                                           \
        const ACC v = (ACC)from[i] - mean;                                                      \
        squares += v * v;                                                                       \
    }                                                                                           \
    const ACC inverse = 1 / sqrt(sum_lanes(squares, partial) / length + (ACC)epsilon)

/* y = (x - mean) / deviation * scale + bias. Geometry: (LANES, rows), work-group (LANES, ROWS). */
__kernel void row_norm(
    __global const T *x, __global const TP *scale,
#if BIAS
    __global const TP *bias,
#endif
    __global T *y,
#if STORE_MEAN
    __global TS *means,
#endif
#if STORE_INVERSE
    __global TS *inverses,
#endif
    const int rows, const int groups, const int segments, const int inner, const float epsilon)
{
    __local ACC partial[LANES * ROWS];
    const int lane = get_local_id(0), length = segments * inner;
    const int row = min((int)get_global_id(1), rows - 1);
    const int live = (int)get_global_id(1) < rows;
    __global const T *from = x + row * length;
    __global T *to = y + row * length;
    ROW_STATISTICS(from);
    if (!live) return;
    FOR_SEGMENTS(segment, at)
    {
        FOR_INNER(i)
        {
            const int parameter = PARAMETER(row, segment, i);
            ACC v = ((ACC)from[at + i] - mean) * inverse * (ACC)scale[parameter];
#if BIAS
            v += (ACC)bias[parameter];
#endif
            to[at + i] = (T)v;
        }
    }
    if (lane == 0) {
#if STORE_MEAN
        means[row] = (TS)mean;
#endif
#if STORE_INVERSE
        inverses[row] = (TS)inverse;
#endif
    }
}

/* dx of row_norm; writes mean and 1 / deviation of each row to `statistics` (rows, 2) for the
 * parameters' gradients. Geometry as row_norm. */
__kernel void row_norm_grad(
    __global const T *x, __global const TP *scale, __global const T *dy, __global T *dx,
    __global ACC *statistics, const int rows, const int groups, const int segments,
    const int inner, const float epsilon)
{
    __local ACC partial[LANES * ROWS];
    const int lane = get_local_id(0), length = segments * inner;
    const int row = min((int)get_global_id(1), rows - 1);
    const int live = (int)get_global_id(1) < rows;
    __global const T *from = x + row * length, *flow = dy + row * length;
    __global T *to = dx + row * length;
    ROW_STATISTICS(from);
    ACC plain = 0, along = 0;
    FOR_SEGMENTS(segment, at)
    {
        FOR_INNER(i)
        {
            const ACC v = (ACC)flow[at + i] * (ACC)scale[PARAMETER(row, segment, i)];
            plain += v;
            along += v * (((ACC)from[at + i] - mean) * inverse);
        }
    }
    plain = CENTRE ? sum_lanes(plain, partial) / length : 0;
    along = sum_lanes(along, partial) / length;
    if (!live) return;
    FOR_SEGMENTS(segment, at)
    {
        FOR_INNER(i)
        {
            const ACC v = (ACC)flow[at + i] * (ACC)scale[PARAMETER(row, segment, i)];
            const ACC normal = ((ACC)from[at + i] - mean) * inverse;
            to[at + i] = (T)((v - plain - normal * along) * inverse);
        }
    }
    if (lane == 0) {
        statistics[2 * row] = mean;
        statistics[2 * row + 1] = inverse;
    }
}

/* Sums over rows for a layer's scale and bias. sums (2, slices, inner): dy * normal, then dy.
 * Geometry: (inner, slices); a slice is `rows_per_slice` rows. */
__kernel void layer_sums(
    __global const T *x, __global const T *dy, __global const ACC *statistics, __global ACC *sums,
    const int rows, const int rows_per_slice, const int inner)
{
    const int i = get_global_id(0), slice = get_global_id(1), slices = get_global_size(1);
    if (i >= inner) return;
    ACC along = 0, plain = 0;
    const int last = min(rows, (slice + 1) * rows_per_slice);
    for (int row = slice * rows_per_slice; row < last; ++row) {
        const ACC v = dy[row * inner + i];
        along += v * (((ACC)x[row * inner + i] - statistics[2 * row]) * statistics[2 * row + 1]);
        plain += v;
    }
    sums[slice * inner + i] = along;
    sums[(slices + slice) * inner + i] = plain;
}

/* Sum of slices: y[i] = sum over s of sums[first + s, i]. Geometry: (size). */
__kernel void join_slices(
    __global const ACC *sums, __global TP *y, const int first, const int slices, const int size)
{
    const int i = get_global_id(0);
    if (i >= size) return;
    ACC total = 0;
    for (int s = 0; s < slices; ++s) total += sums[(first + s) * size + i];
    y[i] = (TP)total;
}

/* Sums over images for the scale and bias of channels whose rows are groups of channels.
 * Geometry: (LANES, ROWS, channels): one work-group a channel, ROWS images at a time. */
__kernel void group_sums(
    __global const T *x, __global const T *dy, __global const ACC *statistics,
    __global TP *dscale, __global TP *dbias, const int images, const int channels,
    const int inner, const int groups)
{
    __local ACC partial[LANES * ROWS];
    const int lane = get_local_id(0), channel = get_group_id(2);
    const int group = channel / (channels / groups);
    ACC along = 0, plain = 0;
    for (int image = get_local_id(1); image < images; image += ROWS) {
        const ACC mean = statistics[2 * (image * groups + group)];
        const ACC inverse = statistics[2 * (image * groups + group) + 1];
        const int at = (image * channels + channel) * inner;
        FOR_INNER(i)
        {
            const ACC v = dy[at + i];
            along += v * (((ACC)x[at + i] - mean) * inverse);
            plain += v;
        }
    }
    along = sum_group(along, partial);
    plain = sum_group(plain, partial);
    if (lane == 0 && get_local_id(1) == 0) {
        dscale[channel] = (TP)along;
        dbias[channel] = (TP)plain;
    }
}

/* y = x / (bias + ratio * sum of squares over channels [c - before, c + after])^beta.
 * Geometry: (inner, images * channels). */
__kernel void lrn(
    __global const T *x, __global T *y, const int rows, const int channels, const int inner,
    const int before, const int after, const float ratio, const float beta, const float bias)
{
    const int i = get_global_id(0), row = get_global_id(1);
    if (i >= inner || row >= rows) return;
    const int channel = row % channels;
    const int first = max(-before, -channel), last = min(after, channels - 1 - channel);
    ACC squares = 0;
    for (int shift = first; shift <= last; ++shift) {
        const ACC v = x[(row + shift) * inner + i];
        squares += v * v;
    }
    const ACC base = (ACC)bias + (ACC)ratio * squares;
    y[row * inner + i] = (T)((ACC)x[row * inner + i] * POWER(base, (ACC)beta));
}
