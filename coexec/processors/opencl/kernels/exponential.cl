/* EXP(V, x): e to the power of x of type V, which is C or VEC(C); included by kernels that include
 * vectors.cl and compute in C. Where C is float it is a polynomial in vector code, since the
 * built-in is a function call that leaves registers on some CPU compilers: 2^n e^r, with the
 * coefficients of Cephes' expf for e^r (Moshier; error below 2 ulp). The power of two is applied in
 * halves, so that results go smoothly to 0 and to infinity; NaN stays NaN.
 * EXP_FALLING(V, x) is for x of at most 0 and takes half the operations, in shorter chains: what is
 * below the smallest normal number becomes 0, and the polynomial has the least largest relative
 * error of its degree, 1.8 ulp in all. No kernel stands here. */

#ifndef C
#define C float /* type to compute in */
#endif

#define FAST_EXP_float 1 /* of no other type */
#if CAT(FAST_EXP_, C)
/* t is n = round(x / ln 2) in the low bits of a float whose unit is 1. */
#define DEFINE_EXP(V, I)                                                                    \
    static inline __attribute__((always_inline)) V CAT(exp_, V)(V x)                        \
    {                                                                                       \
        x = x > (V)89.0f ? (V)89.0f : x;                                                    \
        x = x < (V)-104.0f ? (V)-104.0f : x;                                                \
        const V t = x * (V)1.44269504f + (V)12582912.0f;                                    \
        const V n = t - (V)12582912.0f;                                                     \
        const V r = (x - n * (V)0.693359375f) + n * (V)2.12194440e-4f;                      \
        V p = r * (V)1.9875691500e-4f + (V)1.3981999507e-3f;                                \
        p = p * r + (V)8.3334519073e-3f;                                                    \
        p = p * r + (V)4.1665795894e-2f;                                                    \
        p = p * r + (V)1.6666665459e-1f;                                                    \
        p = p * r + (V)5.0000001201e-1f;                                                    \
        p = p * (r * r) + (r + (V)1.0f);                                                    \
        const I whole = CAT(as_, I)(t) - (I)0x4b400000;                                     \
        const I low = whole >> 1;                                                           \
        p *= CAT(as_, V)((low + 127) << 23);                                                \
        return p * CAT(as_, V)((whole - low + 127) << 23);                                  \
    }                                                                                       \
    static inline __attribute__((always_inline)) V CAT(exp_falling_, V)(V x)                \
    {                                                                                       \
        x = x < (V)-88.0f ? (V)-88.0f : x; /* n = -127: the exponent of 0 */                \
        const V t = x * (V)1.44269504f + (V)12583039.0f; /* with the exponent's bias, 127 */ \
        const V n = t - (V)12583039.0f;                                                     \
        const V r = (x - n * (V)0.693359375f) + n * (V)2.12194440e-4f, square = r * r;      \
        const V low = r * (V)1.6667115390e-1f + (V)4.9999230310e-1f;                        \
        const V high = r * (V)8.3125012095e-3f + (V)4.1890331489e-2f;                       \
        const V p = (high * square + low) * square + (r + (V)1.0f);                         \
        return p * CAT(as_, V)(CAT(as_, I)(t) << 23);                                       \
    }
DEFINE_EXP(float, int)
#if W > 1
DEFINE_EXP(VEC(float), VEC(int))
#endif
#define EXP(V, x) CAT(exp_, V)(x)
#define EXP_FALLING(V, x) CAT(exp_falling_, V)(x)
#else
#define EXP(V, x) exp(x)
#define EXP_FALLING(V, x) exp(x)
#endif
