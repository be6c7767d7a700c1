/* Batch normalisation in training, and its gradient, where planes are small. Made for CPUs.
 *
 * x is (images, channels, inner). The planes of neighbouring channels are one run of memory, in which
 * every image is walked alike: sums are kept for each position of the run and added up by channel at
 * the end. They are taken around the channel's mean over an eighth of the images, so that nothing
 * cancels however far the mean is from 0 (the error grows by a factor of 8 at most).
 * Item i has an even share of the runs, in order; run g has the channels from channels * g / runs on,
 * and V elements at least. What a whole vector does not reach at its end is computed as one that
 * overlaps the one before; its sums stand behind those of the others until they are added up.
 * slots: RECORDS times slot_size elements for each item, slot_size being no less than a run + V.
 * Geometry: one work-item per slot, work-groups of one. Results are deterministic. */

#ifndef TP
#define TP float /* element type of scale, bias and their gradients */
#endif
#ifndef TS
#define TS float /* element type of running statistics */
#endif
#ifndef GRADIENT
#define GRADIENT 0 /* 1: the gradient */
#endif
#ifndef ACTIVATE
#define ACTIVATE(type, v) (v) /* what becomes of a result v of that type */
#endif
/* RESIDUAL and MASK_GRADIENT(type, g, y): see norm_planes.cl. */

#include "lanes.cl"

#if GRADIENT || defined(RESIDUAL)
#define TOGETHER 2 /* images walked side by side, see norm_planes.cl */
#define EACH(F) F(0) F(1)
#define ALL(v) (v##0 + v##1)
#else
#define TOGETHER 4
#define EACH(F) F(0) F(1) F(2) F(3)
#define ALL(v) ((v##0 + v##1) + (v##2 + v##3))
#endif

typedef __global fetched *record;
#define AT(p) (*(record)(p))

/* Sum of `inner` elements. */
INLINE ACC sum_run(__global const ACC *from, const int inner, const fetched keep)
{
    if (inner >= V) {
        fetched sum = 0;
        int i = 0;
        for (; i + V <= inner; i += V) sum += *(__global const fetched *)(from + i);
        if (i < inner) sum += ONLY(keep, *(__global const fetched *)(from + inner - V));
        return add_up(sum);
    }
    ACC sum = 0;
    for (int i = 0; i < inner; ++i) sum += from[i];
    return sum;
}

INLINE void fill_run(__global ACC *to, const ACC value, const int inner)
{
    if (inner >= V) {
        for (int i = 0; i < inner - V; i += V) AT(to + i) = value;
        AT(to + inner - V) = value;
    } else
        for (int i = 0; i < inner; ++i) to[i] = value;
}

INLINE void clear(__global ACC *to, const int count)
{
    for (int i = 0; i < count; i += V) AT(to + i) = 0;
}

/* Puts the sums of the overlapping vector's new positions where they belong. */
INLINE void settle(__global ACC *sums, const int n)
{
    const int whole = n / V * V;
    for (int i = whole; i < n; ++i) sums[i] = sums[i + V - (n - whole)];
}

#ifdef RESIDUAL
#define RESIDUAL_ARGUMENT __global const T *residual,
#define MASKED_ARGUMENT __global T *masked,
#else
#define RESIDUAL_ARGUMENT
#define MASKED_ARGUMENT
#endif
#ifdef MASK_GRADIENT
#define RESULT_ARGUMENT __global const T *activated,
#define FLOW(i) MASK_GRADIENT(fetched, GET(dy + (i)), GET(activated + (i)))
#else
#define RESULT_ARGUMENT
#define FLOW(i) GET(dy + (i))
#endif

#define RUNS                                                                                    \
    const int item = get_global_id(0), items = get_global_size(0), stride = channels * inner;   \
    const int end_run = (int)((long)runs * (item + 1) / items);                                 \
    const fetched keep = new_lanes(inner);                                                      \
    const ACC count = (ACC)images * inner;                                                      \
    __global ACC *centres = slots + RECORDS * slot_size * item, *sums = centres + slot_size;    \
    __global ACC *squares = sums + slot_size

/* Run: its channels, its elements, where it begins. */
#define RUN                                                                                     \
    const int first = (int)((long)channels * run / runs);                                       \
    const int last = (int)((long)channels * (run + 1) / runs), n = (last - first) * inner;      \
    const int begin = first * inner, probe = (images + 7) / 8

/* Vector by vector through a run: `f` is where its record stands, `i` where its elements do. */
#define FOR_RUN(f, i, at)                                                                       \
    for (int f = 0, i = at; f < n; f += V, i = at + (f + V <= n ? f : n - V))
#define PLACE(f) ((f) + V <= n ? (f) : n - V)

