/* Elements of operands and results of elementwise kernels, included by unary.cl and binary.cl: LOAD
 * and STORE for W of them (HINT marks such kernels), LOAD1 and STORE1 for one. No kernel stands
 * here. */

#ifndef T
#define T float /* element type of operands */
#endif
#ifndef U
#define U float /* element type of the result */
#endif
#ifndef C
#define C float /* type to compute in: T, or float where T is half */
#endif
/* WIDEN: defined where C is not T.  PREDICATE: defined where results are conditions and U uchar. */

#include "vectors.cl"
#include "exponential.cl"

typedef VEC(T) TV __attribute__((aligned(sizeof(T))));
typedef VEC(U) UV __attribute__((aligned(sizeof(U))));
/* Kernels are vectors already: compilers that merge work-items must not do it again. */
#define HINT __attribute__((vec_type_hint(VEC(C))))

#ifdef WIDEN
#define LOAD(v) CONVERT(C, v)
#define LOAD1(v) ((C)(v))
#else
#define LOAD(v) (v)
#define LOAD1(v) (v)
#endif
#if defined(PREDICATE) && W > 1
#define STORE(v) CONVERT(U, -(v)) /* a vector comparison yields -1 for true */
#define STORE1(v) ((U)((v) ? 1 : 0))
#elif defined(PREDICATE)
#define STORE(v) ((U)((v) ? 1 : 0))
#define STORE1(v) STORE(v)
#elif defined(WIDEN)
#define STORE(v) CONVERT(U, v)
#define STORE1(v) ((U)(v))
#else
#define STORE(v) (v)
#define STORE1(v) (v)
#endif
