/* Vectors of W bytes and the floats that they stand for, included by kernels on bytes with channels
 * last. AS(t, v) turns the vector v into one of t: compilers that have clang's builtin for it need
 * no call (PoCL calls functions for convert_*, rint and clamp). No kernel stands here. */

#include "vectors.cl"

typedef VEC(float) REALS;
typedef VEC(int) INTS;
typedef VEC(uint) UINTS;
typedef VEC(uchar) BYTES;
typedef BYTES BYTES_ANYWHERE __attribute__((aligned(1)));
typedef UINTS UINTS_ANYWHERE __attribute__((aligned(4)));
typedef REALS REALS_ANYWHERE __attribute__((aligned(4)));

#if W == 1
#define AS(t, v) ((t)(v))
#define HINT
#else
#define HINT __attribute__((vec_type_hint(VEC(float))))
#if defined(__has_builtin)
#if __has_builtin(__builtin_convertvector)
#define AS(t, v) __builtin_convertvector(v, VEC(t))
#endif
#endif
#ifndef AS
#define AS(t, v) CONVERT(t, v)
#endif
#endif

#define REALS_AT(from) AS(float, AS(int, *(__global const BYTES_ANYWHERE *)(from)))
#define BYTES_OF(v) AS(uchar, AS(int, v))
#define WHOLE 12582912.0f /* 1.5 * 2^23: floats beyond have no halves */

/* The nearest whole numbers within bounds (of which none leaves 2^22); halves go to even. */
__attribute__((always_inline)) inline REALS rounded(REALS v, const float low, const float high)
{
    v = v < (REALS)low ? (REALS)low : v;
    v = v > (REALS)high ? (REALS)high : v;
    return (v + WHOLE) - WHOLE;
}
