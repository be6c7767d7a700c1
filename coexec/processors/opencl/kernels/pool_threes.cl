/* Pooling of 3 x 3 windows at stride 2, straight from rows of x: maxima, averages, gradients.
 * Layout: x (planes, i1, i2), y (planes, o1, o2); window o reads x[2 o - p], x[2 o - p + 1] and
 * x[2 o - p + 2], p being 0 or 1; only the last window may reach past the end, by one element
 * (2 o - p = i on that axis). What lies behind the last window has the gradient 0.
 *
 * A row of x is folded along columns once, V windows at a time, and serves two rows of windows: as
 * the last row of one and the first of the next. What the next needs of it is held in a line of
 * scratch. The gradient goes the other way: a row of x receives what both rows of windows gave to
 * it, then deals it to its columns. o2 >= V; the last vector of a row overlaps its neighbour.
 * Geometry: one work-item per share of the planes (divided evenly, in order), groups of one. */

#ifndef GRAD
#define GRAD 0 /* 1: the gradient of x */
#endif
#ifndef MAXIMUM
#define MAXIMUM 1 /* 1: maxima, 0: averages */
#endif
#ifndef P2
#define P2 1 /* padding in front of columns: 0 or 1 */
#endif
#ifndef RIGHT
#define RIGHT 0 /* 1: the last window of a row reaches past its end */
#endif
#ifndef I
#define I int /* integer as wide as ACC */
#endif

#include "alone.cl"
#include "column_pairs.cl"

typedef fetched vec;
typedef JOIN(I, V) places __attribute__((aligned(sizeof(I))));

/* `UP`: the lanes one place later behind `first`. `DOWN`: one place earlier, before `next`. */
#if V == 2
#define UP(first, v) (vec)(first, (v).s0)
#define DOWN(v, next) (vec)((v).s1, next)
#define FINAL s1
#elif V == 4
#define UP(first, v) (vec)(first, (v).s01, (v).s2)
#define DOWN(v, next) (vec)((v).s12, (v).s3, next)
#define FINAL s3
#elif V == 8
#define UP(first, v) (vec)(first, (v).s0123, (v).s45, (v).s6)
#define DOWN(v, next) (vec)((v).s1234, (v).s56, (v).s7, next)
#define FINAL s7
#else
#define UP(first, v) (vec)(first, (v).s01234567, (v).s89ab, (v).scd, (v).se)
#define DOWN(v, next) (vec)((v).s12345678, (v).s9abc, (v).sde, (v).sf, next)
#define FINAL sf
#endif

/* Windows of a vector stand in its lanes as sorting columns leaves them. EVEN, ODD and their
 * inverse, PAIRED, move nothing between the halves of vectors of 8, which costs more than moves
 * within: the order there is 0 1 4 5 2 3 6 7. TURNED goes to it and back. BEFORE and AFTER have in
 * each lane what the window before or after it has; what the first or last lacks is given. */
#if V == 8
#define EVEN(a, b) (vec)((a).s02, (b).s02, (a).s46, (b).s46)
#define ODD(a, b) (vec)((a).s13, (b).s13, (a).s57, (b).s57)
#define PAIRED(even_, odd_, a, b)                                                                  \
    const vec a = (vec)(even_.s0, odd_.s0, even_.s1, odd_.s1, even_.s4, odd_.s4, even_.s5,         \
                        odd_.s5);                                                                  \
    const vec b = (vec)(even_.s2, odd_.s2, even_.s3, odd_.s3, even_.s6, odd_.s6, even_.s7,         \
                        odd_.s7);
#define TURNED(v) (vec)((v).s01, (v).s45, (v).s23, (v).s67)
#define BEFORE(first, v)                                                                           \
    (vec)(first, (v).s0, (v).s5, (v).s2, (v).s1, (v).s4, (v).s3, (v).s6)
#define AFTER(v, next)                                                                             \
    (vec)((v).s1, (v).s4, (v).s3, (v).s6, (v).s5, (v).s2, (v).s7, next)
#else
#define EVEN(a, b) (vec)((a).even, (b).even)
#define ODD(a, b) (vec)((a).odd, (b).odd)
#define PAIRED(even_, odd_, a, b)                                                                  \
    vec a, b;                                                                                      \
    a.even = even_.lo;                                                                             \
    a.odd = odd_.lo;                                                                               \
    b.even = even_.hi;                                                                             \
    b.odd = odd_.hi;
#define TURNED(v) (v)
#define BEFORE(first, v) UP(first, v)
#define AFTER(v, next) DOWN(v, next)
#endif

