/* Softmax, LogSoftmax, Hardmax and the gradients of the first two along one axis.
 * Layout: outer x length x inner, dense; a line is the `length` elements of one (outer, inner).
 *
 * rows:  inner = 1; one work-item per line, in vectors of W elements.
 * columns: inner > 1; one work-item for W neighbouring lines, fewer at the end of inner.
 * lines: any inner; one work-item per line, consecutive items along inner.
 *
 * y may be the storage of an operand. KIND: 0 Softmax, 1 LogSoftmax, 2 Hardmax (lines only). */

#ifndef T
#define T float /* element type */
#endif
#ifndef C
#define C float /* type to compute in: float for half, T else */
#endif
#ifndef W
#define W 16 /* elements of a vector: 1, 2, 4, 8 or 16 */
#endif
#ifndef KIND
#define KIND 0 /* see above */
#endif
/* WIDEN: defined where C is not T. */

#include "vectors.cl"
#include "exponential.cl"

typedef VEC(T) TV __attribute__((aligned(sizeof(T))));
#define HINT __attribute__((vec_type_hint(VEC(C))))

#ifdef WIDEN
#define LOAD(v) CONVERT(C, v)
#define STORE(v) CONVERT(T, v)
#else
#define LOAD(v) (v)
#define STORE(v) (v)
#endif
#define GET(p) LOAD(*(__global const TV *)(p))
#define PUT(p, v) *(__global TV *)(p) = STORE(v)
#define LARGER(a, b) ((a) < (b) ? (b) : (a))

/* Sum or maximum of the elements of a vector, pairwise. */
#if W == 16
#define HALVES(v, OP) CAT(C, 8) h8 = OP(v.lo, v.hi); CAT(C, 4) h4 = OP(h8.lo, h8.hi); \
    CAT(C, 2) h2 = OP(h4.lo, h4.hi); return OP(h2.x, h2.y);
#elif W == 8
#define HALVES(v, OP) CAT(C, 4) h4 = OP(v.lo, v.hi); CAT(C, 2) h2 = OP(h4.lo, h4.hi); \
    return OP(h2.x, h2.y);
#elif W == 4
#define HALVES(v, OP) CAT(C, 2) h2 = OP(v.lo, v.hi); return OP(h2.x, h2.y);
#elif W == 2
#define HALVES(v, OP) return OP(v.x, v.y);
#else
#define HALVES(v, OP) return v;
#endif
#define PLUS(a, b) ((a) + (b))
static inline C sum_all(const VEC(C) v) { HALVES(v, PLUS) }
static inline C max_all(const VEC(C) v) { HALVES(v, LARGER) }

/* The lanes of the last vector of a line that no whole vector before it has, others 0. */
#if W == 16
#define NUMBERS 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#elif W == 8
#define NUMBERS 0, 1, 2, 3, 4, 5, 6, 7
#elif W == 4
#define NUMBERS 0, 1, 2, 3
#elif W == 2
#define NUMBERS 0, 1
#else
#define NUMBERS 0
#endif
static inline VEC(C) new_lanes(const VEC(C) last, const int length)
{
    return (VEC(C))(NUMBERS) >= (VEC(C))(C)(W - length % W) ? last : (VEC(C))(C)0;
}

/* A line's last elements are a vector that overlaps the one before. It is read before anything is
 * written, since y may be x, and it is written last. */
