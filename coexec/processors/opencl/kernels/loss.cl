/* Losses on class labels.
 * Layout: scores (outer, classes, inner), labels and losses (outer, inner), weights (classes).
 * A label equal to `ignored` (where IGNORES) does not count; any other label outside
 * [0, classes) makes its loss or gradient NaN.
 *
 * forward:  one work-item per label, consecutive items along inner. Writes the weighted loss, the
 *           label's weight (where WEIGHS) and the log probabilities (where LOG_PROB).
 * backward: the same geometry; dx = (exp(log_prob) - [c == label]) * weight * dy / divisor.
 *           backward_rows and backward_elements (inner = 1) compute the same by rows and by elements.
 * divide:   one work-item; y = sum of losses / sum of weights. */

#ifndef T
#define T float /* type of scores, weights, losses */
#endif
#ifndef C
#define C float /* type to compute in: float for half, T else */
#endif
#ifndef U
#define U float /* type that single losses are written in: T, or C where they are summed later */
#endif
#ifndef L
#define L long /* type of labels */
#endif
#ifndef W
#define W 16 /* vector of a row's elements (inner = 1): 1, 4, 8 or 16 */
#endif
/* SCORES: defined where x are scores to normalise, not log probabilities.
 * LOG_PROB, IGNORES, WEIGHTED, WEIGHS: see above. EACH: dy has one value per label.
 * DIVIDED: the gradient is divided by *divisor, else by count. WIDEN: C is not T. */

#include "vectors.cl"

typedef VEC(T) TV __attribute__((aligned(sizeof(T))));
#define HINT __attribute__((vec_type_hint(VEC(C))))
#ifdef WIDEN
#define LOAD(v) CONVERT(C, v)
#define STORE(v) CONVERT(T, v)
#else
#define LOAD(v) (v)
#define STORE(v) (v)
#endif

/* Weight of a label: 0 where ignored, NaN where there is no such class. */
static inline C weight_of(const L label, __global const T *weights, const int classes, const L ignored)
{
#ifdef IGNORES
    if (label == ignored) return (C)0;
#endif
    if (label < 0 || label >= (L)classes) return (C)NAN;
#ifdef WEIGHTED
    return (C)weights[label];
#else
    return (C)1;
#endif
}

__kernel void forward(__global const T *x, __global const L *labels, __global const T *weights,
                      __global U *losses, __global C *own_weights, __global T *log_prob,
                      const int count, const int inner, const int classes, const L ignored)
{
    const int i = get_global_id(0);
    if (i >= count) return;
    const int start = (i / inner) * classes * inner + i % inner;
    x += start;
    const L label = labels[i];
    const C weight = weight_of(label, weights, classes, ignored);
    C shift = 0;
#ifdef SCORES
    C top = (C)x[0];
    for (int c = 1; c < classes; c++) {
        const C v = (C)x[c * inner];
        top = top < v ? v : top;
    }
    C sum = 0;
    for (int c = 0; c < classes; c++) sum += exp((C)x[c * inner] - top);
    /* Two steps, so that large scores do not swallow the logarithm. */
    shift = log(sum);
#define NORMAL(v) (((v) - top) - shift)
#else
#define NORMAL(v) (v)
#endif
#ifdef LOG_PROB
    log_prob += start;
    for (int c = 0; c < classes; c++) log_prob[c * inner] = (T)NORMAL((C)x[c * inner]);
#endif
    C loss = weight; /* 0 where ignored, NaN where there is no such class */
    if (weight != 0 && weight == weight) loss = -NORMAL((C)x[(int)label * inner]) * weight;
    losses[i] = (U)loss;
#ifdef WEIGHS
    own_weights[i] = weight;
#endif
}

/* The weights alone: what the divisor of a weighted mean's gradient is summed from. */
__kernel void weigh(__global const L *labels, __global const T *weights, __global C *own_weights,
                    const int count, const int classes, const L ignored)
{
    const int i = get_global_id(0);
    if (i < count) own_weights[i] = weight_of(labels[i], weights, classes, ignored);
}

__kernel void divide(__global const C *losses, __global const C *weights, __global T *y)
{
    if (get_global_id(0) == 0) y[0] = (T)(losses[0] / weights[0]);
}

/* What the distance from the target is multiplied with. */
static inline C scale_of(__global const T *dy, __global const L *labels, __global const T *weights,
                  __global const C *divisor, const int i, const int classes, const L ignored,
                  const C share)
{
    const C weight = weight_of(labels[i], weights, classes, ignored);
#ifdef EACH
    const C scale = weight * (C)dy[i];
#else
    const C scale = weight * (C)dy[0];
#endif
#ifdef DIVIDED
    return scale / divisor[0];
#else
    return scale * share;
#endif
}

__kernel void backward(__global const T *dy, __global const T *log_prob, __global const L *labels,
                       __global const T *weights, __global const C *divisor, __global T *dx,
                       const int count, const int inner, const int classes, const L ignored,
                       const C share)
{
    const int i = get_global_id(0);
    if (i >= count) return;
    const int start = (i / inner) * classes * inner + i % inner;
    const L label = labels[i];
    const C scale = scale_of(dy, labels, weights, divisor, i, classes, ignored, share);
    log_prob += start;
    dx += start;
    for (int c = 0; c < classes; c++) {
        const C p = exp((C)log_prob[c * inner]);
        dx[c * inner] = (T)((p - (C)(label == (L)c)) * scale);
    }
}

/* inner = 1: a row of classes in vectors; the label's own element is done again at the end. */
__kernel HINT void backward_rows(__global const T *dy, __global const T *log_prob,
                                 __global const L *labels, __global const T *weights,
                                 __global const C *divisor, __global T *dx, const int count,
                                 const int classes, const L ignored, const C share)
{
    const int i = get_global_id(0);
    if (i >= count) return;
    const L label = labels[i];
    const C scale = scale_of(dy, labels, weights, divisor, i, classes, ignored, share);
    log_prob += i * classes;
    dx += i * classes;
    const bool known = label >= 0 && label < (L)classes;
    const C own = known ? (exp((C)log_prob[label]) - (C)1) * scale : (C)0;
    int c = 0;
    for (; c + W <= classes; c += W) {
        const VEC(C) p = LOAD(*(__global const TV *)(log_prob + c));
        *(__global TV *)(dx + c) = STORE(exp(p) * (VEC(C))scale);
    }
    for (; c < classes; c++) dx[c] = (T)(exp((C)log_prob[c]) * scale);
    if (known) dx[label] = (T)own;
}

/* inner = 1: one item per class and label, neighbours along the classes (GPUs). */
__kernel void backward_elements(__global const T *dy, __global const T *log_prob,
                                __global const L *labels, __global const T *weights,
                                __global const C *divisor, __global T *dx, const int count,
                                const int classes, const L ignored, const C share)
{
    const int c = get_global_id(0), i = get_global_id(1);
    if (c >= classes || i >= count) return;
    const C scale = scale_of(dy, labels, weights, divisor, i, classes, ignored, share);
    const C p = exp((C)log_prob[i * classes + c]);
    dx[i * classes + c] = (T)((p - (C)(labels[i] == (L)c)) * scale);
}
