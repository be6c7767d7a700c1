/* Normalisation: over rows (LayerNormalization, RMSNormalization, Group- and Instance-) and over
 * channels (BatchNormalization), with gradients. Also LRN.
 *
 * Rows: x is (rows, segments, inner), each row normalised by its own statistics; a layer has one
 * segment and scale[i], a group has one segment per channel and scale[channel].
 * Channels: x is (images, channels, inner), each channel normalised by statistics over images and
 * inner; a channel is cut into `slices` of `images_per_slice` images, joined in a fixed order.
 * Statistics are made in two passes (mean, then squares around it), slices joined by Chan's rule:
 * nothing cancels. Geometry: see each kernel. All results are deterministic. */

#ifndef T
#define T float /* element type of x, y and their gradients */
#endif
#ifndef TP
#define TP float /* element type of scale, bias and their gradients */
#endif
#ifndef TS
#define TS float /* element type of running or stored statistics */
#endif
#ifndef ACC
#define ACC float /* type of arithmetic */
#endif
#ifndef LANES
#define LANES 16 /* work-items that share a row, or the inner axis of a slice; a power of two */
#endif
#ifndef ROWS
#define ROWS 4 /* rows (or images) that a work-group handles at a time; a power of two */
#endif
#ifndef CENTRE
#define CENTRE 1 /* rows: subtract the mean (0 for RMS) */
#endif
#ifndef BIAS
#define BIAS 1 /* rows: there is a bias */
#endif
#ifndef STORE_MEAN
#define STORE_MEAN 0 /* layer: write the mean of each row */
#endif
#ifndef STORE_INVERSE
#define STORE_INVERSE 0 /* layer: write 1 / deviation of each row */
#endif
#ifndef BY_SEGMENT
#define BY_SEGMENT 0 /* rows: scale and bias belong to segments (channels), not to elements */
#endif
#ifndef RUNNING
#define RUNNING 0 /* batch: 1 writes the running mean, 2 the running variance, 3 both */
#endif
#ifndef WIDTH
#define WIDTH 16 /* batch: elements that an item reads at once: 4, 8 or 16 */
#endif
#ifndef WIDEN
#define WIDEN(v) (v) /* batch: WIDTH elements as ACC, convert_float16(v) for half */
#endif
#ifndef NARROW
#define NARROW(v) (v) /* batch: the reverse */
#endif
#ifndef POWER
#define POWER(base, beta) pow(base, -(beta)) /* LRN */
#endif

/* Sum of `value` over the LANES items of each row of the work-group, known to all of them. */
static ACC sum_lanes(ACC value, __local ACC *partial)
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

/* Sum over the whole work-group of LANES x ROWS items, known to all of them. */
static ACC sum_group(ACC value, __local ACC *partial)
{
#if LANES * ROWS == 1
    return value;
#else
    const int item = get_local_id(1) * LANES + get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    partial[item] = value;
    for (int half_items = LANES * ROWS / 2; half_items > 0; half_items /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item < half_items) partial[item] += partial[item + half_items];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    return partial[0];
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

/* y = (x - mean) / sqrt(variance + epsilon) * scale + bias per channel, statistics given.
 * Geometry: (inner, images * channels). */
__kernel void batch_apply(
    __global const T *x, __global const TP *scale, __global const TP *bias,
    __global const TS *means, __global const TS *variances, __global T *y, const int rows,
    const int channels, const int inner, const float epsilon)
{
    const int row = get_global_id(1), i = get_global_id(0);
    if (row >= rows || i >= inner) return;
    const int channel = row % channels;
    const ACC mean = means[channel], shift = bias[channel];
    const ACC factor = (ACC)scale[channel] / sqrt((ACC)variances[channel] + (ACC)epsilon);
    const int at = row * inner + i;
    y[at] = (T)(((ACC)x[at] - mean) * factor + shift);
}

#define SLICE                                                                                   \
    const int lane = get_local_id(0), channel = get_group_id(2), slice = get_group_id(1);       \
    const int first_image = slice * images_per_slice;                                           \
    const int last_image = min(images, first_image + images_per_slice)

#define JOIN_TOKENS(a, b) a##b
#define VECTOR(type, width) JOIN_TOKENS(type, width)
typedef VECTOR(ACC, WIDTH) wide;
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

#define LOAD(p, at) WIDEN(*(__global const narrow *)((p) + (at)))
#define STORE(p, at, v) (*(__global narrow *)((p) + (at)) = NARROW(v))
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
        const wide v = LOAD(x, at) - mean, flow = LOAD(dy, at);                                 \
        wide_squares += v * v;                                                                  \
        wide_along += flow * v;                                                                 \
        wide_plain += flow;                                                                     \
    }                                                                                           \
    FOR_REST(at)                                                                                \
    {                                                                                           \
        const ACC v = CENTRED(at), flow = dy[at];                                               \
        squares += v * v;                                                                       \
        along += flow * v;                                                                      \
        plain += flow;                                                                          \
    }                                                                                           \
    squares = sum_group(add_up(wide_squares) + squares, partial);                               \
    along = sum_group(add_up(wide_along) + along, partial);                                     \
    plain = sum_group(add_up(wide_plain) + plain, partial)

