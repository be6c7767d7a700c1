/* Pooling of 2 x 2 tiles without padding, straight from rows of x: maxima, averages, gradients.
 * Layout: x (planes, i1, i2), y (planes, o1, o2) with o = i / 2; a last odd row or column of x is in
 * no window, its gradient is zero. V windows are worked on at once; o2 >= V, and the last vector of a
 * row overlaps its neighbour.
 * Geometry: one work-item per share of all rows of windows (divided evenly, in order), groups of
 * one. */

#ifndef GRAD
#define GRAD 0 /* 1: the gradient of x */
#endif
#ifndef MAXIMUM
#define MAXIMUM 1 /* 1: maxima, 0: averages */
#endif

#include "alone.cl"
#include "column_pairs.cl"

typedef fetched vec;
/* A later element is the maximum if it is larger or no number. */
#define BETTER(v, best) (((v) > (best)) | ((v) != (v)))

#if !MAXIMUM && GRAD
#define SOURCE
#else
#define SOURCE __global const T *x,
#endif
#if GRAD
#define RESULT __global const T *y, __global T *dx
#else
#define RESULT __global T *y
#endif

#if GRAD
__kernel ALONE void pool_pairs_grad(
#else
__kernel ALONE void pool_pairs(
#endif
    SOURCE RESULT, const int lines, const int i1, const int i2, const int o1, const int o2)
{
    const int item = get_global_id(0), count = get_global_size(0);
    const int end = (int)((long)lines * (item + 1) / count);
    for (int line = (int)((long)lines * item / count); line < end; ++line) {
        const int row = line % o1, top = (line / o1 * i1 + 2 * row) * i2;
        for (int col = 0;;) {
            const int at = top + 2 * col;
#if MAXIMUM || !GRAD
            LOAD_PAIRS(x + at, v0, v1)
            LOAD_PAIRS(x + at + i2, v2, v3)
#endif
#if MAXIMUM
            vec best = BETTER(v1, v0) ? v1 : v0;
#if GRAD
            vec left = LOAD(y + line * o2 + col); /* what no later element takes */
            const vec best2 = BETTER(v2, best) ? v2 : best;
            const vec d3 = BETTER(v3, best2) ? left : (vec)0;
            left = BETTER(v3, best2) ? (vec)0 : left;
            const vec d2 = BETTER(v2, best) ? left : (vec)0;
            left = BETTER(v2, best) ? (vec)0 : left;
            const vec d1 = BETTER(v1, v0) ? left : (vec)0;
            const vec d0 = BETTER(v1, v0) ? (vec)0 : left;
#else
            best = BETTER(v2, best) ? v2 : best;
            best = BETTER(v3, best) ? v3 : best;
            STORE(y + line * o2 + col, best);
#endif
#elif GRAD
            const vec d0 = LOAD(y + line * o2 + col) / (ACC)4, d1 = d0, d2 = d0, d3 = d0;
#else
            STORE(y + line * o2 + col, (v0 + v1 + v2 + v3) / (ACC)4);
#endif
#if GRAD
            STORE_PAIRS(dx + at, d0, d1)
            STORE_PAIRS(dx + at + i2, d2, d3)
#endif
            if (col == o2 - V) break;
            col = col + V < o2 - V ? col + V : o2 - V;
        }
#if GRAD
        if (i2 % 2) dx[top + i2 - 1] = dx[top + 2 * i2 - 1] = 0;
        if (i1 % 2 && row == o1 - 1)
            for (int i = 0; i < i2; ++i) dx[top + 2 * i2 + i] = 0;
#endif
    }
}