/* `centres` becomes the mean of each channel over `probe` images, at all of its positions. */
INLINE void find_centres(__global const T *x, __global ACC *centres, __global ACC *sums,
                         const int probe, const int stride, const int inner, const int n,
                         const fetched keep)
{
    clear(sums, n);
    for (int image = 0; image < probe; ++image)
        FOR_RUN(f, i, image * stride) AT(sums + f) += GET(x + i);
    settle(sums, n);
    for (int i = 0; i < n; i += inner)
        fill_run(centres + i, sum_run(sums + i, inner, keep) / ((ACC)probe * inner), inner);
}

/* WALK(STEP, STEP1) does STEP for TOGETHER images from element `at` on, STEP1 for each left. */
#define WALK(STEP, STEP1)                                                                       \
    {                                                                                           \
        int image = 0, at = begin;                                                              \
        for (; image + TOGETHER <= images; image += TOGETHER, at += TOGETHER * stride) STEP     \
        for (; image < images; ++image, at += stride) STEP1                                     \
    }

#if GRADIENT == 0

#define RECORDS 3
#define BLEND(old, new) ((TS)((ACC)(old) * (ACC)momentum + (new) * (1 - (ACC)momentum)))
#define CENTRED(k) const fetched v##k = GET(x + i + k * stride) - centre;
#define SQUARE(k) const fetched w##k = v##k * v##k;
#define ADD                                                                                     \
    FOR_RUN(f, i, at)                                                                           \
    {                                                                                           \
        const fetched centre = AT(centres + PLACE(f));                                          \
        EACH(CENTRED)                                                                           \
        EACH(SQUARE)                                                                            \
        AT(sums + f) += ALL(v);                                                                 \
        AT(squares + f) += ALL(w);                                                              \
    }
#define ADD1                                                                                    \
    FOR_RUN(f, i, at)                                                                           \
    {                                                                                           \
        const fetched v = GET(x + i) - AT(centres + PLACE(f));                                  \
        AT(sums + f) += v;                                                                      \
        AT(squares + f) += v * v;                                                               \
    }
#ifdef RESIDUAL
#define NORMAL(i, f) ACTIVATE(fetched, (GET(x + (i)) - AT(centres + (f))) * AT(sums + (f)) +    \
                                           AT(squares + (f)) + GET(residual + (i)))
#else
#define NORMAL(i, f)                                                                            \
    ACTIVATE(fetched, (GET(x + (i)) - AT(centres + (f))) * AT(sums + (f)) + AT(squares + (f)))
#endif
/* The operands of the overlapping vector are read first: y may be the storage of one. */
#define TAKE_LAST(k) const fetched last##k = NORMAL(at + n - V + k * stride, n - V);
#define TAKE(k) const fetched v##k = NORMAL(at + f + k * stride, f);
#define GIVE(k) PUT(y + at + f + k * stride, v##k);
#define GIVE_LAST(k) PUT(y + at + n - V + k * stride, last##k);

ALONE __kernel void batch_flat(__global const T *x, __global const TP *scale,
                               __global const TP *bias, RESIDUAL_ARGUMENT __global T *y,
                               __global const TS *old_means, __global const TS *old_variances,
                               __global TS *new_means, __global TS *new_variances,
                               const int running, __global ACC *slots, const int images,
                               const int channels, const int inner, const int runs,
                               const int slot_size, const float epsilon, const float momentum)
{
    RUNS;
    for (int run = (int)((long)runs * item / items); run < end_run; ++run) {
        RUN;
        find_centres(x + begin, centres, sums, probe, stride, inner, n, keep);
        clear(sums, n);
        clear(squares, n);
        WALK(ADD, ADD1)
        settle(sums, n);
        settle(squares, n);
        for (int channel = first, i = 0; channel < last; ++channel, i += inner) {
            const ACC sum = sum_run(sums + i, inner, keep), apart = sum / count;
            const ACC within = sum_run(squares + i, inner, keep) - sum * apart;
            const ACC mean = centres[i] + apart, variance = within < 0 ? 0 : within / count;
            fill_run(centres + i, mean, inner);
            fill_run(sums + i, (ACC)scale[channel] / sqrt(variance + (ACC)epsilon), inner);
            fill_run(squares + i, (ACC)bias[channel], inner);
            if (running & 1) new_means[channel] = BLEND(old_means[channel], mean);
            if (running & 2) new_variances[channel] = BLEND(old_variances[channel], variance);
        }
        WALK(
            {
                EACH(TAKE_LAST)
                for (int f = 0; f < n - V; f += V) {
                    EACH(TAKE)
                    EACH(GIVE)
                }
                EACH(GIVE_LAST)
            },
            {
                TAKE_LAST(0)
                for (int f = 0; f < n - V; f += V) {
                    TAKE(0)
                    GIVE(0)
                }
                GIVE_LAST(0)
            })
    }
}

