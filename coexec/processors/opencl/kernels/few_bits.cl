/* Products with weights of BITS bits (com.microsoft::MatMulNBits): Y = A * W^T, where column n has
 * weights (q - zero) * scale, with a scale and a zero point for each block of BLOCK along the sum.
 * Layout: A (rows, depth), packed (columns, blocks, BLOCK * BITS / 8) bytes with the lowest bits
 * first, scales (columns, blocks), zeros likewise as numbers (POINTS 2), or packed as weights are
 * with whole bytes for each column (POINTS 1), or the middle of the range (POINTS 0).
 *
 * few_bits_naive: one work-item per result.
 *
 * few_bits: weights stay packed on the way from memory. pack_bits brings them into panels of V
 * columns: words [panel][depth / PER][V], of which each holds PER weights of its column, scales
 * and zeros [panel][blocks][V]. A weight is not moved to the lowest bits of its word: numbers are
 * exact where it stands, and what it is multiplied with is divided by that power of two beforehand.
 * A task takes a run of panels; its slot holds ROWS rows of A so divided and the sums of blocks.
 * Geometry: one work-item per task, work-groups of one; pack_bits: one work-item per panel. */

#include "alone.cl"
#include "epilogue.cl"

#ifndef BITS
#define BITS 4 /* bits of a weight: 4 or 8 */
#endif
#ifndef BLOCK
#define BLOCK 32 /* weights with a common scale: a power of two from 16 on */
#endif
#ifndef POINTS
#define POINTS 0 /* zero points: 0 the middle, 1 packed, 2 numbers of type T */
#endif
#ifndef ROWS
#define ROWS 1 /* rows of A at a time */
#endif
#ifndef PANELS
#define PANELS 1 /* 1: tensors are of float, and kernels on panels stand here, too */
#endif

#define PER (32 / BITS) /* weights of a word */
#define LARGEST ((1 << BITS) - 1)
#define MIDDLE (1 << (BITS - 1))
#define BYTES (BLOCK * BITS / 8)
#define CHAINS (ROWS >= 4 ? 1 : 4 / ROWS) /* sums side by side, as one waits for the one before */
#if POINTS == 2
#define TZ T
#else
#define TZ uchar
#endif
#define INLINE static inline __attribute__((always_inline))

/* The zero point of a block of a column. */
INLINE ACC zero_of(__global const TZ *zeros, const int column, const int block, const int blocks)
{
#if POINTS == 2
    return (ACC)zeros[column * blocks + block];
#elif POINTS == 1
    const int stride = (blocks * BITS + 7) / 8, at = block * BITS;
    return (ACC)(zeros[column * stride + at / 8] >> at % 8 & LARGEST);
#else
    return (ACC)MIDDLE;
#endif
}

__kernel void few_bits_naive(__global const T *a, __global const uchar *packed,
                             __global const T *scales, __global const TZ *zeros, __global T *y,
                             const int size, const int columns, const int depth, const int blocks)
{
    const int i = get_global_id(0);
    if (i >= size) return;
    const int column = i % columns;
    ACC sum = 0;
    for (int k = 0; k < depth; ++k) {
        const int block = k / BLOCK, at = k % BLOCK * BITS;
        const int found = packed[((size_t)column * blocks + block) * BYTES + at / 8];
        const ACC weight = (ACC)(found >> at % 8 & LARGEST) - zero_of(zeros, column, block, blocks);
        sum += (ACC)a[(size_t)(i / columns) * depth + k] * weight *
               (ACC)scales[(size_t)column * blocks + block];
    }
    y[i] = (T)sum;
}

#if PANELS
__kernel ALONE void pack_bits(__global const uint *packed, __global const T *scales,
                              __global const TZ *zeros, __global uint *words,
                              __global float *factors, __global float *points, const int columns,
                              const int blocks)
{
    const int panel = get_global_id(0), length = blocks * BLOCK / PER;
    words += (size_t)panel * length * V;
    factors += (size_t)panel * blocks * V;
    points += POINTS ? (size_t)panel * blocks * V : 0;
    for (int i = 0; i < V; ++i) {
        const int column = panel * V + i, there = column < columns;
        for (int k = 0; k < length; ++k)
            words[k * V + i] = there ? packed[(size_t)column * length + k] : 0;
        for (int b = 0; b < blocks; ++b) {
            factors[b * V + i] = there ? scales[(size_t)column * blocks + b] : 0;
            if (POINTS) points[b * V + i] = there ? zero_of(zeros, column, b, blocks) : 0;
        }
    }
}

