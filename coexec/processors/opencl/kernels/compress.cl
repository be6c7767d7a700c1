/* Blocks of 64 values as codes of BITS bits between two ends, and back.
 * Layout: x is flat, 64 values to a block, the last block may be short. words (blocks, WORDS): word
 * w has the codes of values w, w + WORDS, w + 2 WORDS, ... from its lowest bits on. ends (blocks, 2):
 * the least and the largest value. Code 0 is the lower end alone, LEVELS the upper one alone.
 *
 * compress_naive, decompress_naive: one block per work-item, value by value.
 * compress, decompress:             vectors of V words; one work-item per share of all blocks
 *                                   (divided evenly, in order), groups of one. ACC is float. */

#ifndef T
#define T float /* element type of x */
#endif
#ifndef ACC
#define ACC float /* type to compute in */
#endif
#ifndef E
#define E float /* element type of ends */
#endif
#ifndef BITS
#define BITS 8 /* bits of a code: 4 or 8 */
#endif
#ifndef LANES
#define LANES 1 /* 0: the kernels that go value by value */
#endif

#define BLOCK 64
#define PLACES (32 / BITS)
#define WORDS (BLOCK / PLACES)
#define LEVELS ((1 << BITS) - 1)
#define NARROWEST (ACC)1e-30f /* ends that are no further apart count as equal */

/* Codes per unit; 0: all values are the lower end. */
static inline __attribute__((always_inline)) ACC rate_of(const ACC low, const ACC high)
{
    const ACC span = high - low;
    return span > NARROWEST ? (ACC)LEVELS / span : (ACC)0;
}

static inline __attribute__((always_inline)) void compress_one(__global const T *x,
                                                               __global uint *words,
                                                               __global E *ends, const int count)
{
    ACC low = x[0], high = x[0];
    for (int i = 1; i < count; ++i) {
        const ACC v = x[i];
        low = v < low ? v : low;
        high = v > high ? v : high;
    }
    const ACC rate = rate_of(low, high);
    for (int w = 0; w < WORDS; ++w) {
        uint word = 0;
        for (int place = 0; place < PLACES; ++place) {
            const int i = place * WORDS + w;
            const ACC v = x[i < count ? i : count - 1];
            ACC code = rint((v - low) * rate);
            code = v > low && code < 1 ? (ACC)1 : code;
            code = v < high && code > LEVELS - 1 ? (ACC)(LEVELS - 1) : code;
            word |= (rate > 0 ? (uint)code : 0u) << place * BITS;
        }
        words[w] = word;
    }
    ends[0] = (E)low;
    ends[1] = (E)high;
}

static inline __attribute__((always_inline)) void decompress_one(__global const uint *words,
                                                                 __global const E *ends,
                                                                 __global T *x, const int count)
{
    const ACC low = ends[0], high = ends[1];
    for (int i = 0; i < count; ++i) {
        const uint code = words[i % WORDS] >> i / WORDS * BITS & LEVELS;
        const ACC share = (ACC)code * (ACC)(1.0 / LEVELS);
        x[i] = (T)(low * (1 - share) + high * share);
    }
}

#if LANES == 0

__kernel void compress_naive(__global const T *x, __global uint *words, __global E *ends,
                             const int size, const int blocks)
{
    const int block = get_global_id(0);
    if (block >= blocks) return;
    compress_one(x + block * BLOCK, words + block * WORDS, ends + 2 * block,
                 min(size - block * BLOCK, BLOCK));
}

__kernel void decompress_naive(__global const uint *words, __global const E *ends, __global T *x,
                               const int size, const int blocks)
{
    const int block = get_global_id(0);
    if (block >= blocks) return;
    decompress_one(words + block * WORDS, ends + 2 * block, x + block * BLOCK,
                   min(size - block * BLOCK, BLOCK));
}

#else

#include "alone.cl"

typedef JOIN(uint, V) codes_of_lanes;
typedef codes_of_lanes packed __attribute__((aligned(4))); /* anywhere in words */
#define BITS_OF(v) JOIN(as_uint, V)(v)
#define FLOAT_OF(bits) JOIN(as_float, V)(bits)

#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define MOST(a, b) ((a) > (b) ? (a) : (b))

