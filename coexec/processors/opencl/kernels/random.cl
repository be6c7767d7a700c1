/* Random masks by Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011), bit for bit as in coexec/ops/philox.py.
 * Layout: flat. Geometry: one work-item per block of 4 elements; element i is word i % 4 of block
 * i / 4 of the stream. An element is kept where its word is not below the threshold. */

#ifndef T
#define T float /* element type of dropout's x and y */
#endif
#ifndef C
#define C float /* type to compute in: float for half, T else */
#endif
/* MASK: defined where dropout also writes its mask. */

#define ROUND                                                                  \
    {                                                                          \
        const ulong first = (ulong)c.x * 0xD2511F53u;                          \
        const ulong second = (ulong)c.z * 0xCD9E8D57u;                         \
        c = (uint4)((uint)(second >> 32) ^ c.y ^ k0, (uint)second,             \
                    (uint)(first >> 32) ^ c.w ^ k1, (uint)first);              \
        k0 += 0x9E3779B9u;                                                     \
        k1 += 0xBB67AE85u;                                                     \
    }

inline uint4 philox(const uint block, const long counter, uint k0, uint k1)
{
    uint4 c = (uint4)(block, 0, (uint)counter, (uint)((ulong)counter >> 32));
    ROUND ROUND ROUND ROUND ROUND ROUND ROUND ROUND ROUND ROUND
    return c;
}

/* threshold is 2^32 - 1 or less, except that `nothing` says that no word reaches it. */
inline uchar4 kept(const uint4 words, const uint threshold, const int nothing)
{
    return (uchar4)(words.x >= threshold, words.y >= threshold, words.z >= threshold,
                    words.w >= threshold) * (uchar)(nothing ? 0 : 1);
}

__kernel void mask(__global const long *counter, __global uchar *y, const int size,
                   const uint k0, const uint k1, const uint threshold, const int nothing)
{
    const int start = (int)get_global_id(0) * 4;
    if (start >= size) return;
    const uchar4 keep = kept(philox(get_global_id(0), counter[0], k0, k1), threshold, nothing);
    y[start] = keep.x;
    if (start + 1 < size) y[start + 1] = keep.y;
    if (start + 2 < size) y[start + 2] = keep.z;
    if (start + 3 < size) y[start + 3] = keep.w;
}

#ifdef MASK
#define SET_MASK(i, keep) m[i] = keep;
#else
#define SET_MASK(i, keep)
#endif
#define ONE(i, keep)                                 \
    if (i < size) {                                  \
        y[i] = (T)(keep ? (C)x[i] * scale : (C)0);   \
        SET_MASK(i, keep)                            \
    }

__kernel void dropout(__global const T *x, __global T *y, __global uchar *m, const int size,
                      const uint k0, const uint k1, const uint threshold, const C scale)
{
    const int start = (int)get_global_id(0) * 4;
    if (start >= size) return;
    const uchar4 keep = kept(philox(get_global_id(0), 0, k0, k1), threshold, 0);
    ONE(start, keep.x)
    ONE(start + 1, keep.y)
    ONE(start + 2, keep.z)
    ONE(start + 3, keep.w)
}

/* Outside training: y = x, all kept. One work-item per element. */
__kernel void identity(__global const T *x, __global T *y, __global uchar *m, const int size)
{
    const int i = get_global_id(0);
    if (i >= size) return;
    y[i] = x[i];
    SET_MASK(i, 1)
}