#else

#define RECORDS 5
#define CENTRED(k)                                                                              \
    const fetched v##k = GET(x + i + k * stride) - centre, d##k = FLOW(i + k * stride);         \
    const fetched w##k = v##k * v##k, a##k = v##k * d##k;
#define ADD                                                                                     \
    FOR_RUN(f, i, at)                                                                           \
    {                                                                                           \
        const fetched centre = AT(centres + PLACE(f));                                          \
        EACH(CENTRED)                                                                           \
        AT(sums + f) += ALL(v);                                                                 \
        AT(squares + f) += ALL(w);                                                              \
        AT(alongs + f) += ALL(a);                                                               \
        AT(plains + f) += ALL(d);                                                               \
    }
#define ADD1                                                                                    \
    FOR_RUN(f, i, at)                                                                           \
    {                                                                                           \
        const fetched v = GET(x + i) - AT(centres + PLACE(f)), d = FLOW(i);                     \
        AT(sums + f) += v;                                                                      \
        AT(squares + f) += v * v;                                                               \
        AT(alongs + f) += v * d;                                                                \
        AT(plains + f) += d;                                                                    \
    }
/* From here on the records hold the factor, and the coefficients of 1 and x - mean in dx / factor. */
#define RESULT(name, i, f)                                                                      \
    const fetched down_##name = FLOW(i);                                                        \
    const fetched name = AT(sums + (f)) * (down_##name - AT(plains + (f)) -                     \
                                           AT(alongs + (f)) * (GET(x + (i)) - AT(centres + (f))));
#ifdef RESIDUAL
#define KEEP(i, down) PUT(masked + (i), down);
#else
#define KEEP(i, down)
#endif
#define TAKE_LAST(k) RESULT(last##k, at + n - V + k * stride, n - V)
#define TAKE(k) RESULT(v##k, at + f + k * stride, f)
#define GIVE(k)                                                                                 \
    PUT(dx + at + f + k * stride, v##k);                                                        \
    KEEP(at + f + k * stride, down_v##k)
#define GIVE_LAST(k)                                                                            \
    PUT(dx + at + n - V + k * stride, last##k);                                                 \
    KEEP(at + n - V + k * stride, down_last##k)

ALONE __kernel void batch_grad_flat(__global const T *x, __global const TP *scale,
                                    __global const T *dy, RESULT_ARGUMENT MASKED_ARGUMENT
                                    __global T *dx, __global TP *dscale, __global TP *dbias,
                                    __global ACC *slots, const int images, const int channels,
                                    const int inner, const int runs, const int slot_size,
                                    const float epsilon)
{
    RUNS;
    __global ACC *alongs = squares + slot_size, *plains = alongs + slot_size;
    for (int run = (int)((long)runs * item / items); run < end_run; ++run) {
        RUN;
        find_centres(x + begin, centres, sums, probe, stride, inner, n, keep);
        clear(sums, n);
        clear(squares, n);
        clear(alongs, n);
        clear(plains, n);
        WALK(ADD, ADD1)
        settle(sums, n);
        settle(squares, n);
        settle(alongs, n);
        settle(plains, n);
        for (int channel = first, i = 0; channel < last; ++channel, i += inner) {
            const ACC sum = sum_run(sums + i, inner, keep), apart = sum / count;
            const ACC within = sum_run(squares + i, inner, keep) - sum * apart;
            const ACC variance = within < 0 ? 0 : within / count;
            const ACC inverse = 1 / sqrt(variance + (ACC)epsilon);
            const ACC plain = sum_run(plains + i, inner, keep);
            const ACC along = sum_run(alongs + i, inner, keep) - apart * plain;
            fill_run(centres + i, centres[i] + apart, inner);
            fill_run(sums + i, (ACC)scale[channel] * inverse, inner);
            fill_run(plains + i, plain / count, inner);
            fill_run(alongs + i, along * inverse * inverse / count, inner);
            dscale[channel] = (TP)(along * inverse);
            dbias[channel] = (TP)plain;
        }
        WALK(
            {
                EACH(TAKE_LAST)
                for (int f = 0; f < n - V; f += V) {
                    EACH(TAKE)
                    EACH(GIVE)
                }
                EACH(GIVE_LAST)
            },
            {
                TAKE_LAST(0)
                for (int f = 0; f < n - V; f += V) {
                    TAKE(0)
                    GIVE(0)
                }
                GIVE_LAST(0)
            })
    }
}

#endif
