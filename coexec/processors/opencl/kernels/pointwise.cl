/* Convolutions of one tap that read where they write, and the gradients of their inputs, without any
 * copy: Y[plane, m, p] = sum over channels of A[m, channel] * X[plane, channel, p] + bias[m]. Planes
 * are images and groups, X and Y are contiguous, `pixels` positions in a row; A[m, channel] lies at
 * group * a_group + m * a_row + channel * a_channel, type ACC. Both operands are read where they lie,
 * each element of X once for MR rows: where channels are few, a panel of columns would be copied, and its
 * places looked up, for few multiplications.
 *
 * A work-item computes `run` columns (whole tiles) of `row_block` rows (whole tiles) of a plane:
 * `span` columns at a time, for which it goes through its rows. Long spans write long runs of a row
 * of Y (a processor fetches lines ahead of a run, not of one line in each of many rows), short ones
 * keep what is read of X in the first cache. A last tile that overhangs the plane is moved back, and
 * stores only what is new. pixels >= NR.
 * Results are finished (epilogue.cl).
 * Geometry: (runs of columns, blocks of rows, planes), work-groups of one. */

#include "alone.cl"
#include "epilogue.cl"

#ifndef MR
#define MR 6 /* rows of a register tile: 4, 6, 8 or 12 */
#endif
#ifndef NV
#define NV 2 /* vectors in a row of a register tile: 2 to 4 */
#endif
#define NR (NV * V)

/* min is a call on some runtimes. */
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
/* vloadn is a call on some runtimes. */
#define LOAD(p) WIDEN(*(__global const stored *)(p))
#define STORE(p, v) (*(__global stored *)(p) = NARROW(v))

#define ROWS_4(F) F(0) F(1) F(2) F(3)
#define ROWS_6(F) ROWS_4(F) F(4) F(5)
#define ROWS_8(F) ROWS_6(F) F(6) F(7)
#define ROWS_12(F) ROWS_8(F) F(8) F(9) F(10) F(11)
#define ROWS(F) JOIN(ROWS_, MR)(F)
#define VECTORS_2(F, i) F(i, 0) F(i, 1)
#define VECTORS_3(F, i) F(i, 0) F(i, 1) F(i, 2)
#define VECTORS_4(F, i) F(i, 0) F(i, 1) F(i, 2) F(i, 3)
#define VECTORS(F, i) JOIN(VECTORS_, NV)(F, i)

#define POINT(i) __global const ACC *a##i = a + (LEAST(m + i, last - 1)) * a_row;
#define ZERO_ONE(i, v) fetched c##i##_##v = 0;
#define ZERO(i) VECTORS(ZERO_ONE, i)
#define FETCH(i, v) const fetched b##v = LOAD(from + v * V);
#define MULTIPLY_ONE(i, v) c##i##_##v += e##i * b##v;
#define MULTIPLY(i)                                                                                \
    const ACC e##i = a##i[k];                                                                 \
    VECTORS(MULTIPLY_ONE, i)
#define LEAVE_ONE(i, v) STORE(to + v * V, FINISH(c##i##_##v + start, to + v * V - y));
#define LEAVE(i)                                                                                   \
    if (m + i < last) {                                                                            \
        __global T *to = y + out + (m + i) * pixels;                                               \
        const ACC start = has_bias ? (ACC)bias[m + i] : (ACC)0;                                    \
        VECTORS(LEAVE_ONE, i)                                                                      \
    }
#define DUMP_ONE(i, v) *(fetched *)(tile + i * NR + v * V) = c##i##_##v;
#define DUMP(i) VECTORS(DUMP_ONE, i)

__kernel ALONE void pointwise(__global const T *x, __global const ACC *a, __global const T *bias,
                              __global T *y, const int has_bias, const int rows,
                              const int channels, const int pixels, const int groups,
                              const int a_group, const int a_row, const int a_channel,
                              const int run, const int span, const int row_block FINISH_PARAMETERS)
{
    const int plane = get_global_id(2), first = get_global_id(1) * row_block;
    const int last = LEAST(first + row_block, rows);
    const int begin = get_global_id(0) * run, stop = LEAST(begin + run, pixels);
    const int y_plane = plane * rows * pixels;
    x += plane * channels * pixels;
    a += plane % groups * a_group;
    bias += plane % groups * rows;
    for (int left = begin; left < stop; left += span) {
        const int right = LEAST(left + span, stop);
        for (int m = first; m < last; m += MR) {
            ROWS(POINT)
            for (int column = left; column < right; column += NR) {
                const int at = LEAST(column, pixels - NR), out = y_plane + at;
                __global const T *from = x + at;
                ROWS(ZERO)
                int k = 0;
#pragma unroll 1 /* few terms: what comes before and after a longer loop costs more than it saves */
                for (int channel = 0; channel < channels; ++channel) {
                    VECTORS(FETCH, 0)
                    ROWS(MULTIPLY)
                    from += pixels;
                    k += a_channel;
                }
                if (at == column) {
                    ROWS(LEAVE)
                    continue;
                }
                ACC tile[MR * NR];
                ROWS(DUMP)
#pragma unroll 1
                for (int i = 0; i < LEAST(MR, last - m); ++i) {
                    const ACC start = has_bias ? (ACC)bias[m + i] : (ACC)0;
#pragma unroll 1
                    for (int j = column - at; j < NR; ++j) {
                        __global T *to = y + out + (m + i) * pixels + j;
                        *to = (T)FINISH_ONE(tile[i * NR + j] + start, to - y);
                    }
                }
            }
        }
    }
}
