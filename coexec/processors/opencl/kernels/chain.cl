/* A chain of elementwise operators over one shape in one pass: results = STEPS(operands).
 *
 * Layout: results are dense. Without LINES every operand is dense too, or one element. With LINES
 * the shape is o0 x o1 x o2 x middle x inner; an operand that is neither has one stride for each
 * of the outer four dimensions and lies dense or as one value along inner.
 * Geometry: (inner / W) or (inner / W, middle, o0 o1 o2); a work-item does W elements, the last one
 * of a line does the rest one by one. It reads all its elements before it writes any, so that a
 * result may be the storage of a dense operand of its type.
 *
 * What a chain consists of is text that the compiler of regions writes; the defaults show its form:
 * the square root of x0 where x1 is true, else n0. */

#ifndef T
#define T float /* element type of tensors that are not boolean (those are uchar) */
#endif
#ifndef C
#define C float /* type to compute in: T, or float where T is half */
#endif
#ifndef M
#define M int /* signed integer as wide as C: what comparisons yield, and booleans in registers */
#endif
#ifndef W
#define W 16 /* elements of a work-item: 1, 2, 4, 8 or 16 */
#endif
#ifndef OPERANDS
/* Tensors, then numbers. */
#define OPERANDS __global const T *x0, __global const uchar *x1, __global T *y0, const C n0
/* The functions of the steps; V is C or a vector of it. */
#define F0(V, NUMBER, x) (sqrt(x))
#define F1(V, NUMBER, c, a, b) ((c) ? (a) : (b))
/* Registers v0, v1, ... from operands at element i, or at 0 where they are one element. */
#define LOADS(V, B, LOAD, TEST, i) const V v0 = LOAD(x0 + (i)); const B v1 = TEST(x1 + (i));
/* Registers t0, t1, ... of type V or, for booleans, B; NUMBER(V, v) is 1 where v is true. */
#define STEPS(V, B, NUMBER) \
    const V t0 = F0(V, NUMBER, v0); const V t1 = F1(V, NUMBER, v1, t0, (V)n0);
#define SAVES(SAVE, MARK, i) SAVE(y0 + (i), t1);
#endif
/* LINES: defined where an operand is broadcast along some dimensions and not along others; then
 * STRIDES are the parameters of such operands and MOVES advances their pointers.
 * WIDEN: defined where C is not T. */
#ifndef STRIDES
#define STRIDES
#define MOVES
#endif

#include "vectors.cl"
#include "exponential.cl"

typedef VEC(T) TV __attribute__((aligned(sizeof(T))));
typedef VEC(uchar) BV __attribute__((aligned(1)));
/* Kernels are vectors already: compilers that merge work-items must not do it again. */
#define HINT __attribute__((vec_type_hint(VEC(C))))

#define LOAD1(p) ((C)*(p))
#define SAVE1(p, v) *(p) = (T)(v)
#define TEST1(p) ((M)(*(p) != 0))
#define MARK1(p, v) *(p) = (uchar)((v) != 0)
#define NUMBER1(V, v) ((V)(v))
#if W == 1
#define LOADW(p) LOAD1(p)
#define SAVEW(p, v) SAVE1(p, v)
#define TESTW(p) TEST1(p)
#define MARKW(p, v) MARK1(p, v)
#define NUMBERW(V, v) NUMBER1(V, v)
#else
#ifdef WIDEN
#define LOADW(p) CONVERT(C, *(__global const TV *)(p))
#define SAVEW(p, v) *(__global TV *)(p) = CONVERT(T, v)
#else
#define LOADW(p) (*(__global const TV *)(p))
#define SAVEW(p, v) *(__global TV *)(p) = (v)
#endif
/* Vectors hold -1 for true, single elements 1. */
#define TESTW(p) (CONVERT(M, *(__global const BV *)(p)) != (VEC(M))0)
#define MARKW(p, v) *(__global BV *)(p) = CONVERT(uchar, -(v))
#define NUMBERW(V, v) ((v) ? (V)1 : (V)0)
#endif

#ifdef LINES
#define SHAPE const int o0, const int o1, const int o2, const int middle, const int inner STRIDES
#else
#define SHAPE const int inner
#endif

__kernel HINT void chain(OPERANDS, SHAPE)
{
    const int start = (int)get_global_id(0) * W;
#ifdef LINES
    const int j = get_global_id(1);
    const int k = get_global_id(2);
    if (start >= inner || j >= middle) return;
    const int k2 = k % o2;
    const int k1 = (k / o2) % o1;
    const int k0 = k / (o2 * o1);
    const int line = (k * middle + j) * inner;
    MOVES
#endif
    if (start + W <= inner) {
        LOADS(VEC(C), VEC(M), LOADW, TESTW, start)
        STEPS(VEC(C), VEC(M), NUMBERW)
        SAVES(SAVEW, MARKW, start)
        return;
    }
    for (int i = start; i < inner; i++) {
        LOADS(C, M, LOAD1, TEST1, i)
        STEPS(C, M, NUMBER1)
        SAVES(SAVE1, MARK1, i)
    }
}
