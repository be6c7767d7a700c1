/* Products with a matrix B that never changes: Y = alpha * A * B + beta * bias.
 * B stands in panels [columns / (WIDE V)][depth][WIDE V], zeros past its last column, so that a
 * kernel reads it from end to end; they are of type T where NARROW_PANELS is 1, else of ACC, as A is,
 * whose elements are broadcast. A tile is ROWS rows of A times a panel: its sums stand in
 * registers while A's elements are broadcast. Rows past the last one repeat it and are not stored.
 * Element (m, k) of A lies at m * a_row + k * a_column, (k, n) of B at k * b_row + n * b_column,
 * (m, n) of bias at m * bias_row + n * bias_column; Y is (rows, columns). Results are finished as
 * they are stored (epilogue.cl).
 *
 * pack_known: one work-item per panel.
 * known:      one work-item per task, a block of `height` rows times a run of panels: tasks are
 *             numbered along the rows first. */

#include "alone.cl"
#include "ask.cl"
#include "epilogue.cl"

#ifndef ROWS
#define ROWS 6 /* rows of a tile */
#endif
#ifndef WIDE
#define WIDE 4 /* vectors of a panel: 1 to 4 */
#endif

#ifndef NARROW_PANELS
#define NARROW_PANELS 0 /* 1: panels are of type T: half of the bytes, and a conversion of each vector */
#endif

#define WIDTH (WIDE * V)
typedef JOIN(ACC, V) vec;
#if NARROW_PANELS
typedef T panel_element;
typedef JOIN(T, V) panel_vector;
#define FROM_PANEL(v) WIDEN(v)
#else
typedef ACC panel_element;
typedef vec panel_vector;
#define FROM_PANEL(v) (v)
#endif
/* Sums side by side of each element: with few of them, each waits for the one before. */
#define CHAINS (ROWS * WIDE == 1 ? 4 : ROWS * WIDE < 4 ? 2 : 1)

__kernel ALONE void pack_known(__global const T *b, __global panel_element *panels,
                               const int columns, const int depth, const int b_row,
                               const int b_column)
{
    const int first = get_global_id(0) * WIDTH;
    panels += (size_t)first * depth;
    for (int k = 0; k < depth; ++k)
        for (int i = 0; i < WIDTH; ++i)
            panels[(size_t)k * WIDTH + i] =
                first + i < columns
                    ? (panel_element)b[(size_t)k * b_row + (size_t)(first + i) * b_column]
                    : (panel_element)0;
}

#define ADD_PRODUCT(to, at)                                                                        \
    {                                                                                              \
        vec line[WIDE];                                                                            \
        _Pragma("unroll") for (int w = 0; w < WIDE; ++w)                                           \
            line[w] = FROM_PANEL(                                                                  \
                *(__global const panel_vector *)(panel + (size_t)(at) * WIDTH + w * V));           \
        _Pragma("unroll") for (int r = 0; r < ROWS; ++r) {                                         \
            const vec e = (vec)from[r][(at) * a_column];                                           \
            _Pragma("unroll") for (int w = 0; w < WIDE; ++w) to[r][w] += e * line[w];              \
        }                                                                                          \
    }

__kernel ALONE void known(__global const ACC *a, __global const panel_element *panels,
                          __global const T *bias, __global T *y, const ACC alpha, const ACC beta, const int has_bias, const int bias_row,
                          const int bias_column, const int rows, const int columns,
                          const int depth, const int a_row, const int a_column, const int count,
                          const int height, const int runs FINISH_PARAMETERS)
{
    const int blocks = (rows + height - 1) / height, task = get_global_id(0);
    const int run = task / blocks, first = task % blocks * height, end = min(first + height, rows);
    const int last = (int)((long)count * (run + 1) / runs);
    for (int at = (int)((long)count * run / runs); at < last; ++at) {
        __global const panel_element *panel = panels + (size_t)at * depth * WIDTH;
        for (int m = first; m < end; m += ROWS) {
            __global const ACC *from[ROWS];
            vec sums[CHAINS][ROWS][WIDE];
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                from[r] = a + (size_t)min(m + r, end - 1) * a_row;
#pragma unroll
                for (int w = 0; w < WIDE; ++w)
#pragma unroll
                    for (int c = 0; c < CHAINS; ++c) sums[c][r][w] = 0;
            }
            /* Each tile of rows asks for a part of the next panel. */
            __global const panel_element *ahead =
                panel + (size_t)depth * (WIDTH + min((m - first) / ROWS, WIDE - 1) * V);
            int k = 0;
            for (; k + CHAINS <= depth; k += CHAINS) {
                ASK_FOR(ahead + (size_t)k * V)
#pragma unroll
                for (int c = 0; c < CHAINS; ++c) ADD_PRODUCT(sums[c], k + c)
            }
            for (; k < depth; ++k) ADD_PRODUCT(sums[0], k)
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                if (m + r >= end) continue;
#pragma unroll
                for (int w = 0; w < WIDE; ++w) {
                    const int n = at * WIDTH + w * V, rest = columns - n;
                    if (rest <= 0) continue;
                    vec sum = sums[0][r][w];
#pragma unroll
                    for (int c = 1; c < CHAINS; ++c) sum += sums[c][r][w];
                    sum *= alpha;
                    __global const T *c = bias + (m + r) * bias_row + n * bias_column;
                    __global T *to = y + (size_t)(m + r) * columns + n;
                    if (rest >= V) {
                        if (has_bias)
                            sum += beta * (bias_column ? WIDEN(*(__global const stored *)c) : (vec)(ACC)*c);
                        *(__global stored *)to = NARROW(FINISH(sum, to - y));
                        continue;
                    }
                    ACC lanes[V];
                    *(fetched *)lanes = sum;
                    for (int j = 0; j < rest; ++j) {
                        const ACC start = has_bias ? beta * (ACC)c[j * bias_column] : 0;
                        to[j] = (T)FINISH_ONE(lanes[j] + start, to + j - y);
                    }
                }
            }
        }
    }
}