/* What is larger than nothing, and adds nothing. */
#define OUTSIDE (MAXIMUM ? (ACC)-INFINITY : (ACC)0)

/* Columns of even and odd place from p on, where windows col .. col + V stand. */
#if P2 && RIGHT
#define BEHIND(p) (col == o2 - V ? DOWN(LOAD((p) + V - 1), OUTSIDE) : LOAD((p) + V))
#define STORE_BEHIND(p, a, b)                                                                      \
    if (col == o2 - V) STORE((p) + V - 1, UP(a.FINAL, b));                                         \
    else STORE((p) + V, b);
#else
#define BEHIND(p) LOAD((p) + V)
#define STORE_BEHIND(p, a, b) STORE((p) + V, b);
#endif

/* The three columns of V windows of a row. The outer one of even or odd place is loaded again, one
 * place beside: moving lanes that were just sorted costs more. */
#define COLUMNS(row, v0, v1, v2)                                                                   \
    vec v0, v1, v2;                                                                                \
    {                                                                                              \
        __global const T *p = (row) + 2 * col;                                                     \
        const vec a = LOAD(p), b = BEHIND(p);                                                      \
        SORT_COLUMNS(v0, v1, v2)                                                                   \
    }
#if P2
#define SORT_COLUMNS(v0, v1, v2)                                                                   \
    const vec c = col ? LOAD(p - 1) : UP(OUTSIDE, LOAD(p)), d = LOAD(p + V - 1);                   \
    v0 = EVEN(c, d);                                                                               \
    v1 = EVEN(a, b);                                                                               \
    v2 = ODD(a, b);
#else
#define SORT_COLUMNS(v0, v1, v2)                                                                   \
    const vec c = LOAD(p + 1);                                                                     \
    const vec d = RIGHT && col == o2 - V ? DOWN(LOAD(p + V), OUTSIDE) : LOAD(p + V + 1);           \
    v0 = EVEN(a, b);                                                                               \
    v1 = ODD(a, b);                                                                                \
    v2 = ODD(c, d);
#endif

/* c0, c1: elements of the first and the last window of an axis that an average divides by, those
 * of the others are 3. slot: elements of scratch of a work-item. */
#define SIZES                                                                                      \
    const int planes, const int slot, const int i1, const int i2, const int o1, const int o2,      \
        const int p1, const int first1, const int last1, const int first2, const int last2
#define PLANES                                                                                     \
    const int item = get_global_id(0), count = get_global_size(0);                                 \
    const int end = (int)((long)planes * (item + 1) / count);                                      \
    for (int plane = (int)((long)planes * item / count); plane < end; ++plane)
#define SCALE(o, last, first_count, last_count)                                                    \
    ((ACC)1 / (ACC)((o) == 0 ? first_count : (o) == last ? last_count : 3))
/* Lines hold whole vectors one behind the other: a load of parts of two stores waits for both. */
#define HELD const int held = (o2 + V - 1) / V * V;
#define FILL(line, value)                                                                          \
    for (int i = 0; i < held; ++i) (line)[i] = value;
#define SWAP(a, b)                                                                                 \
    {                                                                                              \
        __global ACC *c = a;                                                                       \
        a = b;                                                                                     \
        b = c;                                                                                     \
    }
#define VEC(p) (*(__global vec *)(p))
#define PLACES(p) (*(__global places *)(p))

/* A later element is the maximum if it is larger or no number. */
#define BETTER(v, best) (((v) > (best)) | ((v) != (v)))

#if !GRAD

#if MAXIMUM
#define FOLD(v0, v1, v2)                                                                           \
    vec fold = v1 > v0 ? v1 : v0;                                                                  \
    fold = v2 > fold ? v2 : fold;                                                                  \
    fold = (v0 != v0) | (v1 != v1) | (v2 != v2) ? (vec)NAN : fold; /* A NaN is never lost. */
#else
#define FOLD(v0, v1, v2) const vec fold = v0 + v1 + v2;
#endif
#define FOLD_ROW(row, folded)                                                                      \
    {                                                                                              \
        COLUMNS(row, v0, v1, v2)                                                                   \
        FOLD(v0, v1, v2)                                                                           \
        folded = fold;                                                                             \
    }
#define NEXT_COLUMN                                                                                \
    if (col == o2 - V) break;                                                                      \
    at += V;                                                                                       \
    col = col + V < o2 - V ? col + V : o2 - V;

