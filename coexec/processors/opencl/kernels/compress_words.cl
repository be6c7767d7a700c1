/* Codes of blocks (compress.cl) on GPUs: an item for each word. The items of a block read and write
 * neighbours, WORDS values at a time, and join their ends in local memory.
 * Geometry: words of all blocks, padded to the work-group's LOCAL items, a multiple of WORDS. */

#ifndef T
#define T float /* element type of x */
#endif
#ifndef ACC
#define ACC float /* type to compute in */
#endif
#ifndef LOCAL
#define LOCAL 64 /* items of a group */
#endif

#include "block_codes.cl"

#define GROUP __attribute__((reqd_work_group_size(LOCAL, 1, 1)))
/* Where an item stands: word w of a block of `count` values, none behind the last block. */
#define STAND                                                                    \
    const int at = get_global_id(0), block = at / WORDS, w = at % WORDS;         \
    const int count = block < blocks ? min(size - block * BLOCK, BLOCK) : 0;

__kernel GROUP void compress_words(__global const T *x, __global uint *words, __global E *ends,
                                   const int size, const int blocks)
{
    __local ACC lows[LOCAL], highs[LOCAL];
    STAND
    const int item = get_local_id(0);
    ACC values[PLACES], low = INFINITY, high = -INFINITY;
    /* Behind a short block's end its last value counts again. */
    for (int place = 0; place < PLACES; ++place) {
        const int i = min(place * WORDS + w, count - 1);
        const ACC v = count > 0 ? (ACC)x[block * BLOCK + i] : (ACC)0;
        values[place] = v;
        low = v < low ? v : low;
        high = v > high ? v : high;
    }
    lows[item] = low;
    highs[item] = high;
    for (int half_words = WORDS / 2; half_words > 0; half_words /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (w < half_words) {
            lows[item] = fmin(lows[item], lows[item + half_words]);
            highs[item] = fmax(highs[item], highs[item + half_words]);
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    low = lows[item - w];
    high = highs[item - w];
    const ACC rate = rate_of(low, high);
    uint word = 0;
    for (int place = 0; place < PLACES; ++place)
        word |= code_of(values[place], low, high, rate) << place * BITS;
    if (count > 0) words[at] = word;
    if (count > 0 && w < 2) ends[2 * block + w] = (E)(w == 0 ? low : high);
}

__kernel GROUP void decompress_words(__global const uint *words, __global const E *ends,
                                     __global T *x, const int size, const int blocks)
{
    STAND
    if (count <= 0) return;
    const ACC low = ends[2 * block], high = ends[2 * block + 1];
    const uint word = words[at];
    for (int place = 0; place < PLACES; ++place) {
        const int i = place * WORDS + w;
        if (i < count) x[block * BLOCK + i] = (T)value_of(word >> place * BITS & LEVELS, low, high);
    }
}
