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
#ifndef LANES
#define LANES 1 /* 0: the kernels that go value by value */
#endif

#include "block_codes.cl"

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
            word |= code_of(v, low, high, rate) << place * BITS;
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
        x[i] = (T)value_of(code, low, high);
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
#include "block_vectors.cl"

__kernel ALONE void compress(__global const T *x, __global uint *words, __global E *ends,
                             const int size, const int blocks)
{
    const int item = get_global_id(0), count = get_global_size(0);
    const int end = (int)((long)blocks * (item + 1) / count);
    for (int block = (int)((long)blocks * item / count); block < end; ++block) {
        __global const T *from = x + block * BLOCK;
        if (size - block * BLOCK < BLOCK)
            compress_one(from, words + block * WORDS, ends + 2 * block, size - block * BLOCK);
        else
            compress_block(from, words + block * WORDS, ends + 2 * block);
    }
}

__kernel ALONE void decompress(__global const uint *words, __global const E *ends, __global T *x,
                               const int size, const int blocks)
{
    const int item = get_global_id(0), count = get_global_size(0);
    const int end = (int)((long)blocks * (item + 1) / count);
    for (int block = (int)((long)blocks * item / count); block < end; ++block) {
        __global const uint *from = words + block * WORDS;
        if (size - block * BLOCK < BLOCK)
            decompress_one(from, ends + 2 * block, x + block * BLOCK, size - block * BLOCK);
        else
            expand_block(from, ends + 2 * block, x + block * BLOCK);
    }
}

#endif
