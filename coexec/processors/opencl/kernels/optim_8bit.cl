/* Optimizer steps with states in 8 bits: coexec's Momentum8bit and Adam8bit (ops/optim_8bit.py).
 * Layout: x, gradient and codes flat, a scale for every BLOCK elements. rate and count lie on the
 * device. Results may be the storage of the operands they replace.
 * Geometry: a work-group for MANY blocks, whose LOCAL items take vectors of W elements in turn. A
 * block is decoded, moved, and its new states wait in local memory until their largest is known. */

#ifndef W
#define W 8 /* elements of a vector: 1, 2, 4, 8 or 16 */
#endif
#ifndef LOCAL
#define LOCAL 1 /* items of a group: 1 on cores */
#endif
#ifndef MANY
#define MANY 16 /* blocks of a group: the rate is computed once for all */
#endif
#ifndef BLOCK
#define BLOCK 256 /* elements of a scale: a multiple of W */
#endif
/* NESTEROV: defined for Momentum's mode "nesterov". MOMENTUM or ADAM is defined. */
#if !defined(ADAM) && !defined(MOMENTUM)
#define MOMENTUM 1
#endif

#include "vectors.cl"

typedef VEC(float) FV __attribute__((aligned(4)));
typedef VEC(int) IV __attribute__((aligned(4)));
#define BITS CAT(as_, VEC(int))
#define FLOAT CAT(as_, VEC(float))
#define HINT __attribute__((reqd_work_group_size(LOCAL, 1, 1), vec_type_hint(VEC(float))))
#if LOCAL > 1
#define MEET barrier(CLK_LOCAL_MEM_FENCE)
#else
#define MEET
#endif

/* Seven decades of magnitudes; decade b has N(b) steps, whose middles are the values.
 * U is 1 for states without a sign, which have one bit more for steps. */
#define N(U, b) (float)((1 << (b)) << (U))
#define MIDDLE(p, n, k) ((float)(p) * (0.1f + 0.9f * ((float)(k) + 0.5f) / (n)))
#define EDGE(U, b, below, p) \
    (0.5f * (MIDDLE(below, N(U, b - 1), N(U, b - 1) - 1.0f) + MIDDLE(p, N(U, b), 0)))
#define LEAST(U) (0.5f * MIDDLE(1e-6f, N(U, 0), 0))
#define MOST(U) (0.5f * (MIDDLE(1, N(U, 6), N(U, 6) - 1.0f) + 1.0f))

/* Values by code: rows of 1, 2, 4 ... in each decade. */
#define R1(s, p, n, k) s MIDDLE(p, n, k)
#define R2(s, p, n, k) R1(s, p, n, k), R1(s, p, n, k + 1)
#define R4(s, p, n, k) R2(s, p, n, k), R2(s, p, n, k + 2)
#define R8(s, p, n, k) R4(s, p, n, k), R4(s, p, n, k + 4)
#define R16(s, p, n, k) R8(s, p, n, k), R8(s, p, n, k + 8)
#define R32(s, p, n, k) R16(s, p, n, k), R16(s, p, n, k + 16)
#define R64(s, p, n, k) R32(s, p, n, k), R32(s, p, n, k + 32)
#define R128(s, p, n, k) R64(s, p, n, k), R64(s, p, n, k + 64)
#define SEVEN(s) R1(s, 1e-6f, 1, 0), R2(s, 1e-5f, 2, 0), R4(s, 1e-4f, 4, 0), R8(s, 1e-3f, 8, 0), \
    R16(s, 1e-2f, 16, 0), R32(s, 1e-1f, 32, 0), R64(s, 1, 64, 0)
__constant float SIGNED[256] = { 0, SEVEN(+), 1, SEVEN(-) };
#ifdef ADAM
__constant float UNSIGNED[256] = { 0, R2(+, 1e-6f, 2, 0), R4(+, 1e-5f, 4, 0), R8(+, 1e-4f, 8, 0),
    R16(+, 1e-3f, 16, 0), R32(+, 1e-2f, 32, 0), R64(+, 1e-1f, 64, 0), R128(+, 1, 128, 0), 1 };
#endif

/* One decade up where the magnitude n is not below its edge. */
#define CLIMB(V, U, b, below, p)                                  \
    up = n >= (V)EDGE(U, b, below, p);                            \
    inverse = up ? (V)(1.0f / (p)) : inverse;                     \
    steps = up ? (V)N(U, b) : steps;

/* code = the number of the nearest value to n in [0, 1] above 0, as N(b) + k of its decade.
 * Adding 2^23 leaves the integer nearest to what was added in the low bits. */
