/* Random masks and numbers by Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011), bit for bit as in coexec/ops/philox.py.
 * Layout: flat, in groups of 64 elements: 16 blocks of the generator give their first words, then
 * their second, third and fourth ones. Geometry: one work-item per group, with the 16 blocks in
 * the lanes of a vector. An element is kept where its word is not below the threshold. */

#ifndef T
#define T float /* element type of dropout's x and y */
#endif
#ifndef C
#define C float /* type to compute in: float for half, T else */
#endif
#ifndef NORMAL
#define NORMAL 0 /* of numbers, 1: normal, 0: uniform in [0, 1) */
#endif
/* MASK: defined where dropout also writes its mask. */

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define C16 JOIN(C, 16)
#define CONVERT16 JOIN(convert_, C16)
#define HINT __attribute__((vec_type_hint(uint16)))
typedef uchar16 uchar16u __attribute__((aligned(1)));

#define ROUND                                                                  \
    {                                                                          \
        const uint16 high0 = mul_hi(c0, (uint16)0xD2511F53u);                  \
        const uint16 high2 = mul_hi(c2, (uint16)0xCD9E8D57u);                  \
        const uint16 low0 = c0 * (uint16)0xD2511F53u;                          \
        const uint16 low2 = c2 * (uint16)0xCD9E8D57u;                          \
        c0 = high2 ^ c1 ^ (uint16)k0;                                          \
        c1 = low2;                                                             \
        c2 = high0 ^ c3 ^ (uint16)k1;                                          \
        c3 = low0;                                                             \
        k0 += 0x9E3779B9u;                                                     \
        k1 += 0xBB67AE85u;                                                     \
    }

/* Defines c0 .. c3, the four words of blocks group * 16 ... group * 16 + 15. */
#define PHILOX(group, counter)                                                            \
    uint16 c0 = (uint16)((uint)(group) * 16) +                                            \
                (uint16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);           \
    uint16 c1 = (uint16)0;                                                                \
    uint16 c2 = (uint16)(uint)(counter);                                                  \
    uint16 c3 = (uint16)(uint)((ulong)(counter) >> 32);                                   \
    ROUND ROUND ROUND ROUND ROUND ROUND ROUND ROUND ROUND ROUND

/* 1 where kept; no word reaches 2^32, the threshold where `nothing` is set. */
inline uchar16 kept(const uint16 words, const uint threshold, const int nothing)
{
    const uchar16 keep = convert_uchar16(-(words >= (uint16)threshold));
    return nothing ? (uchar16)0 : keep;
}

inline void store(__global uchar *y, const uchar16 keep, const int start, const int size)
{
    if (start + 16 <= size) {
        *(__global uchar16u *)(y + start) = keep;
        return;
    }
    uchar lanes[16];
    *(uchar16u *)lanes = keep;
    for (int i = start; i < size; i++) y[i] = lanes[i - start];
}

__kernel HINT void mask(__global const long *counter, __global uchar *y, const int size,
                        uint k0, uint k1, const uint threshold, const int nothing)
{
    const int start = (int)get_global_id(0) * 64;
    if (start >= size) return;
    const long stream = counter[0];
    PHILOX(get_global_id(0), stream)
    store(y, kept(c0, threshold, nothing), start, size);
    store(y, kept(c1, threshold, nothing), start + 16, size);
    store(y, kept(c2, threshold, nothing), start + 32, size);
    store(y, kept(c3, threshold, nothing), start + 48, size);
}

inline void apply(__global const T *x, __global T *y, __global uchar *m, const uchar16 keep,
                  const C scale, const int start, const int size)
{
    uchar lanes[16];
    *(uchar16u *)lanes = keep;
    const int end = min(size, start + 16);
    for (int i = start; i < end; i++) y[i] = (T)(lanes[i - start] ? (C)x[i] * scale : (C)0);
#ifdef MASK
    store(m, keep, start, size);
#endif
}

__kernel HINT void dropout(__global const T *x, __global T *y, __global uchar *m,
                           const int size, uint k0, uint k1, const uint threshold, const C scale)
{
    const int start = (int)get_global_id(0) * 64;
    if (start >= size) return;
    PHILOX(get_global_id(0), 0)
    apply(x, y, m, kept(c0, threshold, 0), scale, start, size);
    apply(x, y, m, kept(c1, threshold, 0), scale, start + 16, size);
    apply(x, y, m, kept(c2, threshold, 0), scale, start + 32, size);
    apply(x, y, m, kept(c3, threshold, 0), scale, start + 48, size);
}

/* 16 results of part 0 to 3 of a group. */
#define WRITE(values, part)                                             \
    {                                                                   \
        union {                                                         \
            C16 all;                                                    \
            C each[16];                                                 \
        } found;                                                        \
        found.all = offset + scale * (values);                          \
        const int first = start + 16 * (part), end = min(size, first + 16); \
        for (int i = first; i < end; i++) y[i] = (T)found.each[i - first];  \
    }

/* The upper 24 bits, which a float holds exactly. */
#define SHARE(words) (CONVERT16((words) >> 8) * (C)0x1p-24f)

/* Normal numbers by Box and Muller: a word gives the radius, another one the angle. */
#define PAIR(first, second, part)                                                           \
    {                                                                                       \
        const C16 radius = sqrt((C)-2 * log(SHARE(first) + (C)0x1p-24f));                   \
        const C16 angle = SHARE(second) * (C)6.283185307179586;                             \
        WRITE(radius * cos(angle), part)                                                    \
        WRITE(radius * sin(angle), part + 1)                                                \
    }

__kernel HINT void numbers(__global const long *counter, __global T *y, const int size, uint k0,
                           uint k1, const C offset, const C scale)
{
    const int start = (int)get_global_id(0) * 64;
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
