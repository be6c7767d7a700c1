/* Optimizer steps on several tensors: Momentum, Adam, Adagrad as ONNX's ai.onnx.preview.training.
 * Layout: flat. rate and count lie on the device, so that a step never waits for the host.
 * Geometry: the tensors are cut into chunks of CHUNK elements, a work-group for each; its items
 * take vectors of W elements in turn. Results may be the storage of the operands they replace. */

#ifndef T
#define T float /* element type of the tensors */
#endif
#ifndef G
#define G T /* element type of gradients */
#endif
#ifndef R
#define R float /* type of the learning rate */
#endif
#ifndef C
#define C float /* type to compute in: float for half, T else */
#endif
#ifndef W
#define W 16 /* elements of a vector: 1, 2, 4, 8 or 16 */
#endif
#ifndef CHUNK
#define CHUNK 1024 /* elements of a work-group: a multiple of W */
#endif
#ifndef TENSORS
/* For each tensor its operands, its results, its elements, and the number of its first chunk. */
#define TENSORS                                                                            \
    __global const T *x0, __global const G *g0, __global const T *s0, __global T *x_new0,  \
    __global T *s_new0, const int size0, const int first0
/* Sets x, g, s, x_new, s_new, size, first to those of the tensor that holds a chunk. */
#define PICK(chunk) \
    { x = x0; g = g0; s = s0; x_new = x_new0; s_new = s_new0; size = size0; first = first0; }
#endif
/* WIDEN: defined where C is not T, WIDEN_GRADIENT where it is not G.
 * SCALED: defined where gradients are multiplied by a number first, which lies on the device.
 * NESTEROV: defined for Momentum's mode "nesterov".
 * MOMENTUM, ADAM or ADAGRAD is defined: tensors of Adam have a second state h. */
#if !defined(ADAM) && !defined(ADAGRAD) && !defined(MOMENTUM)
#define MOMENTUM 1
#endif

#include "vectors.cl"

typedef VEC(T) TV __attribute__((aligned(sizeof(T))));
typedef VEC(G) GV __attribute__((aligned(sizeof(G))));
typedef VEC(C) CV;
#define HINT __attribute__((vec_type_hint(CV)))

#ifdef WIDEN
#define GET(p) CONVERT(C, *(__global const TV *)(p))
#define PUT(p, v) *(__global TV *)(p) = CONVERT(T, v)
#else
#define GET(p) (*(__global const TV *)(p))
#define PUT(p, v) *(__global TV *)(p) = (v)
#endif
#ifdef WIDEN_GRADIENT
#define GRAD(p) CONVERT(C, *(__global const GV *)(p))
#else
#define GRAD(p) (*(__global const GV *)(p))
#endif
#define GRAD1(p) ((C) * (p))
#define GET1(p) ((C) * (p))
#define PUT1(p, v) *(p) = (T)(v)

#ifdef SCALED
#define FACTOR __global const C *factors,
#define TAKE_FACTOR const C factor = factors[0];
#define SCALE(V, g) ((V)factor * (g))
#else
#define FACTOR
#define TAKE_FACTOR
#define SCALE(V, g) (g)
#endif

/* Runs STEP(V, GET, GRAD, PUT) over the group's chunk by vectors, then over the rest of it. */
#define SWEEP(STEP)                                                          \
    const int chunk = get_group_id(0);                                       \
    __global const T *x, *s;                                                 \
    __global const G *g;                                                     \
    __global T *x_new, *s_new;                                               \
    SECOND                                                                   \
    TAKE_FACTOR                                                              \
    int size, first;                                                         \
    PICK(chunk)                                                              \
    const int begin = (chunk - first) * CHUNK;                               \
    const int stop = min(size - begin, CHUNK) + begin;                       \
    const int stride = (int)get_local_size(0) * W;                           \
    int i = begin + (int)get_local_id(0) * W;                                \
    for (; i + W <= stop; i += stride) { STEP(CV, GET, GRAD, PUT) }          \
    for (const int end = min(i + W, stop); i < end; i++) { STEP(C, GET1, GRAD1, PUT1) }

#ifdef MOMENTUM
#define SECOND
#ifdef NESTEROV
#define DIRECTION(V, g, v) ((g) + (V)alpha * (v))
#else
#define DIRECTION(V, g, v) (v)
#endif
#define STEP(V, LOAD, DOWN, SAVE)                                           \
    const V old = LOAD(x + i);                                              \
    const V grad = (V)norm * old + SCALE(V, DOWN(g + i));                   \
    const V mean = (V)alpha * LOAD(s + i) + (V)fresh * grad;                \
    SAVE(x_new + i, old - (V)rate * DIRECTION(V, grad, mean));              \
    SAVE(s_new + i, mean);

__kernel HINT void momentum(__global const R *rates, __global const long *counts, FACTOR
                            const C alpha, const C beta, const C norm, TENSORS)
{
    const C rate = (C)rates[0];
    const C fresh = counts[0] > 0 ? beta : (C)1;
    SWEEP(STEP)
}
#endif

#ifdef ADAM
#define SECOND __global const T *h; __global T *h_new;
#define STEP(V, LOAD, DOWN, SAVE)                                           \
    const V old = LOAD(x + i);                                              \
    const V grad = (V)norm * old + SCALE(V, DOWN(g + i));                   \
    const V mean = (V)alpha * LOAD(s + i) + (V)one_minus_alpha * grad;      \
    const V square = (V)beta * LOAD(h + i) + (V)one_minus_beta * grad * grad; \
    const V fresh = old - (V)rate * mean / (sqrt(square) + (V)epsilon);     \
    SAVE(x_new + i, (V)keep * fresh);                                       \
    SAVE(s_new + i, mean);                                                  \
    SAVE(h_new + i, square);

/* log_alpha, log_beta: 1 - a^t = -expm1(t log a) keeps its accuracy for a close to 1. */
__kernel HINT void adam(__global const R *rates, __global const long *counts, FACTOR
                        const C alpha, const C one_minus_alpha, const C log_alpha,
                        const C beta, const C one_minus_beta, const C log_beta,
                        const C epsilon, const C norm, const C keep, TENSORS)
{
    const C t = (C)counts[0];
    C rate = (C)rates[0];
    if (t > 0) rate *= sqrt(-expm1(t * log_beta)) / -expm1(t * log_alpha);
    SWEEP(STEP)
}
#endif

#ifdef ADAGRAD
#define SECOND
#define STEP(V, LOAD, DOWN, SAVE)                                           \
    const V old = LOAD(x + i);                                              \
    const V grad = (V)norm * old + SCALE(V, DOWN(g + i));                   \
    const V square = LOAD(s + i) + grad * grad;                             \
    SAVE(x_new + i, old - (V)rate * grad / (sqrt(square) + (V)epsilon));    \
    SAVE(s_new + i, square);

__kernel HINT void adagrad(__global const R *rates, __global const long *counts, FACTOR
                           const C epsilon, const C norm, const C decay, TENSORS)
{
    const C rate = (C)rates[0] / ((C)1 + (C)counts[0] * decay);
    SWEEP(STEP)
}
#endif