__kernel ALONE void pool_threes(__global const T *restrict x, __global T *restrict y,
                                __global ACC *restrict slots, SIZES)
{
    HELD
    __global ACC *above = slots + get_global_id(0) * slot, *below = above + held;
    __global ACC *scales = below + held;
#if !MAXIMUM
    for (int o = 0; o < o2; ++o) scales[o] = SCALE(o, o2 - 1, first2, last2);
#endif
    PLANES {
        __global const T *row = x + plane * i1 * i2;
        __global T *to = y + plane * o1 * o2;
        if (p1) FILL(above, OUTSIDE)
        else {
            for (int col = 0, at = 0;;) {
                FOLD_ROW(row, VEC(above + at))
                NEXT_COLUMN
            }
            row += i2;
        }
        for (int o = 0; o < o1; ++o, row += 2 * i2, to += o2) {
            const int whole = 2 * o - p1 + 2 < i1;
#if !MAXIMUM
            const ACC scale = SCALE(o, o1 - 1, first1, last1);
#endif
            for (int col = 0, at = 0;;) {
                const vec h0 = VEC(above + at);
                vec h1, h2 = (vec)OUTSIDE;
                FOLD_ROW(row, h1)
                if (whole) FOLD_ROW(row + i2, h2)
                FOLD(h0, h1, h2)
                VEC(below + at) = h2;
#if MAXIMUM
                STORE(to + col, TURNED(fold));
#else
                STORE(to + col, TURNED(fold) * (scale * VEC(scales + col)));
#endif
                NEXT_COLUMN
            }
            SWAP(above, below)
        }
    }
}

#else

/* Columns that need their right neighbour's flow go from right to left. */
#if P2
#define FIRST_COLUMN (o2 - V)
#define NEXT_COLUMN                                                                                \
    if (col == 0) break;                                                                           \
    at += V;                                                                                       \
    col = col > V ? col - V : 0;
#else
#define FIRST_COLUMN 0
#define NEXT_COLUMN                                                                                \
    if (col == o2 - V) break;                                                                      \
    at += V;                                                                                       \
    col = col + V < o2 - V ? col + V : o2 - V;
#endif

#if MAXIMUM
#define SOURCE __global const T *restrict x,
#define AS_PLACES(v) JOIN(as_, JOIN(I, V))(v)
#define AS_VALUES(v) JOIN(as_, JOIN(ACC, V))(v)
#define PASS(mask, v) AS_VALUES((mask) & AS_PLACES(v))
#define REFUSE(mask, v) AS_VALUES(~(mask) & AS_PLACES(v))
/* Maxima h of three and the masks m1 and m2: the second is better than the first, the third better
 * than both. */
#define COMPARE(v0, v1, v2, h, m1, m2)                                                             \
    m1 = BETTER(v1, v0);                                                                           \
    h = m1 ? v1 : v0;                                                                              \
    m2 = BETTER(v2, h);                                                                            \
    h = m2 ? v2 : h;
#define COMPARE_ROW(row, h, m1, m2)                                                                \
    {                                                                                              \
        COLUMNS(row, v0, v1, v2)                                                                   \
        COMPARE(v0, v1, v2, h, m1, m2)                                                             \
    }