static inline void long_row(__global const T *x, __global T *y, const int length)
{
    const int full = length - length % W;
    const VEC(C) tail = GET(x + length - W);
    VEC(C) tops = tail;
    for (int i = 0; i < full; i += W) {
        const VEC(C) v = GET(x + i);
        tops = LARGER(tops, v);
    }
    const VEC(C) top = (VEC(C))max_all(tops);
    const VEC(C) last = EXP_FALLING(VEC(C), tail - top);
    VEC(C) sums = new_lanes(last, length);
    for (int i = 0; i < full; i += W) {
        const VEC(C) v = GET(x + i);
        const VEC(C) e = EXP_FALLING(VEC(C), v - top);
        sums += e;
#if KIND == 0
        PUT(y + i, e);
#endif
    }
    const C sum = sum_all(sums);
#if KIND == 0
    const VEC(C) scale = (VEC(C))((C)1 / sum);
    for (int i = 0; i < full; i += W) {
        const VEC(C) e = GET(y + i);
        PUT(y + i, e * scale);
    }
    PUT(y + length - W, last * scale);
#else
    const VEC(C) shift = (VEC(C))log(sum);
    for (int i = 0; i < full; i += W) {
        const VEC(C) v = GET(x + i);
        PUT(y + i, v - top - shift);
    }
    PUT(y + length - W, tail - top - shift);
#endif
}

static inline void short_row(__global const T *x, __global T *y, const int length)
{
    C top = -INFINITY;
    for (int i = 0; i < length; i++) {
        const C v = (C)x[i];
        top = LARGER(top, v);
    }
    C sum = 0;
    for (int i = 0; i < length; i++) sum += EXP_FALLING(C, (C)x[i] - top);
#if KIND == 0
    const C scale = (C)1 / sum;
    for (int i = 0; i < length; i++) y[i] = (T)(EXP_FALLING(C, (C)x[i] - top) * scale);
#else
    const C shift = log(sum);
    for (int i = 0; i < length; i++) y[i] = (T)((C)x[i] - top - shift);
#endif
}

__kernel HINT void rows(__global const T *x, __global T *y, const int outer, const int length)
{
    const int o = get_global_id(0);
    if (o >= outer) return;
    x += o * length;
    y += o * length;
    if (length < W) short_row(x, y, length);
    else long_row(x, y, length);
}

/* Softmax or LogSoftmax of the lines that start at x, V being as many of them as LOADV takes. */
#define COLUMN(V, LOADV, SAVE)                                                  \
    V top = LOADV(x);                                                           \
    for (int i = 1; i < length; i++) {                                          \
        const V v = LOADV(x + i * inner);                                       \
        top = LARGER(top, v);                                                   \
    }                                                                           \
    V sum = (V)0;                                                               \
    for (int i = 0; i < length; i++) sum += EXP_FALLING(V, LOADV(x + i * inner) - top); \
    const V last = FOLD(V, sum);                                                \
    for (int i = 0; i < length; i++) {                                          \
        const V v = LOADV(x + i * inner) - top;                                 \
        SAVE(y + i * inner, OUTCOME(V, v, last));                               \
    }
#if KIND == 0
#define FOLD(V, s) ((V)1 / (s))
#define OUTCOME(V, v, last) (EXP_FALLING(V, v) * (last))
#else
#define FOLD(V, s) log(s)
#define OUTCOME(V, v, last) ((v) - (last))
#endif
#define GET1(p) ((C) * (p))
#define PUT1(p, v) *(p) = (T)(v)

__kernel HINT void columns(__global const T *x, __global T *y, const int inner, const int outer,
                           const int length)
{
    const int start = (int)get_global_id(0) * W;
    const int o = get_global_id(1);
    if (start >= inner || o >= outer) return;
    x += o * length * inner + start;
    y += o * length * inner + start;
    if (start + W <= inner) {
        COLUMN(VEC(C), GET, PUT)
        return;
    }
    for (int j = start; j < inner; j++, x++, y++) {
        COLUMN(C, GET1, PUT1)
    }
}

__kernel void lines(__global const T *x, __global T *y, const int count, const int inner,
                    const int length)
{
    const int o = get_global_id(0);
    if (o >= count) return;
    const int start = (o / inner) * length * inner + o % inner;
    x += start;
    y += start;
    C top = (C)x[0];
    int where = 0;
    for (int i = 1; i < length; i++) {
        const C v = (C)x[i * inner];
        if (v > top) {
            top = v;
            where = i;
        }
    }
#if KIND == 2
    for (int i = 0; i < length; i++) y[i * inner] = (T)(i == where);
#else
    C sum = 0;
    for (int i = 0; i < length; i++) sum += exp((C)x[i * inner] - top);
#if KIND == 0
    const C scale = (C)1 / sum;
    for (int i = 0; i < length; i++) y[i * inner] = (T)(exp((C)x[i * inner] - top) * scale);
#else
    const C shift = log(sum);
    for (int i = 0; i < length; i++) y[i * inner] = (T)((C)x[i * inner] - top - shift);
#endif
#endif
}

