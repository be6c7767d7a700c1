/* Batch normalisation in training, and its gradient, where planes are small. Made for CPUs.
 *
 * x is (images, channels, inner). The planes of neighbouring channels are one run of memory, in which
 * every image is walked alike: sums are kept for each position of the run and added up by channel at
 * the end. They are taken around the channel's mean over an eighth of the images, so that nothing
 * cancels however far the mean is from 0 (the error grows by a factor of 8 at most).
 * Item i has an even share of the runs, in order; run g has the channels from channels * g / runs
 * on, counted in granules (where tensors are blocks of codes, channels whose planes are whole
 * blocks), and V elements at least. What a whole vector does not reach at its end is computed as
 * one that overlaps the one before; its sums stand behind those of the others until they are added
 * up.
 * slots: RECORDS + 1 records of slot_size elements for each item, slot_size being no less than a run
 * + 2 * V, and than RECORDS times its channels.
 * Geometry: one work-item per slot, work-groups of one. Results are deterministic. */

#include "norm_streams.cl"

#define AT(p) (*(__global fetched *)(p))

/* Sum of `inner` elements; others may follow. */
INLINE ACC sum_run(__global const ACC *from, const int inner, const fetched numbers)
{
    fetched sum = 0;
    for (int i = 0; i < inner; i += V)
        sum += numbers < (fetched)(ACC)(inner - i) ? *(__global const fetched *)(from + i)
                                                            : (fetched)0;
    return add_up(sum);
}

/* Fills whole vectors: what follows `inner` elements is written next. */
INLINE void fill_run(__global ACC *to, const ACC value, const int inner)
{
    for (int i = 0; i < inner; i += V) AT(to + i) = value;
}

/* Moves the last vector's sums where they belong; those of its overlap are there already. */
INLINE void settle(__global ACC *sums, const int n)
{
    AT(sums + n - V) = AT(sums + (n - 1) / V * V);
}

/* Whether stream k counts, as a factor. */
#define COUNTED(k) const fetched counted##k = (ACC)(k < left);

#define FOR_STREAMS                                                                             \
    for (int image = 0, at = begin; image < images; image += TOGETHER, at += TOGETHER * stride)

#if GRADIENT == 0

/* Records: centres, later means; sums, later factors; squares, later shifts. */
#define RECORDS 3
#define CENTRED(k)                                                                              \
    {                                                                                           \
        const fetched v = counted##k * (X_AT(i + o##k) - centre);                            \
        sum += v;                                                                               \
        square += v * v;                                                                        \
    }
#define COEFFICIENTS_AT(f)                                                                      \
    const fetched mean = AT(centres + f), factor = AT(centres + slot_size + f);                 \
    const fetched shift = AT(centres + 2 * slot_size + f);

ALONE __kernel void batch_flat(__global const T *x, __global const TP *scale,
                               __global const TP *bias, RESIDUAL_ARGUMENT KEEP_X_ARGUMENT
                               KEEP_Y_ARGUMENT __global T *y,
                               __global const TS *old_means, __global const TS *old_variances,
                               __global TS *new_means, __global TS *new_variances,
                               const int running, __global ACC *slots, const int images,
                               const int channels, const int inner, const int granule,
                               const int runs, const int slot_size, const float epsilon,
                               const float momentum)

#else

/* Records: centres, later means; sums, later factors; dy * (x - centre), later the coefficient of
 * x - mean in dx / factor; dy, later that of 1; squares. */
#define RECORDS 5
#define CENTRED(k)                                                                              \
    {                                                                                           \
        const fetched v = counted##k * (X_AT(i + o##k) - centre);                            \
        const fetched down = counted##k * FLOW(i + o##k);                                       \
        sum += v;                                                                               \
        along += down * v;                                                                      \
        plain += down;                                                                          \
        square += v * v;                                                                        \
    }
#define COEFFICIENTS_AT(f)                                                                      \
    const fetched mean = AT(centres + f), factor = AT(centres + slot_size + f);                 \
    const fetched slope = AT(centres + 2 * slot_size + f);                                      \
    const fetched level = AT(centres + 3 * slot_size + f);