/* Statistics of slices: (slices, channels, 2) mean and sum of squares around it.
 * Geometry of this and the next: (LANES, ROWS * slices, channels), work-group (LANES, ROWS, 1). */
__kernel void batch_statistics(
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
__kernel void batch_grad_statistics(
    __global const T *x, __global const T *dy, __global ACC *statistics, const int images,
    const int channels, const int inner, const int images_per_slice)
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
__kernel void batch_apply_table(
    __global const T *x, __global const TP *bias, __global const ACC *table, __global T *y,
    const int rows, const int channels, const int inner)
{
    const int row = get_global_id(1), i = get_global_id(0);
    if (row >= rows || i >= inner) return;
    const int channel = row % channels;
    const ACC mean = table[2 * channel], factor = table[2 * channel + 1], shift = bias[channel];
    const int at = row * inner + i;
    y[at] = (T)(((ACC)x[at] - mean) * factor + shift);
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
__kernel void batch_grad_apply(
    __global const T *x, __global const T *dy, __global const ACC *table, __global T *dx,
    const int rows, const int channels, const int inner)
{
    const int row = get_global_id(1), i = get_global_id(0);
    if (row >= rows || i >= inner) return;
    __global const ACC *from = table + 4 * (row % channels);
    const ACC mean = from[0], factor = from[1], plain = from[2], along = from[3];
    const int at = row * inner + i;
    dx[at] = (T)(factor * ((ACC)dy[at] - plain - along * ((ACC)x[at] - mean)));
}

/* The whole of a channel by one work-group, which reads x again while it is still in the cache.
 * Geometry of this and the next: (LANES, ROWS, channels), work-group (LANES, ROWS, 1). */
__kernel void batch_fused(
    __global const T *x, __global const TP *scale, __global const TP *bias, __global T *y,
    RUNNING_MEAN_ARGUMENTS RUNNING_VARIANCE_ARGUMENTS
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
    FOR_WIDE(at) STORE(y, at, (LOAD(x, at) - mean) * factor + shift);
    FOR_REST(at) y[at] = (T)(CENTRED(at) * factor + shift);
    if (lane == 0 && get_local_id(1) == 0) {
        WRITE_MEAN(mean);
        WRITE_VARIANCE(variance);
    }
}

__kernel void batch_grad_fused(
    __global const T *x, __global const TP *scale, __global const T *dy, __global T *dx,
    __global TP *dscale, __global TP *dbias, const int images, const int channels,
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
    FOR_WIDE(at)
    {
        const wide v = LOAD(x, at) - mean, flow = LOAD(dy, at);
        STORE(dx, at, factor * (flow - level - slope * v));
    }
    FOR_REST(at) dx[at] = (T)(factor * ((ACC)dy[at] - level - slope * CENTRED(at)));
    if (lane == 0 && get_local_id(1) == 0) {
        dscale[channel] = (TP)(along * inverse);
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
