/* Codes of blocks value by value: included by compress.cl and compress_words.cl. No kernel stands
 * here. */

#include "blocks.cl"

/* The code of one value. */
static inline __attribute__((always_inline)) uint code_of(const ACC v, const ACC low,
                                                          const ACC high, const ACC rate)
{
    ACC code = rint((v - low) * rate);
    code = v > low && code < 1 ? (ACC)1 : code;
    code = v < high && code > LEVELS - 1 ? (ACC)(LEVELS - 1) : code;
    return rate > 0 ? (uint)code : 0u;
}

/* The value that a code stands for. */
static inline __attribute__((always_inline)) ACC value_of(const uint code, const ACC low,
                                                          const ACC high)
{
    const ACC share = (ACC)code * (ACC)(1.0 / LEVELS);
    return low * (1 - share) + high * share;
}
