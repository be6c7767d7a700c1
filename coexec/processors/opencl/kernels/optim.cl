/* Optimizer steps on one tensor: Momentum, Adam, Adagrad as ONNX's ai.onnx.preview.training.
 * Layout: flat. rate and count lie on the device, so that a step never waits for the host.
 * Geometry: a work-item updates N vectors of W elements; the last one does the rest one by one.
 * Results may be the storage of the operands they replace. */

#ifndef T
#define T float /* element type of the tensors */
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
#ifndef N
#define N 4 /* vectors of a work-item */
#endif
/* WIDEN: defined where C is not T.  NESTEROV: defined for Momentum's mode "nesterov". */

#include "vectors.cl"

typedef VEC(T) TV __attribute__((aligned(sizeof(T))));
typedef VEC(C) CV;
#define HINT __attribute__((vec_type_hint(CV)))

#ifdef WIDEN
#define GET(p) CONVERT(C, *(__global const TV *)(p))
#define PUT(p, v) *(__global TV *)(p) = CONVERT(T, v)
#else
#define GET(p) (*(__global const TV *)(p))
#define PUT(p, v) *(__global TV *)(p) = (v)
#endif
#define GET1(p) ((C) * (p))
#define PUT1(p, v) *(p) = (T)(v)

/* Runs STEP(V, GET, PUT) over the item's vectors, then over the rest of the tensor. */
#define SWEEP(STEP)                                          \
    int i = (int)get_global_id(0) * (N * W);                 \
    const int stop = min(size, i + N * W);                   \
    for (; i + W <= stop; i += W) { STEP(CV, GET, PUT) }     \
    for (; i < stop; i++) { STEP(C, GET1, PUT1) }

#ifdef NESTEROV
#define DIRECTION(V, g, v) ((g) + (V)alpha * (v))
#else
#define DIRECTION(V, g, v) (v)
#endif
#define MOMENTUM(V, LOAD, SAVE)                              \
    const V x0 = LOAD(x + i);                                \
    const V gr = (V)norm * x0 + LOAD(g + i);                 \
    const V v1 = (V)alpha * LOAD(v + i) + (V)fresh * gr;     \
    SAVE(x_new + i, x0 - (V)rate * DIRECTION(V, gr, v1));    \
    SAVE(v_new + i, v1);

__kernel HINT void momentum(__global const R *rates, __global const long *counts,
                            __global const T *x, __global const T *g, __global const T *v,
                            __global T *x_new, __global T *v_new, const int size,
                            const C alpha, const C beta, const C norm)
{
    const C rate = (C)rates[0];
    const C fresh = counts[0] > 0 ? beta : (C)1;
    SWEEP(MOMENTUM)
}

#define ADAM(V, LOAD, SAVE)                                                  \
    const V x0 = LOAD(x + i);                                                \
    const V gr = (V)norm * x0 + LOAD(g + i);                                 \
    const V v1 = (V)alpha * LOAD(v + i) + (V)one_minus_alpha * gr;           \
    const V h1 = (V)beta * LOAD(h + i) + (V)one_minus_beta * gr * gr;        \
    const V x1 = x0 - (V)rate * v1 / (sqrt(h1) + (V)epsilon);                \
    SAVE(x_new + i, (V)keep * x1);                                           \
    SAVE(v_new + i, v1);                                                     \
    SAVE(h_new + i, h1);

/* log_alpha, log_beta: 1 - a^t = -expm1(t log a) keeps its accuracy for a close to 1. */
__kernel HINT void adam(__global const R *rates, __global const long *counts,
                        __global const T *x, __global const T *g, __global const T *v,
                        __global const T *h, __global T *x_new, __global T *v_new,
                        __global T *h_new, const int size,
                        const C alpha, const C one_minus_alpha, const C log_alpha,
                        const C beta, const C one_minus_beta, const C log_beta,
                        const C epsilon, const C norm, const C keep)
{
    const C t = (C)counts[0];
    C rate = (C)rates[0];
    if (t > 0) rate *= sqrt(-expm1(t * log_beta)) / -expm1(t * log_alpha);
    SWEEP(ADAM)
}

#define ADAGRAD(V, LOAD, SAVE)                                       \
    const V x0 = LOAD(x + i);                                        \
    const V gr = (V)norm * x0 + LOAD(g + i);                         \
    const V h1 = LOAD(h + i) + gr * gr;                              \
    SAVE(x_new + i, x0 - (V)rate * gr / (sqrt(h1) + (V)epsilon));    \
    SAVE(h_new + i, h1);

__kernel HINT void adagrad(__global const R *rates, __global const long *counts,
                           __global const T *x, __global const T *g, __global const T *h,
                           __global T *x_new, __global T *h_new, const int size,
                           const C epsilon, const C norm, const C decay)
{
    const C rate = (C)rates[0] / ((C)1 + (C)counts[0] * decay);
    SWEEP(ADAGRAD)
}