typedef JOIN(int, V) whole;
typedef JOIN(float, V) vec;
#define NUMBERS_(type) convert_##type
#define NUMBERS(type) NUMBERS_(type)

/* Rows of A from `row` on (the last one again behind it): elements as they meet weight k % PER of
 * a word, which is that many times too large, and what zero points take off for each block. */
INLINE void divided(__global const float *a, __global float *own, const int row, const int rows,
                    const int depth, const int blocks)
{
    const int padded = blocks * BLOCK;
    for (int r = 0; r < ROWS; ++r) {
        __global const float *from = a + (size_t)min(row + r, rows - 1) * depth;
        __global float *to = own + r * (padded + blocks);
        for (int b = 0; b < blocks; ++b) {
            float sum = 0;
            for (int k = b * BLOCK; k < (b + 1) * BLOCK; ++k) {
                const float x = k < depth ? from[k] : 0;
                const int place = k % PER;
                to[k] = place == PER - 1 ? x : x / (float)(1 << BITS * place);
                sum += x;
            }
            to[padded + b] = -sum;
        }
    }
}

__kernel ALONE void few_bits(__global const float *a, __global const uint *words,
                             __global const float *factors, __global const float *points,
                             __global float *y, __global float *slots, const int rows,
                             const int columns, const int depth, const int blocks,
                             const int panels FINISH_PARAMETERS)
{
    const int task = get_global_id(0), tasks = get_global_size(0), length = blocks * BLOCK / PER;
    const int end = (int)((long)panels * (task + 1) / tasks), padded = blocks * BLOCK;
    __global float *own = slots + (size_t)task * ROWS * (padded + blocks);
    for (int m = 0; m < rows; m += ROWS) {
        divided(a, own, m, rows, depth, blocks);
        for (int panel = (int)((long)panels * task / tasks); panel < end; ++panel) {
            __global const whole *word = (__global const whole *)words + (size_t)panel * length;
            __global const vec *factor = (__global const vec *)factors + (size_t)panel * blocks;
            __global const vec *point = (__global const vec *)points + (size_t)panel * blocks;
            vec total[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; ++r) total[r] = 0;
            for (int b = 0; b < blocks; ++b) {
                vec sums[ROWS][CHAINS];
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const float less = own[r * (padded + blocks) + padded + b];
                    sums[r][0] = POINTS ? point[b] * less : (vec)(MIDDLE * less);
#pragma unroll
                    for (int c = 1; c < CHAINS; ++c) sums[r][c] = 0;
                }
                for (int k = 0; k < BLOCK / PER; ++k, ++word) {
                    const whole found = *word;
                    __global const float *x = own + b * BLOCK + k * PER;
#pragma unroll
                    for (int i = 0; i < PER; ++i) {
                        const whole bits = i == PER - 1 ? found >> (32 - BITS) & LARGEST
                                                        : found & (LARGEST << BITS * i);
                        const vec weight = NUMBERS(JOIN(float, V))(bits);
#pragma unroll
                        for (int r = 0; r < ROWS; ++r)
                            sums[r][i % CHAINS] += weight * x[r * (padded + blocks) + i];
                    }
                }
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
#pragma unroll
                    for (int c = 1; c < CHAINS; ++c) sums[r][0] += sums[r][c];
                    total[r] += sums[r][0] * factor[b];
                }
            }
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                if (m + r >= rows) continue;
                const int column = panel * V;
                __global float *to = y + (size_t)(m + r) * columns + column;
                if (column + V <= columns) {
                    *(__global stored *)to = FINISH(total[r], to - y);
                    continue;
                }
                float lanes[V];
                *(fetched *)lanes = total[r];
                for (int j = 0; j < columns - column; ++j)
                    to[j] = FINISH_ONE(lanes[j], to + j - y);
            }
        }
    }
}
#endif