#define NEAREST(V, I, TO_INT, U)                                                        \
    I up;                                                                               \
    V inverse = (V)1e6f, steps = (V)N(U, 0);                                            \
    CLIMB(V, U, 1, 1e-6f, 1e-5f) CLIMB(V, U, 2, 1e-5f, 1e-4f) CLIMB(V, U, 3, 1e-4f, 1e-3f) \
    CLIMB(V, U, 4, 1e-3f, 1e-2f) CLIMB(V, U, 5, 1e-2f, 1e-1f) CLIMB(V, U, 6, 1e-1f, 1.0f)  \
    V place = (n * inverse - (V)0.1f) * (V)(1.0f / 0.9f) * steps - (V)0.5f;             \
    place = place > (V)0.0f ? place : (V)0.0f;                                          \
    place = place < steps - (V)1.0f ? place : steps - (V)1.0f;                          \
    I code = TO_INT(place + steps + (V)8388608.0f) & (I)255;

/* Signed: bit 7 is the sign; code 128 is 1. */
#define ENCODE_SIGNED(V, I, TO_INT, TO_FLOAT, kept)                                     \
    {                                                                                   \
        const V value = *(__local V *)(kept);                                           \
        const I bits = TO_INT(value);                                                   \
        const V n = TO_FLOAT(bits & (I)0x7fffffff) * (V)scaling;                        \
        NEAREST(V, I, TO_INT, 0)                                                        \
        code |= (bits >> (I)24) & (I)128;                                               \
        code = n < (V)LEAST(0) ? (I)0 : code;                                           \
        up = value * (V)scaling >= (V)MOST(0);                                          \
        code = up ? (I)128 : code;                                                      \
        *(__local I *)(kept) = code;                                                    \
    }

/* Unsigned: what is above 0 stays above 0. */
#define ENCODE_UNSIGNED(V, I, TO_INT, TO_FLOAT, kept)                                   \
    {                                                                                   \
        const V value = *(__local V *)(kept);                                           \
        const V n = value * (V)scaling;                                                 \
        NEAREST(V, I, TO_INT, 1)                                                        \
        code = code - (I)1;                                                             \
        code = value > (V)0.0f ? code : (I)0;                                           \
        up = n >= (V)MOST(1);                                                           \
        code = up ? (I)255 : code;                                                      \
        *(__local I *)(kept) = code;                                                    \
    }

/* From codes to values in local memory, one by one: a look-up is no vector's work. */
#define DECODE(kept, codes, scales, VALUES)                                             \
    {                                                                                   \
        const float scale = scales[block];                                              \
        for (int i = item; i < count; i += LOCAL)                                       \
            kept[i] = VALUES[codes[begin + i]] * scale;                                 \
        for (int i = count + item; i < BLOCK; i += LOCAL) kept[i] = 0.0f;               \
    }

/* From values in local memory to codes and their scale, the group's largest magnitude. */
#define STORE(kept, top, codes, scales, ENCODE)                                         \
    {                                                                                   \
        float lanes[W];                                                                 \
        *(FV *)lanes = top;                                                             \
        float largest = 0.0f;                                                           \
        for (int i = 0; i < W; i++) largest = lanes[i] > largest ? lanes[i] : largest;  \
        GATHER_LARGEST                                                                  \
        const float scaling = largest > 0.0f ? 1.0f / largest : 0.0f;                   \
        for (int i = item * W; i < BLOCK; i += LOCAL * W)                               \
            ENCODE(FV, IV, BITS, FLOAT, kept + i)                                       \
        MEET;                                                                           \
        for (int j = item; j < count; j += LOCAL)                                       \
            codes[begin + j] = (uchar)(((__local const int *)kept)[j]);                 \
        if (item == 0) scales[block] = largest;                                         \
    }
#if LOCAL > 1
#define GATHER_LARGEST                                                                  \
    MEET;                                                                               \
    tops[item] = largest;                                                               \
    MEET;                                                                               \
    for (int i = 0; i < LOCAL; i++) largest = tops[i] > largest ? tops[i] : largest;
#else
#define GATHER_LARGEST
#endif

#define LARGER(V, top, value)                                                           \
    { const V size = (value) < (V)0.0f ? -(value) : (value); top = size > top ? size : top; }

/* Runs STEP over the group's block by vectors, then over the rest of the tensor. */
#define SWEEP                                                                           \
    int i = item * W;                                                                   \
    for (; i + W <= count; i += LOCAL * W) { STEP(FV, top_s, top_h) }                   \
    float last_s = 0.0f, last_h = 0.0f;                                                 \
    for (const int end = min(i + W, count); i < end; i++) { STEP(float, last_s, last_h) } \
    top_s = top_s > (FV)last_s ? top_s : (FV)last_s;                                    \
    top_h = top_h > (FV)last_h ? top_h : (FV)last_h;

