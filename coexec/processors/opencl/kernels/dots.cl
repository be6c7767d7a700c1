/* The gradient of weights: W[m, row] = alpha * sum over positions of y[m, position] * B[row,
 * position] + beta * bias; with one tap and one image also the product of a matrix with a
 * transposed matrix. bias[m * bias_row + row * bias_column].
 *
 * B (rows: channels and taps, columns: positions of all images) is gathered from x (gather.cl).
 * Both operands are contiguous along positions, so vectors run there, and each sum is reduced over
 * its lanes once per LENGTH positions. A task is a block of rows of y (output channels of a group)
 * and a block of rows of B (whole channels with their taps). It walks through all positions, LENGTH
 * at a time: gathers its rows of B (and of y unless DIRECT), multiplies tiles of HIGH x WIDE, and
 * keeps the sums, KEPT elements per tile, in its slot of `panels`.
 * Geometry: one work-item per slot, work-groups of one; tasks are divided evenly, in order. */

#include "gather.cl"

#ifndef LENGTH
#define LENGTH 512 /* positions in a panel */
#endif
#ifndef DIRECT
#define DIRECT 1 /* 1: planes of y are whole vectors: y is read in place; 2: x too */
#endif
#ifndef SINGLE
#define SINGLE 0 /* 1: y has one row: tiles of one row */
#endif
#if DIRECT
#define LEFT T /* type of y as multiplied */
#else
#define LEFT ACC
#endif
#define STRIDE (LENGTH + V) /* of panel rows: no power of two, which caches dislike */
#define STEPS (LENGTH / V)

/* Rows of y (HIGH) and of B (WIDE) in a tile: sums, HIGH vectors and one more fill the registers
 * (32 of 64 bytes, 16 of any other size). One row of y is bound by reading B: four streams of it,
 * which stay in cache also where rows lie a power of two apart. */
#if SINGLE
#define HIGH 1
#define WIDE 4
#define KEPT V
#define PITCH V
#define ROWS(F) F(0)
#define COLUMNS(F, i) F(i, 0) F(i, 1) F(i, 2) F(i, 3)
#define TILE(F) COLUMNS(F, 0)
#elif V == 16
#define HIGH 4
#define WIDE 5
#define KEPT 32 /* elements that hold the sums of a tile, in rows of PITCH */
#define PITCH 8
#define ROWS(F) F(0) F(1) F(2) F(3)
#define COLUMNS(F, i) F(i, 0) F(i, 1) F(i, 2) F(i, 3) F(i, 4)
#define TILE(F) COLUMNS(F, 0) COLUMNS(F, 1) COLUMNS(F, 2) COLUMNS(F, 3)
#else
#define HIGH 3
#define WIDE 4
#define KEPT 16
#define PITCH 4
#define ROWS(F) F(0) F(1) F(2)
#define COLUMNS(F, i) F(i, 0) F(i, 1) F(i, 2) F(i, 3)
#define TILE(F) COLUMNS(F, 0) COLUMNS(F, 1) COLUMNS(F, 2)
#endif
#define ZERO(i, j) vec c##i##_##j = 0;
#define DOT(i, j) c##i##_##j += e##i * f##j;
#define LEFT_ROW(i) __global const LEFT *left##i = left + min(m + i, height - 1) * left_row;
#define RIGHT_ROW(i, j)                                                                            \
    __global const RIGHT *right##j = right + min(n + j, width - 1) * right_row;
#if DIRECT
#define LEFT_LANES(i) const vec e##i = LOAD(left##i + y_at[s]);
#else
#define LEFT_LANES(i) const vec e##i = *(__global const vec *)(left##i + y_at[s]);
#endif
#if DIRECT == 2
#define RIGHT T
#define RIGHT_LANES(i, j) const vec f##j = LOAD(right##j + x_at[s]);
#else
#define RIGHT ACC
#define RIGHT_LANES(i, j) const vec f##j = *(__global const vec *)(right##j + s * V);
#endif

