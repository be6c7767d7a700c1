/* Elementwise operators of one operand: y[i] = F(x[i]); Clip, whose bounds lie in memory.
 * Layout: flat, any shape. Geometry: one work-item per W elements, padded to the work-group size;
 * the last item does the rest one by one. */

#ifndef T
#define T float /* element type of x */
#endif
#ifndef U
#define U float /* element type of y */
#endif
#ifndef C
#define C float /* type that F computes in: T, or float where T is half */
#endif
#ifndef W
#define W 16 /* elements of a work-item: 1, 2, 4, 8 or 16 */
#endif
#ifndef F
#define F(V, x) (x) /* the operator on x of type V, which is C or a vector of it */
#endif
/* WIDEN: defined where C is not T.  PREDICATE: defined where F is a condition and U is uchar. */

#include "elementwise.cl"

__kernel HINT void unary(__global const T *x, __global U *y, const int size)
{
    const int start = (int)get_global_id(0) * W;
    if (start + W <= size) {
        const VEC(C) v = LOAD(*(__global const TV *)(x + start));
        *(__global UV *)(y + start) = STORE(F(VEC(C), v));
        return;
    }
    for (int i = start; i < size; i++) {
        const C v = LOAD1(x[i]);
        y[i] = STORE1(F(C, v));
    }
}

/* y = min(max(x, low[0]), high[0]); NaN stays NaN. */
#define LIMIT(V, v)                                       \
    if (has_low) v = (v < (V)bottom) ? (V)bottom : v;     \
    if (has_high) v = (v > (V)top) ? (V)top : v;

__kernel HINT void clip(__global const T *x, __global const T *low, __global const T *high,
                        __global T *y, const int size, const int has_low, const int has_high)
{
    const T bottom = low[0];
    const T top = high[0];
    const int start = (int)get_global_id(0) * W;
    if (start + W <= size) {
        VEC(T) v = *(__global const TV *)(x + start);
        LIMIT(VEC(T), v)
        *(__global TV *)(y + start) = v;
        return;
    }
    for (int i = start; i < size; i++) {
        T v = x[i];
        LIMIT(T, v)
        y[i] = v;
    }
}