#define SETUP                                                                           \
    const int item = get_local_id(0), first = (int)get_group_id(0) * MANY;              \
    const int blocks = min((size + BLOCK - 1) / BLOCK, first + MANY);                   \
    __local float kept_s[BLOCK] __attribute__((aligned(64)));
#define EACH_BLOCK                                                                      \
    const int begin = block * BLOCK;                                                    \
    const int count = min(size - begin, BLOCK);                                         \
    FV top_s = (FV)0.0f, top_h = (FV)0.0f;
#if LOCAL > 1
#define SHARED __local float tops[LOCAL];
#else
#define SHARED
#endif

#define AT(V, p) (*(__global const V *)((p) + begin + i))
#define PUT(V, p) *(__global V *)((p) + begin + i)
#define KEPT(V, kept) (*(__local V *)((kept) + i))

#ifdef MOMENTUM
#ifdef NESTEROV
#define DIRECTION(V, g, v) ((g) + (V)alpha * (v))
#else
#define DIRECTION(V, g, v) (v)
#endif
#define STEP(V, TOP_S, TOP_H)                                               \
    const V old = AT(V, x);                                                 \
    const V grad = (V)norm * old + AT(V, g);                                \
    const V mean = (V)alpha * KEPT(V, kept_s) + (V)fresh * grad;            \
    PUT(V, x_new) = old - (V)rate * DIRECTION(V, grad, mean);               \
    KEPT(V, kept_s) = mean;                                                 \
    LARGER(V, TOP_S, mean)

__kernel HINT void momentum(__global const float *rates, __global const long *counts,
                            const float alpha, const float beta, const float norm,
                            __global const float *x, __global const float *g,
                            __global const uchar *s, __global const float *s_scales,
                            __global float *x_new, __global uchar *s_new,
                            __global float *s_scales_new, const int size)
{
    SETUP
    SHARED
    const float rate = rates[0];
    const float fresh = counts[0] > 0 ? beta : 1.0f;
    for (int block = first; block < blocks; block++) {
        EACH_BLOCK
        DECODE(kept_s, s, s_scales, SIGNED)
        MEET;
        SWEEP
        STORE(kept_s, top_s, s_new, s_scales_new, ENCODE_SIGNED)
        MEET;
    }
}
#endif

#ifdef ADAM
#define STEP(V, TOP_S, TOP_H)                                               \
    const V old = AT(V, x);                                                 \
    const V grad = (V)norm * old + AT(V, g);                                \
    const V mean = (V)alpha * KEPT(V, kept_s) + (V)one_minus_alpha * grad;  \
    const V square = (V)beta * KEPT(V, kept_h) + (V)one_minus_beta * grad * grad; \
    const V fresh = old - (V)rate * mean / (sqrt(square) + (V)epsilon);     \
    PUT(V, x_new) = (V)keep * fresh;                                        \
    KEPT(V, kept_s) = mean;                                                 \
    KEPT(V, kept_h) = square;                                               \
    LARGER(V, TOP_S, mean)                                                  \
    LARGER(V, TOP_H, square)

/* log_alpha, log_beta: 1 - a^t = -expm1(t log a) keeps its accuracy for a close to 1. */
__kernel HINT void adam(__global const float *rates, __global const long *counts,
                        const float alpha, const float one_minus_alpha, const float log_alpha,
                        const float beta, const float one_minus_beta, const float log_beta,
                        const float epsilon, const float norm, const float keep,
                        __global const float *x, __global const float *g,
                        __global const uchar *s, __global const float *s_scales,
                        __global const uchar *h, __global const float *h_scales,
                        __global float *x_new, __global uchar *s_new,
                        __global float *s_scales_new, __global uchar *h_new,
                        __global float *h_scales_new, const int size)
{
    SETUP
    SHARED
    __local float kept_h[BLOCK] __attribute__((aligned(64)));
    const float t = (float)counts[0];
    float rate = rates[0];
    if (t > 0) rate *= sqrt(-expm1(t * log_beta)) / -expm1(t * log_alpha);
    for (int block = first; block < blocks; block++) {
        EACH_BLOCK
        DECODE(kept_s, s, s_scales, SIGNED)
        DECODE(kept_h, h, h_scales, UNSIGNED)
        MEET;
        SWEEP
        STORE(kept_s, top_s, s_new, s_scales_new, ENCODE_SIGNED)
        STORE(kept_h, top_h, h_new, h_scales_new, ENCODE_UNSIGNED)
        MEET;
    }
}
#endif
