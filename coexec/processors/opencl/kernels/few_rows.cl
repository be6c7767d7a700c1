/* A product of few rows with a matrix whose rows are contiguous: Y = alpha * A * B + beta * bias.
 *
 * Bound by reading B once: nothing is copied, B is read along its rows, DEEP of them at a time, as
 * streams that the processor fetches ahead. A task is a run of `width` columns and all rows of A;
 * it walks down B and keeps its sums, [row][column], in its slot of `panels`, which stays in cache.
 * The last task takes what remains, up to twice as many columns. The last vector of a run overlaps
 * the one before it, so runs have at least V columns.
 * Element (m, k) of A lies at m * a_row + k * a_column, (m, n) of bias at m * bias_row + n *
 * bias_column. Results are finished as they are stored (epilogue.cl).
 * Geometry: one work-item per task, work-groups of one. */

#include "alone.cl"
#include "epilogue.cl"

#ifndef HIGH
#define HIGH 2 /* rows of A at a time: 1 or 2 */
#endif
#define DEEP 4 /* rows of B at a time */

typedef JOIN(ACC, V) vec;
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
/* vloadn is a call on some runtimes. */
#define LOAD(p) WIDEN(*(__global const stored *)(p))
#define STORE(p, v) (*(__global stored *)(p) = NARROW(v))

#if HIGH == 2
#define ROWS(F) F(0) F(1)
#else
#define ROWS(F) F(0)
#endif
#define SUM_ROW(i) __global vec *sum##i = sums + (m + i) * vectors;
#define FACTOR_ROW(i) __global const T *a##i = a + LEAST(m + i, rows - 1) * a_row + k * a_column;
#define FACTOR(i, j) const vec e##i##_##j = (vec)(ACC)a##i[j * a_column];
#define FACTORS_4(i) FACTOR(i, 0) FACTOR(i, 1) FACTOR(i, 2) FACTOR(i, 3)
#define FACTORS_1(i) FACTOR(i, 0)
#define FETCH(j) const vec b##j = LOAD(from + j * b_row);
#define FETCH_4 FETCH(0) FETCH(1) FETCH(2) FETCH(3)
#define FETCH_1 FETCH(0)
#define ADD_4(i) sum##i[v] += (e##i##_0 * b0 + e##i##_1 * b1) + (e##i##_2 * b2 + e##i##_3 * b3);
#define ADD_1(i) sum##i[v] += e##i##_0 * b0;
/* Rows of A times `DEPTH` rows of B from k on. */
#define PASS(DEPTH)                                                                                \
    for (int m = 0; m < rows; m += HIGH) {                                                         \
        ROWS(SUM_ROW)                                                                              \
        ROWS(FACTOR_ROW)                                                                           \
        ROWS(FACTORS_##DEPTH)                                                                      \
        for (int v = 0; v < vectors; ++v) {                                                        \
            __global const T *from = b + k * b_row + LEAST(v * V, size - V);                       \
            FETCH_##DEPTH                                                                          \
            ROWS(ADD_##DEPTH)                                                                      \
        }                                                                                          \
    }

__kernel ALONE void few_rows(
    __global const T *a, __global const T *b, __global const T *bias, __global T *y,
    __global ACC *panels, const ACC alpha, const ACC beta, const int has_bias, const int bias_row,
    const int bias_column, const int rows, const int columns, const int depth, const int a_row,
    const int a_column, const int b_row, const int width, const int slot_size FINISH_PARAMETERS)
{
    const int task = get_global_id(0), begin = task * width;
    const int size = task + 1 < (int)get_global_size(0) ? width : columns - begin;
    const int vectors = (size + V - 1) / V;
    __global vec *sums = (__global vec *)(panels + task * slot_size);
    for (int i = 0; i < (rows + HIGH - 1) / HIGH * HIGH * vectors; ++i) sums[i] = 0;
    b += begin;
    int k = 0;
    for (; k + DEEP <= depth; k += DEEP) PASS(4)
    for (; k < depth; ++k) PASS(1)
    for (int m = 0; m < rows; ++m)
        for (int n = 0; n < size; n += V) {
            __global const T *c = bias + m * bias_row + (begin + n) * bias_column;
            __global T *to = y + m * columns + begin + n;
            __global vec *sum = sums + m * vectors + n / V;
            if (n + V <= size) {
                vec start = 0;
                if (has_bias) start = beta * (bias_column ? LOAD(c) : (vec)(ACC)*c);
                STORE(to, FINISH(alpha * *sum + start, to - y));
                continue;
            }
            for (int j = 0; j < size - n; ++j) {
                const ACC start = has_bias ? beta * (ACC)c[j * bias_column] : (ACC)0;
                const ACC value = alpha * ((__global ACC *)sum)[n + V - size + j] + start;
                to[j] = (T)FINISH_ONE(value, to + j - y);
            }
        }
}
