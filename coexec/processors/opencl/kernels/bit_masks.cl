/* One bit for each element: pack where x passes a test, select by the bits, unpack to booleans.
 * An element passes if low < x < high; a bound that `open` names (1: low, 2: high) is none.
 * Layout: tensors are flat, 256 elements to a block of 8 words; bit i of word w is that of element
 * 8 i + w of the block. The last block may be short: its missing bits are 0.
 *
 * pack_naive, unpack_naive, select_naive: one word, or one element, per work-item.
 * pack, select: vectors of 8 words; one work-item per share of all blocks (divided evenly, in
 *               order), groups of one. ACC is float. */

#ifndef T
#define T float /* element type of x; uchar holds booleans */
#endif
#ifndef ACC
#define ACC float /* type to compare in */
#endif
#ifndef LANES
#define LANES 1 /* 0: the kernels that go element by element */
#endif

#define WIDTH 8
#define PLACES 32
#define BLOCK (WIDTH * PLACES)

static inline __attribute__((always_inline)) uint word_of(__global const T *x, const int first,
                                                          const int size, const ACC low,
                                                          const ACC high, const int open)
{
    uint word = 0;
    for (int place = 0; place < PLACES; ++place) {
        const int n = first + place * WIDTH;
        if (n >= size) break;
        const ACC v = x[n];
        if ((open & 1 || v > low) && (open & 2 || v < high)) word |= 1u << place;
    }
    return word;
}

#define BIT(words, n) ((words)[(n) / BLOCK * WIDTH + (n) % WIDTH] >> (n) % BLOCK / WIDTH & 1u)

#if LANES == 0

__kernel void pack_naive(__global const T *x, __global uint *words, const int size,
                         const int count, const ACC low, const ACC high, const int open)
{
    const int w = get_global_id(0);
    if (w < count) words[w] = word_of(x, w / WIDTH * BLOCK + w % WIDTH, size, low, high, open);
}

__kernel void unpack_naive(__global const uint *words, __global uchar *y, const int size)
{
    const int n = get_global_id(0);
    if (n < size) y[n] = BIT(words, n);
}

__kernel void select_naive(__global const uint *words, __global const T *x, __global T *y,
                           const int size)
{
    const int n = get_global_id(0);
    if (n < size) y[n] = BIT(words, n) ? x[n] : (T)0;
}

#else

#define V WIDTH
#include "alone.cl"

typedef JOIN(uint, V) bits_of_lanes;
typedef bits_of_lanes packed __attribute__((aligned(4))); /* anywhere in words */
#define TO_BITS(test) JOIN(as_uint, V)(test)

#define SHARE_OF_BLOCKS                                                        \
    const int item = get_global_id(0), count = get_global_size(0);             \
    const int first = (int)((long)blocks * item / count);                      \
    const int end = (int)((long)blocks * (item + 1) / count);

__kernel ALONE void pack(__global const T *x, __global uint *words, const int size,
                         const int blocks, const ACC low, const ACC high, const int open)
{
    SHARE_OF_BLOCKS
    const fetched lower = low, upper = high;
    const bits_of_lanes any_low = open & 1 ? ~0u : 0u, any_high = open & 2 ? ~0u : 0u;
    for (int block = first; block < end; ++block) {
        const int begin = block * BLOCK;
        if (size - begin < BLOCK) {
            for (int w = 0; w < WIDTH; ++w)
                words[block * WIDTH + w] = word_of(x, begin + w, size, low, high, open);
            break;
        }
        bits_of_lanes word = 0;
        for (int place = 0; place < PLACES; ++place) {
            const fetched v = WIDEN(*(__global const stored *)(x + begin + place * WIDTH));
            const bits_of_lanes above = TO_BITS(v > lower) | any_low;
            word |= above & (TO_BITS(v < upper) | any_high) & 1u << place;
        }
        *(__global packed *)(words + block * WIDTH) = word;
    }
}

__kernel ALONE void select_by_bits(__global const uint *words, __global const T *x, __global T *y,
                                   const int size, const int blocks)
{
    SHARE_OF_BLOCKS
    for (int block = first; block < end; ++block) {
        const int begin = block * BLOCK;
        if (size - begin < BLOCK) {
            for (int n = begin; n < size; ++n) y[n] = BIT(words, n) ? x[n] : (T)0;
            break;
        }
        const bits_of_lanes word = *(__global const packed *)(words + block * WIDTH);
        for (int place = 0; place < PLACES; ++place) {
            const int at = begin + place * WIDTH;
            const stored v = *(__global const stored *)(x + at);
            const fetched kept = (word & 1u << place) != 0 ? WIDEN(v) : (fetched)0;
            *(__global stored *)(y + at) = NARROW(kept);
        }
    }
}

#endif