/* Halves are folded onto each other until one lane is left. */
#define FOLD(name, BEST)                                                       \
    static inline __attribute__((always_inline)) ACC name(const fetched v)     \
    {                                                                          \
        FOLD_16(BEST)                                                          \
        FOLD_8(BEST)                                                           \
        const JOIN(ACC, 2) pair = BEST(four.lo, four.hi);                      \
        return BEST(pair.x, pair.y);                                           \
    }
#if V == 16
#define FOLD_16(BEST) const JOIN(ACC, 8) eight = BEST(v.lo, v.hi);
#else
#define FOLD_16(BEST) const fetched eight = v;
#endif
#if V >= 8
#define FOLD_8(BEST) const JOIN(ACC, 4) four = BEST(eight.lo, eight.hi);
#else
#define FOLD_8(BEST) const fetched four = eight;
#endif
FOLD(LEAST_LANE, LEAST)
FOLD(MOST_LANE, MOST)

#define AT(w, place) (*(__global const stored *)(from + (place) * WORDS + (w)))

/* A float below 2^23 that has 1.5 * 2^23 added holds its rounded value in its lowest bits. */
#define SHIFTED 12582912.0f
#define CODE(v, code)                                                          \
    fetched code = (v - low) * rate;                                           \
    code = LEAST(MOST(code, (fetched)1), (fetched)(LEVELS - 1));               \
    code = v == high ? (fetched)LEVELS : code;                                 \
    code = v == low ? (fetched)0 : code;

__kernel ALONE void compress(__global const T *x, __global uint *words, __global E *ends,
                             const int size, const int blocks)
{
    const int item = get_global_id(0), count = get_global_size(0);
    const int end = (int)((long)blocks * (item + 1) / count);
    for (int block = (int)((long)blocks * item / count); block < end; ++block) {
        __global const T *from = x + block * BLOCK;
        __global uint *to = words + block * WORDS;
        if (size - block * BLOCK < BLOCK) {
            compress_one(from, to, ends + 2 * block, size - block * BLOCK);
            break;
        }
        fetched lows = WIDEN(AT(0, 0)), highs = lows;
        for (int i = V; i < BLOCK; i += V) {
            const fetched v = WIDEN(AT(i, 0));
            lows = v < lows ? v : lows;
            highs = v > highs ? v : highs;
        }
        const ACC least = LEAST_LANE(lows), most = MOST_LANE(highs);
        ends[2 * block] = (E)least;
        ends[2 * block + 1] = (E)most;
        const ACC step = rate_of(least, most);
        const fetched low = least, high = most, rate = step;
        for (int w = 0; w < WORDS; w += V) {
            codes_of_lanes word = 0;
            for (int place = 0; place < PLACES; ++place) {
                const fetched v = WIDEN(AT(w, place));
                CODE(v, code)
                word |= (BITS_OF(code + SHIFTED) & (uint)LEVELS) << (uint)(place * BITS);
            }
            if (!(step > 0)) word = 0;
            *(__global packed *)(to + w) = word;
        }
    }
}

__kernel ALONE void decompress(__global const uint *words, __global const E *ends, __global T *x,
                               const int size, const int blocks)
{
    const int item = get_global_id(0), count = get_global_size(0);
    const int end = (int)((long)blocks * (item + 1) / count);
    for (int block = (int)((long)blocks * item / count); block < end; ++block) {
        __global const uint *from = words + block * WORDS;
        __global T *to = x + block * BLOCK;
        if (size - block * BLOCK < BLOCK) {
            decompress_one(from, ends + 2 * block, to, size - block * BLOCK);
            break;
        }
        const fetched low = (ACC)ends[2 * block], high = (ACC)ends[2 * block + 1];
        for (int w = 0; w < WORDS; w += V) {
            const codes_of_lanes word = *(__global const packed *)(from + w);
            for (int place = 0; place < PLACES; ++place) {
                /* The lowest bits of 2^23 and above count ones. */
                const codes_of_lanes code = word >> (uint)(place * BITS) & (uint)LEVELS;
                const fetched whole = FLOAT_OF(code | 0x4B000000u) - 8388608.0f;
                const fetched share = whole * (1.0f / LEVELS);
                *(__global stored *)(to + place * WORDS + w) =
                    NARROW(low * (1.0f - share) + high * share);
            }
        }
    }
}

#endif
