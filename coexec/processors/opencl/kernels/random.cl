/* Random masks and numbers by Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011), bit for bit as in coexec/ops/philox.py.
 * Layout: flat, in groups of 64 elements: 16 blocks of the generator give their first words, then
 * their second, third and fourth ones. An element is kept where its word is not below the
 * threshold. Geometry: 16 / LANES work-items per group, each with LANES blocks in the lanes of a
 * vector. On GPUs four items share a group: each writes vectors of 4 beside those of neighbours. */

#ifndef T
#define T float /* element type of dropout's x and y */
#endif
#ifndef C
#define C float /* type to compute in: float for half, T else */
#endif
#ifndef NORMAL
#define NORMAL 0 /* of numbers, 1: normal, 0: uniform in [0, 1) */
#endif
#ifndef LANES
#define LANES 16 /* blocks of a work-item: 16, or 4 */
#endif
/* MASK: defined where dropout also writes its mask. */

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define VEC(type) JOIN(type, LANES)
#define TO(type, v) JOIN(convert_, VEC(type))(v)
#define WORDS VEC(uint)
#define HINT __attribute__((vec_type_hint(WORDS)))
/* Neighbouring elements of a tensor; those of four items begin at their multiples. */
#if LANES == 16
#define NUMBERS (WORDS)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#define ANYWHERE __attribute__((aligned(1)))
#else
#define NUMBERS (WORDS)(0, 1, 2, 3)
#define ANYWHERE
#endif
typedef VEC(uchar) flags ANYWHERE;

#define ROUND                                                                  \
    {                                                                          \
        const WORDS high0 = mul_hi(c0, (WORDS)0xD2511F53u);                    \
        const WORDS high2 = mul_hi(c2, (WORDS)0xCD9E8D57u);                    \
        const WORDS low0 = c0 * (WORDS)0xD2511F53u;                            \
        const WORDS low2 = c2 * (WORDS)0xCD9E8D57u;                            \
        c0 = high2 ^ c1 ^ (WORDS)k0;                                           \
        c1 = low2;                                                             \
        c2 = high0 ^ c3 ^ (WORDS)k1;                                           \
        c3 = low0;                                                             \
        k0 += 0x9E3779B9u;                                                     \
        k1 += 0xBB67AE85u;                                                     \
    }

/* Defines c0 .. c3, the four words of blocks item * LANES .. item * LANES + LANES - 1. */
#define PHILOX(item, counter)                                       \
    WORDS c0 = (WORDS)((uint)(item) * LANES) + NUMBERS;             \
    WORDS c1 = (WORDS)0;                                            \
    WORDS c2 = (WORDS)(uint)(counter);                              \
    WORDS c3 = (WORDS)(uint)((ulong)(counter) >> 32);               \
    ROUND ROUND ROUND ROUND ROUND ROUND ROUND ROUND ROUND ROUND

/* The first of an item's elements; the others are 16, 32 and 48 behind. */
#define FIRST_OF(item) ((item) / (16 / LANES) * 64 + (item) % (16 / LANES) * LANES)

/* 1 where kept; no word reaches 2^32, the threshold where `nothing` is set. */
inline VEC(uchar) kept(const WORDS words, const uint threshold, const int nothing)
{
    const VEC(uchar) keep = TO(uchar, -(words >= (WORDS)threshold));
    return nothing ? (VEC(uchar))0 : keep;
}

inline void store(__global uchar *y, const VEC(uchar) keep, const int start, const int size)
{
    if (start + LANES <= size) {
        *(__global flags *)(y + start) = keep;
        return;
    }
    union {
        VEC(uchar) all;
        uchar lanes[LANES];
    } found;
    found.all = keep;
    for (int i = start; i < size; i++) y[i] = found.lanes[i - start];
}