ALONE __kernel void batch_grad_flat(X_ARGUMENT __global const TP *scale,
                                    __global const T *dy, RESULT_ARGUMENT MASKED_ARGUMENT
                                    __global T *dx, __global TP *dscale, __global TP *dbias,
                                    __global ACC *slots, const int images, const int channels,
                                    const int inner, const int granule, const int runs,
                                    const int slot_size, const float epsilon)

#endif
{
    const int item = get_global_id(0), items = get_global_size(0), stride = channels * inner;
    const int end_run = (int)((long)runs * (item + 1) / items), probe = (images + 7) / 8;
    const ACC count = (ACC)images * inner;
    const fetched numbers = lane_numbers();
    __global ACC *centres = slots + (RECORDS + 1) * slot_size * item;
    __global ACC *found = centres + slot_size, *table = centres + RECORDS * slot_size;
    for (int run = (int)((long)runs * item / items); run < end_run; ++run) {
        const int first = (int)((long)(channels / granule) * run / runs) * granule;
        const int last = (int)((long)(channels / granule) * (run + 1) / runs) * granule;
        const int n = (last - first) * inner;
        const int begin = first * inner;
        for (int i = 0; i < (RECORDS - 1) * slot_size; i += V) AT(found + i) = 0;
        for (int image = 0; image < probe; ++image)
            for (int f = 0; f < n; f += V)
                AT(found + f) += X_AT(begin + image * stride + PLACE(f, n));
        settle(found, n);
        for (int i = 0; i < n; i += inner)
            fill_run(centres + i, sum_run(found + i, inner, numbers) / ((ACC)probe * inner), inner);
        for (int i = 0; i < n + V; i += V) AT(found + i) = 0;
        FOR_STREAMS {
            const int left = images - image;
            EACH(STREAM)
            EACH(COUNTED)
            for (int f = 0; f < n; f += V) {
                const int i = at + PLACE(f, n);
                const fetched centre = AT(centres + PLACE(f, n));
                fetched sum = 0, square = 0;
#if GRADIENT
                fetched along = 0, plain = 0;
#endif
                EACH(CENTRED)
                AT(found + f) += sum;
#if GRADIENT
                AT(found + slot_size + f) += along;
                AT(found + 2 * slot_size + f) += plain;
#endif
                AT(found + (RECORDS - 2) * slot_size + f) += square;
            }
        }
        for (int r = 0; r < RECORDS - 1; ++r) settle(found + r * slot_size, n);
        for (int channel = first, i = 0; channel < last; ++channel, i += inner) {
            __global ACC *row = table + (channel - first) * RECORDS;
            for (int r = 0; r < RECORDS - 1; ++r)
                row[r] = sum_run(found + r * slot_size + i, inner, numbers);
            const ACC apart = row[0] / count, within = row[RECORDS - 2] - row[0] * apart;
            const ACC mean = centres[i] + apart, variance = within < 0 ? 0 : within / count;
            const ACC inverse = 1 / sqrt(variance + (ACC)epsilon);
#if GRADIENT
            const ACC plain = row[2], along = row[1] - apart * plain;
            row[2] = along * inverse * inverse / count;
            row[3] = plain / count;
            dscale[channel] = (TP)(along * inverse);
            dbias[channel] = (TP)plain;
#else
            row[2] = (ACC)bias[channel];
            WRITE_RUNNING(mean, variance);
#endif
            row[0] = mean;
            row[1] = (ACC)scale[channel] * inverse;
        }
        for (int r = 0; r < (GRADIENT ? 4 : 3); ++r)
            for (int channel = 0; channel < last - first; ++channel)
                fill_run(centres + r * slot_size + channel * inner, table[channel * RECORDS + r],
                         inner);
        FOR_STREAMS {
            const int left = images - image;
            EACH(STREAM)
            KEEP_X_BLOCKS(at, n)
            WRITE_RESULTS(at, n, COEFFICIENTS_AT)
            KEEP_Y_BLOCKS(at, n)
        }
    }
}
