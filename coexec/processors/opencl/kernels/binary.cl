/* Elementwise operators of two operands with broadcasting: y = F(a, b).
 *
 * binary:  y is o0 x o1 x o2 x middle x inner, dense. An operand's elements lie by one stride for
 *          each dimension, that of inner (step) being 0 (one value a line) or 1.
 *          Geometry: (inner / W, middle, o0 o1 o2); a work-item does W elements of a line, the last
 *          one of a line does the rest one by one.
 * strided: y is d0 x ... x d7, dense; a and b have any strides. One work-item per element.
 *
 * y may be the storage of a or of b where that has y's type and shape. */

#ifndef T
#define T float /* element type of a */
#endif
#ifndef S
#define S float /* element type of b */
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
#define F(V, a, b) ((a) + (b)) /* the operator on operands of type V, C or a vector of it */
#endif
/* WIDEN: defined where C is not T.  PREDICATE: defined where F is a condition and U is uchar.
 * MIXED: defined where S is not T; then F takes b as it is and W must be 1. */

#include "elementwise.cl"

#ifdef MIXED
#define LOADB(v) (v)
#define BTYPE S
#else
#define LOADB(v) LOAD1(v)
#define BTYPE C
#endif

/* Remainder of floats with the sign of the divisor. */
#define FLOOR_MOD(V, a, b) \
    (fmod(a, b) + (((fmod(a, b) != (V)0) & ((fmod(a, b) < (V)0) != ((b) < (V)0))) ? (b) : (V)0))

#ifdef INTEGERS /* defined where a is of integers */
/* Integer helpers: no division by zero and no overflow of MIN / -1, both of which trap on CPUs. */
#define QUOTIENT(a, b) ((b) == 0 ? (T)0 : ((T)((b) + 1) == 0 ? (T)(0 - (a)) : (T)((a) / (b))))
#define REMAINDER(a, b) ((b) == 0 || (T)((b) + 1) == 0 ? (T)0 : (T)((a) % (b)))
#define UQUOTIENT(a, b) ((b) == 0 ? (T)0 : (T)((a) / (b)))
#define UREMAINDER(a, b) ((b) == 0 ? (T)0 : (T)((a) % (b)))

inline T floor_remainder(const T a, const T b)
{
    const T r = REMAINDER(a, b);
    return (r != 0 && (r < 0) != (b < 0)) ? (T)(r + b) : r;
}

/* Integer power by squaring, wrapping; a negative exponent gives the truncated reciprocal. */
inline T integer_power(T a, const long exponent)
{
    if (exponent < 0) return a == 1 ? (T)1 : ((T)(a + 1) == 0 ? ((exponent & 1) ? a : (T)1) : (T)0);
    T result = 1;
    for (long e = exponent; e > 0; e >>= 1) {
        if (e & 1) result = (T)(result * a);
        a = (T)(a * a);
    }
    return result;
}
#endif

#ifndef MIXED
__kernel HINT void binary(__global const T *a, __global const T *b, __global U *y,
                          const int o0, const int o1, const int o2,
                          const int middle, const int inner,
                          const int a0, const int a1, const int a2,
                          const int a_middle, const int a_step,
                          const int b0, const int b1, const int b2,
                          const int b_middle, const int b_step)
{
    const int start = (int)get_global_id(0) * W;
    const int j = get_global_id(1);
    const int k = get_global_id(2);
    if (start >= inner || j >= middle) return;
    const int k2 = k % o2;
    const int k1 = (k / o2) % o1;
    const int k0 = k / (o2 * o1);
    a += k0 * a0 + k1 * a1 + k2 * a2 + j * a_middle;
    b += k0 * b0 + k1 * b1 + k2 * b2 + j * b_middle;
    y += (k * middle + j) * inner;
    if (start + W <= inner) {
        VEC(C) p;
        VEC(C) q;
        if (a_step) p = LOAD(*(__global const TV *)(a + start));
        else p = (VEC(C))LOAD1(a[0]);
        if (b_step) q = LOAD(*(__global const TV *)(b + start));
        else q = (VEC(C))LOAD1(b[0]);
        *(__global UV *)(y + start) = STORE(F(VEC(C), p, q));
        return;
    }
    for (int i = start; i < inner; i++) {
        const C p = LOAD1(a[i * a_step]);
        const C q = LOAD1(b[i * b_step]);
        y[i] = STORE1(F(C, p, q));
    }
}
#endif

#define SPLIT(d, s, t) at_a += (rest % d) * s; at_b += (rest % d) * t; rest /= d;

__kernel void strided(__global const T *a, __global const S *b, __global U *y, const int size,
                      const int d0, const int d1, const int d2, const int d3,
                      const int d4, const int d5, const int d6, const int d7,
                      const int s0, const int s1, const int s2, const int s3,
                      const int s4, const int s5, const int s6, const int s7,
                      const int t0, const int t1, const int t2, const int t3,
                      const int t4, const int t5, const int t6, const int t7)
{
    const int i = get_global_id(0);
    if (i >= size) return;
    int rest = i, at_a = 0, at_b = 0;
    SPLIT(d7, s7, t7)
    SPLIT(d6, s6, t6)
    SPLIT(d5, s5, t5)
    SPLIT(d4, s4, t4)
    SPLIT(d3, s3, t3)
    SPLIT(d2, s2, t2)
    SPLIT(d1, s1, t1)
    SPLIT(d0, s0, t0)
    const C p = LOAD1(a[at_a]);
    const BTYPE q = LOADB(b[at_b]);
    y[i] = STORE1(F(C, p, q));
}