/* What flows through the masks to each of three. */
#define DIVIDE(flow, m1, m2, d0, d1, d2)                                                           \
    const vec d2 = PASS(m2, flow), rest_##d2 = REFUSE(m2, flow);                                   \
    vec d1 = PASS(m1, rest_##d2), d0 = REFUSE(m1, rest_##d2);
#define LINES 4 /* held of a row: flow, maxima, masks */
#else
#define SOURCE
#define DIVIDE(flow, m1, m2, d0, d1, d2) vec d0 = flow, d1 = flow, d2 = flow;
#define LINES 1
#endif

/* Deals the flow into a row at `to` to its columns; `line` holds what a neighbour needs of it. What
 * the first window gave to padding, since nothing was larger, belongs to its next element. */
#if P2
#define DEAL(flow, m1, m2, to, line)                                                               \
    {                                                                                              \
        DIVIDE(flow, m1, m2, d0, d1, d2)                                                           \
        VEC((line) + col) = TURNED(d0);                                                            \
        if (MAXIMUM && col == 0) d1.s0 += d0.s0;                                                   \
        STORE_COLUMNS(to, d1, d2 + AFTER(d0, (line)[col + V]))                                     \
    }
#else
#define DEAL(flow, m1, m2, to, line)                                                               \
    {                                                                                              \
        DIVIDE(flow, m1, m2, d0, d1, d2)                                                           \
        VEC((line) + col + 1) = TURNED(d2);                                                        \
        STORE_COLUMNS(to, d0 + BEFORE((line)[col], d2), d1)                                        \
        if (!RIGHT && col == o2 - V) (to)[2 * o2] = (T)d2.FINAL;                                   \
    }
#endif
#define STORE_COLUMNS(to, even_, odd_)                                                             \
    const vec left_ = even_, right_ = odd_;                                                        \
    PAIRED(left_, right_, a, b)                                                                    \
    STORE((to) + 2 * col, a);                                                                      \
    STORE_BEHIND((to) + 2 * col, a, b)
/* Columns that no window reads. */
#define CLEAR_REST(to)                                                                             \
    for (int i = 2 * o2 + !P2; i < i2; ++i) (to)[i] = 0;

__kernel ALONE void pool_threes_grad(SOURCE __global const T *restrict dy,
                                     __global T *restrict dx, __global ACC *restrict slots, SIZES)
{
    HELD
    __global ACC *above = slots + get_global_id(0) * slot, *below = above + LINES * held;
    __global ACC *line0 = below + LINES * held, *line1 = line0 + o2 + 1, *scales = line1 + o2 + 1;
    line0[P2 ? o2 : 0] = line1[P2 ? o2 : 0] = 0;
#if !MAXIMUM
    for (int o = 0; o < o2; ++o) scales[o] = SCALE(o, o2 - 1, first2, last2);
#endif
    PLANES {
        __global T *to = dx + plane * i1 * i2 - p1 * i2; /* the first row may be padding */
        __global const T *from = dy + plane * o1 * o2;
        FILL(above, 0)
#if MAXIMUM
        __global const T *row = x + plane * i1 * i2;
        if (p1) FILL(above + held, OUTSIDE)
        else {
            for (int col = FIRST_COLUMN, at = 0;;) {
                places m1, m2;
                COMPARE_ROW(row, VEC(above + held + at), m1, m2)
                PLACES(above + 2 * held + at) = m1;
                PLACES(above + 3 * held + at) = m2;
                NEXT_COLUMN
            }
            row += i2;
        }
#endif
        for (int o = 0; o < o1; ++o) {
            const int whole = 2 * o - p1 + 2 < i1, inside = o || !p1;
#if !MAXIMUM
            const ACC scale = SCALE(o, o1 - 1, first1, last1);
#endif
            for (int col = FIRST_COLUMN, at = 0;;) {
                const vec before = VEC(above + at);
#if MAXIMUM
                const vec found = LOAD(from + col), flow = TURNED(found);
                const vec h0 = VEC(above + held + at);
                vec h, h1, h2 = (vec)OUTSIDE;
                places m1, m2, m11, m12, m21 = 0, m22 = 0;
                COMPARE_ROW(row, h1, m11, m12)
                if (whole) COMPARE_ROW(row + i2, h2, m21, m22)
                COMPARE(h0, h1, h2, h, m1, m2)
                DIVIDE(flow, m1, m2, f0, f1, f2)
                if (!inside) f1 += f0;
                const places m01 = PLACES(above + 2 * held + at);
                const places m02 = PLACES(above + 3 * held + at);
                VEC(below + held + at) = h2;
                PLACES(below + 2 * held + at) = m21;
                PLACES(below + 3 * held + at) = m22;
#else
                const vec found = LOAD(from + col) * (scale * VEC(scales + col));
                const vec f1 = TURNED(found), f0 = f1, f2 = f1;
#endif
                VEC(below + at) = f2;
                if (inside) DEAL(before + f0, m01, m02, to, line0)
                DEAL(f1, m11, m12, to + i2, line1)
                NEXT_COLUMN
            }
            if (inside) CLEAR_REST(to)
            CLEAR_REST(to + i2)
            SWAP(above, below)
            to += 2 * i2;
            from += o2;
#if MAXIMUM
            row += 2 * i2;
#endif
        }
        if (2 * o1 - p1 < i1) {
            for (int col = FIRST_COLUMN, at = 0;;) {
#if MAXIMUM
                const places m01 = PLACES(above + 2 * held + at);
                const places m02 = PLACES(above + 3 * held + at);
#endif
                DEAL(VEC(above + at), m01, m02, to, line0)
                NEXT_COLUMN
            }
            CLEAR_REST(to)
            for (int i = i2; i < (i1 - 2 * o1 + p1) * i2; ++i) to[i] = 0;
        }
    }
}
#endif