/* Adding halves, quarters and so on of lanes: those of a, then those of b. Not neighbours first:
 * that becomes vhaddps, which cannot address the upper 16 registers and so spills all the sums. */
inline vec fold_halves(const vec a, const vec b) { return (vec)(a.lo, b.lo) + (vec)(a.hi, b.hi); }
inline vec fold_pairs(const vec a, const vec b)
{
    return (vec)(a.even, b.even) + (vec)(a.odd, b.odd);
}
#if V == 16
inline vec fold_quarters(const vec a, const vec b)
{
    return (vec)(a.s0123, a.s89ab, b.s0123, b.s89ab) + (vec)(a.s4567, a.scdef, b.s4567, b.scdef);
}
inline vec fold_eighths(const vec a, const vec b)
{
    return (vec)(a.s01, a.s45, a.s89, a.scd, b.s01, b.s45, b.s89, b.scd) +
           (vec)(a.s23, a.s67, a.sab, a.sef, b.s23, b.s67, b.sab, b.sef);
}
#define FOLD_FOUR(i, j, k, l)                                                                      \
    fold_quarters(fold_halves(c0_##i, c0_##j), fold_halves(c0_##k, c0_##l))
#if SINGLE
#define FOLD_TILE(F)                                                                               \
    F(0, fold_pairs(fold_eighths(FOLD_FOUR(0, 1, 2, 3), (vec)0), (vec)0))
#else
/* Eight sums of a row in 2 lanes each. */
#define FOLD_ROW(i)                                                                                \
    fold_eighths(                                                                                  \
        fold_quarters(fold_halves(c##i##_0, c##i##_1), fold_halves(c##i##_2, c##i##_3)),           \
        fold_quarters(fold_halves(c##i##_4, (vec)0), (vec)0))
#define FOLD_TILE(F)                                                                               \
    F(0, fold_pairs(FOLD_ROW(0), FOLD_ROW(1)))                                                     \
    F(1, fold_pairs(FOLD_ROW(2), FOLD_ROW(3)))
#endif
#elif V == 8
inline vec fold_quarters(const vec a, const vec b)
{
    return (vec)(a.s01, a.s45, b.s01, b.s45) + (vec)(a.s23, a.s67, b.s23, b.s67);
}
#if SINGLE
#define FOLD_FOUR(i, j, k, l)                                                                      \
    fold_quarters(fold_halves(c0_##i, c0_##j), fold_halves(c0_##k, c0_##l))
#define FOLD_TILE(F) F(0, fold_pairs(FOLD_FOUR(0, 1, 2, 3), (vec)0))
#else
/* Four sums of a row in 2 lanes each. */
#define FOLD_ROW(i)                                                                                \
    fold_quarters(fold_halves(c##i##_0, c##i##_1), fold_halves(c##i##_2, c##i##_3))
#define FOLD_TILE(F)                                                                               \
    F(0, fold_pairs(FOLD_ROW(0), FOLD_ROW(1)))                                                     \
    F(1, fold_pairs(FOLD_ROW(2), (vec)0))
#endif
#elif SINGLE
#define FOLD_FOUR(i, j, k, l)                                                                      \
    fold_pairs(fold_halves(c0_##i, c0_##j), fold_halves(c0_##k, c0_##l))
#define FOLD_TILE(F) F(0, FOLD_FOUR(0, 1, 2, 3))
#else
#define FOLD_ROW(i)                                                                                \
    fold_pairs(fold_halves(c##i##_0, c##i##_1), fold_halves(c##i##_2, c##i##_3))
#define FOLD_TILE(F) F(0, FOLD_ROW(0)) F(1, FOLD_ROW(1)) F(2, FOLD_ROW(2))
#endif
#define KEEP_SUMS(i, folded)                                                                       \
    const vec r##i = folded;                                                                       \
    to[i] = start ? to[i] + r##i : r##i;

__kernel ALONE void dots(
    __global const T *x, __global const T *y, __global const T *bias, __global T *w,
    __global ACC *panels, const ACC alpha, const ACC beta, const int has_bias, const int bias_row,
    const int bias_column, const int rows, const int row_block, const int channels, const int block,
    const int columns, const int x_size,
    const int y_size, const int x_image, const int y_image, const int slot_size, const int tasks,
    WINDOW)
{
    const int taps = k0 * k1 * k2, y_row = o0 * o1 * o2, x_channel = i0 * i1 * i2;
    const int row_blocks = (rows + row_block - 1) / row_block;
    const int channel_blocks = (channels + block - 1) / block;
    const int slot = get_global_id(0), slots = get_global_size(0);
    __global ACC *b_panel = panels + slot * slot_size;
    __global ACC *y_panel = b_panel + (DIRECT == 2 ? 0 : block * taps * STRIDE);
    __global ACC *sums = y_panel + (DIRECT ? 0 : row_block * STRIDE);
    const int end = (int)((long)tasks * (slot + 1) / slots);
    for (int task = (int)((long)tasks * slot / slots); task < end; ++task) {
        const int first = task % row_blocks * row_block;
        const int channel = task / row_blocks % channel_blocks * block;
        const int group = task / row_blocks / channel_blocks;
        const int height = min(row_block, rows - first);
        const int count = min(block, channels - channel), width = count * taps;
        __global const T *xs = x + group * channels * x_channel;
        __global const T *ys = y + (group * rows + first) * y_row;
        int start = 0;
        do {
            int x_at[STEPS], y_at[STEPS];
            const int steps = min(STEPS, (columns - start + V - 1) / V);
            for (int s = 0; s < steps; ++s) {
                const int column = start + s * V;
                const int image = column / y_row, pixel = column % y_row;
                x_at[s] = image * x_image + pixel;
                y_at[s] = DIRECT ? image * y_image + pixel : s * V;
#if DIRECT < 2
                gather(xs, b_panel + s * V, STRIDE, column, columns, x_size - (int)(xs - x),
                       x_image, x_channel, channel, count, WINDOW_VALUES);
#endif
#if DIRECT < 1
                gather(ys, y_panel + s * V, STRIDE, column, columns, y_size - (int)(ys - y),
                       y_image, y_row, 0, height, o0, o1, o2, o0, o1, o2, 1, 1, 1, 1, 1, 1, 0, 0,
                       0, 1, 1, 1);
#endif
            }
#if DIRECT
            __global const T *left = ys;
            const int left_row = y_row;
#else
            __global const ACC *left = y_panel;
            const int left_row = STRIDE;
#endif
#if DIRECT == 2
            __global const T *right = xs + channel * x_channel;
            const int right_row = x_channel;
#else
            __global const ACC *right = b_panel;
            const int right_row = STRIDE;
#endif
            __global ACC *sum = sums;
            for (int n = 0; n < width; n += WIDE)
                for (int m = 0; m < height; m += HIGH) {
                    ROWS(LEFT_ROW)
                    COLUMNS(RIGHT_ROW, 0)
                    TILE(ZERO)
                    for (int s = 0; s < steps; ++s) {
                        ROWS(LEFT_LANES)
                        COLUMNS(RIGHT_LANES, 0)
                        TILE(DOT)
                    }
                    __global vec *to = (__global vec *)sum;
                    FOLD_TILE(KEEP_SUMS)
                    sum += KEPT;
                }
            start += LENGTH;
        } while (start < columns);
        __global const ACC *sum = sums;
        for (int n = 0; n < width; n += WIDE)
            for (int m = 0; m < height; m += HIGH, sum += KEPT)
                for (int i = 0; i < HIGH && m + i < height; ++i)
                    for (int j = 0; j < WIDE && n + j < width; ++j) {
                        const int row = group * rows + first + m + i;
                        const int column = channel * taps + n + j;
                        ACC value = alpha * sum[i * PITCH + j];
                        if (has_bias)
                            value += beta * (ACC)bias[row * bias_row + column * bias_column];
                        w[row * channels * taps + column] = (T)value;
                    }
    }
}