/* Gradients. KIND 0: dx = y * (dy - sum(dy * y)); 1: dx = dy - exp(y) * sum(dy). */
#if KIND == 0
#define TERM(d, v) ((d) * (v))
#define RESULT(V, d, v, s) ((v) * ((d) - (V)(s)))
#else
#define TERM(d, v) (d)
#define RESULT(V, d, v, s) ((d) - EXP(V, v) * (V)(s))
#endif

__kernel HINT void grad_rows(__global const T *dy, __global const T *y, __global T *dx,
                             const int outer, const int length)
{
    const int o = get_global_id(0);
    if (o >= outer) return;
    dy += o * length;
    y += o * length;
    dx += o * length;
    const int full = length - length % W;
    VEC(C) sums = (VEC(C))(C)0;
    C rest = 0;
    for (int i = 0; i < full; i += W) {
        const VEC(C) d = LOAD(*(__global const TV *)(dy + i));
        const VEC(C) v = LOAD(*(__global const TV *)(y + i));
        sums += TERM(d, v);
    }
    for (int i = full; i < length; i++) {
        const C d = (C)dy[i];
        const C v = (C)y[i];
        rest += TERM(d, v);
    }
    const C s = sum_all(sums) + rest;
    for (int i = 0; i < full; i += W) {
        const VEC(C) d = LOAD(*(__global const TV *)(dy + i));
        const VEC(C) v = LOAD(*(__global const TV *)(y + i));
        *(__global TV *)(dx + i) = STORE(RESULT(VEC(C), d, v, s));
    }
    for (int i = full; i < length; i++) {
        const C d = (C)dy[i];
        const C v = (C)y[i];
        dx[i] = (T)RESULT(C, d, v, s);
    }
}

#define GRAD_COLUMN(V, LOADV, SAVE)                              \
    V s = (V)0;                                                  \
    for (int i = 0; i < length; i++) {                           \
        const V d = LOADV(dy + i * inner);                       \
        const V v = LOADV(y + i * inner);                        \
        s += TERM(d, v);                                         \
    }                                                            \
    for (int i = 0; i < length; i++) {                           \
        const V d = LOADV(dy + i * inner);                       \
        const V v = LOADV(y + i * inner);                        \
        SAVE(dx + i * inner, RESULT(V, d, v, s));                \
    }

__kernel HINT void grad_columns(__global const T *dy, __global const T *y, __global T *dx,
                                const int inner, const int outer, const int length)
{
    const int start = (int)get_global_id(0) * W;
    const int o = get_global_id(1);
    if (start >= inner || o >= outer) return;
    dy += o * length * inner + start;
    y += o * length * inner + start;
    dx += o * length * inner + start;
    if (start + W <= inner) {
        GRAD_COLUMN(VEC(C), GET, PUT)
        return;
    }
    for (int j = start; j < inner; j++, dy++, y++, dx++) {
        GRAD_COLUMN(C, GET1, PUT1)
    }
}

__kernel void grad_lines(__global const T *dy, __global const T *y, __global T *dx,
                         const int count, const int inner, const int length)
{
    const int o = get_global_id(0);
    if (o >= count) return;
    const int start = (o / inner) * length * inner + o % inner;
    C s = 0;
    for (int i = 0; i < length; i++) {
        const C d = (C)dy[start + i * inner];
        const C v = (C)y[start + i * inner];
        s += TERM(d, v);
    }
    for (int i = 0; i < length; i++) {
        const C d = (C)dy[start + i * inner];
        const C v = (C)y[start + i * inner];
        dx[start + i * inner] = (T)RESULT(C, d, v, s);
    }
}