__kernel HINT void mask(__global const long *counter, __global uchar *y, const int size,
                        uint k0, uint k1, const uint threshold, const int nothing)
{
    const int start = FIRST_OF((int)get_global_id(0));
    if (start >= size) return;
    const long stream = counter[0];
    PHILOX(get_global_id(0), stream)
    store(y, kept(c0, threshold, nothing), start, size);
    store(y, kept(c1, threshold, nothing), start + 16, size);
    store(y, kept(c2, threshold, nothing), start + 32, size);
    store(y, kept(c3, threshold, nothing), start + 48, size);
}

inline void apply(__global const T *x, __global T *y, __global uchar *m, const VEC(uchar) keep,
                  const C scale, const int start, const int size)
{
    union {
        VEC(uchar) all;
        uchar lanes[LANES];
    } found;
    found.all = keep;
    const int end = min(size, start + LANES);
#if LANES < 16
    if (end == start + LANES) {
        union {
            VEC(C) all;
            C each[LANES];
        } left;
        left.all = TO(C, *(__global const VEC(T) *)(x + start)) * scale;
        for (int i = 0; i < LANES; i++) left.each[i] = found.lanes[i] ? left.each[i] : (C)0;
        *(__global VEC(T) *)(y + start) = TO(T, left.all);
    } else
#endif
        for (int i = start; i < end; i++)
            y[i] = (T)(found.lanes[i - start] ? (C)x[i] * scale : (C)0);
#ifdef MASK
    store(m, keep, start, size);
#endif
}

__kernel HINT void dropout(__global const T *x, __global T *y, __global uchar *m,
                           const int size, uint k0, uint k1, const uint threshold, const C scale)
{
    const int start = FIRST_OF((int)get_global_id(0));
    if (start >= size) return;
    PHILOX(get_global_id(0), 0)
    apply(x, y, m, kept(c0, threshold, 0), scale, start, size);
    apply(x, y, m, kept(c1, threshold, 0), scale, start + 16, size);
    apply(x, y, m, kept(c2, threshold, 0), scale, start + 32, size);
    apply(x, y, m, kept(c3, threshold, 0), scale, start + 48, size);
}

/* LANES results of part 0 to 3 of a group. */
inline void give(__global T *y, const VEC(C) values, const int first, const int size)
{
    union {
        VEC(C) all;
        C each[LANES];
    } found;
    found.all = values;
#if LANES < 16
    if (first + LANES <= size) {
        *(__global VEC(T) *)(y + first) = TO(T, values);
        return;
    }
#endif
    const int end = min(size, first + LANES);
    for (int i = first; i < end; i++) y[i] = (T)found.each[i - first];
}
#define WRITE(values, part) give(y, offset + scale * (values), start + 16 * (part), size);

/* The upper 24 bits, which a float holds exactly. */
#define SHARE(words) (TO(C, (words) >> 8) * (C)0x1p-24f)

/* Normal numbers by Box and Muller: a word gives the radius, another one the angle. */
#define PAIR(first, second, part)                                                           \
    {                                                                                       \
        const VEC(C) radius = sqrt((C)-2 * log(SHARE(first) + (C)0x1p-24f));                   \
        const VEC(C) angle = SHARE(second) * (C)6.283185307179586;                             \
        WRITE(radius * cos(angle), part)                                                    \
        WRITE(radius * sin(angle), part + 1)                                                \
    }

__kernel HINT void numbers(__global const long *counter, __global T *y, const int size, uint k0,
                           uint k1, const C offset, const C scale)
{
    const int start = FIRST_OF((int)get_global_id(0));
    if (start >= size) return;
    const long stream = counter[0];
    PHILOX(get_global_id(0), stream)
    if (NORMAL) {
        PAIR(c0, c1, 0)
        PAIR(c2, c3, 2)
    } else {
        WRITE(SHARE(c0), 0)
        WRITE(SHARE(c1), 1)
        WRITE(SHARE(c2), 2)
        WRITE(SHARE(c3), 3)
    }
}

/* Outside training: y = x, all kept. One work-item per element. */
__kernel void identity(__global const T *x, __global T *y, __global uchar *m, const int size)
{
    const int i = get_global_id(0);
    if (i >= size) return;
    y[i] = x[i];
#ifdef MASK
    m[i] = 1;
#endif
}
