/* Defines of attention of few queries, and how a product becomes a score: included by attention.cl
 * and attention_groups.cl. No kernel stands here. */

#ifndef T
#define T float /* element type of q, k, v and y */
#endif
#ifndef WIDENED
#define WIDENED 0 /* 1: T is half: scores, weights and sums are float all the same */
#endif
#ifndef SIZE
#define SIZE 64 /* elements of a key */
#endif
#ifndef VALUES
#define VALUES 64 /* elements of a value */
#endif
#ifndef ROWS
#define ROWS 4 /* queries of a pair */
#endif
#ifndef MASK
#define MASK 0 /* 1: booleans, 2: numbers that are added; 0: no mask */
#endif
#ifndef M
#define M float /* element type of the mask (uchar: booleans) */
#endif
#ifndef CAPPED
#define CAPPED 0 /* 1: scores pass through cap * tanh(score / cap) */
#endif
#ifndef CAUSAL
#define CAUSAL 0 /* 1: query i attends to keys up to i */
#endif

#include "vectors.cl"
#include "exponential.cl"

inline float scored(float score, const int row, const int column, const float cap,
                    __global const M *mask, const int image, const int head, const int rows,
                    const int by_image, const int by_head, const int by_row)
{
    if (CAPPED) score = cap * tanh(score / cap);
#if MASK
    const int at = image * by_image + (head + row / rows) * by_head + row % rows * by_row + column;
#endif
#if MASK == 1
    if (!mask[at]) return -INFINITY;
#elif MASK == 2
    score += (float)mask[at];
#endif
    return CAUSAL && column > row % rows ? -INFINITY : score;
}
