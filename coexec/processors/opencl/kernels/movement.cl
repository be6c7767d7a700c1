/* Moves of elements whose meaning does not matter: Transpose, Slice, Concat, Split, Expand, Tile,
 * DepthToSpace, SpaceToDepth (copy, copy_narrow, swap), Trilu and ReverseSequence.
 * Layout: any, given by dimensions and strides in elements; the last dimension is the innermost of
 * the target. A work-item moves SPAN neighbours, so that addresses are computed once for all.
 * Geometry: copy (innermost dimension / SPAN, product of all others); copy_narrow (the one before
 * it / SPAN, product of all others); swap (tiles of the source's innermost, tiles of the target's
 * innermost, all other dimensions); trilu and reverse (innermost / SPAN, product of all others).
 * All padded to the work-group size. */

#ifndef T
#define T uint /* a word as wide as an element (or as several, where runs allow) */
#endif
#ifndef RANK
#define RANK 3 /* dimensions of the move, 1 to 8 */
#endif
#ifndef SPAN
#define SPAN 16 /* elements of a work-item */
#endif
#ifndef SRC_STEP
#define SRC_STEP src_step /* copy: source stride of the innermost dimension, where it is fixed */
#endif
#ifndef DST_STEP
#define DST_STEP dst_step /* copy: target stride of it */
#endif
#ifndef NARROW
#define NARROW 3 /* copy_narrow: size of the innermost dimension */
#endif
#ifndef TILE
#define TILE 16 /* swap: rows and columns of the tile that a work-group carries */
#endif
#ifndef UPPER
#define UPPER 1 /* trilu: keep the upper triangle (else the lower one) */
#endif
#ifndef L
#define L long /* type of sequence lengths */
#endif

/* One (size, source stride, target stride) triple for each outer dimension; those that a move of
 * RANK dimensions does not have are never read. */
#define AXIS(k) const int d##k, const int s##k, const int t##k
#define AXES AXIS(0), AXIS(1), AXIS(2), AXIS(3), AXIS(4), AXIS(5), AXIS(6)

/* Takes one coordinate off the flat index of the outer dimensions, innermost first. */
#define STEP(k)                             \
    if (RANK > k + 1) {                     \
        const int rest = outer / d##k;      \
        const int at = outer - rest * d##k; \
        from += at * s##k;                  \
        to += at * t##k;                    \
        outer = rest;                       \
    }
#define STEPS STEP(6) STEP(5) STEP(4) STEP(3) STEP(2) STEP(1) STEP(0)

/* Does `body` for each k of a span that starts at `first` of `n`; whole spans can be unrolled. */
#define FOR_SPAN(first, n, body)                                  \
    if ((first) + SPAN <= (n)) {                                  \
        for (int k = 0; k < SPAN; ++k) body;                      \
    } else {                                                      \
        const int count = (n) - (first);                          \
        for (int k = 0; k < count; ++k) body;                     \
    }

__kernel void copy(__global const T *restrict src, __global T *restrict dst, const int src_offset,
                   const int dst_offset, const int n, const int src_step, const int dst_step,
                   const int rows, AXES)
{
    const int i = get_global_id(0) * SPAN;
    int outer = get_global_id(1);
    if (i >= n || outer >= rows) return;
    int from = src_offset + i * SRC_STEP, to = dst_offset + i * DST_STEP;
    STEPS
    __global const T *restrict s = src + from;
    __global T *restrict t = dst + to;
    FOR_SPAN(i, n, t[k * DST_STEP] = s[k * SRC_STEP])
}

/* The innermost dimension has NARROW elements only; the span runs along the one before it. */
__kernel void copy_narrow(__global const T *restrict src, __global T *restrict dst,
                          const int src_offset, const int dst_offset, const int n,
                          const int src_step, const int dst_step, const int rows,
                          const int src_narrow, const int dst_narrow, AXES)
{
    const int i = get_global_id(0) * SPAN;
    int outer = get_global_id(1);
    if (i >= n || outer >= rows) return;
    int from = src_offset + i * SRC_STEP, to = dst_offset + i * DST_STEP;
    STEPS
    __global const T *restrict s = src + from;
    __global T *restrict t = dst + to;
    FOR_SPAN(i, n,
             for (int j = 0; j < NARROW; ++j)
                 t[k * DST_STEP + j * dst_narrow] = s[k * SRC_STEP + j * src_narrow])
}

/* dst[b * dst_step + a] = src[a * src_step + b]: a work-group of TILE x TILE carries a tile through
 * local memory, so that both sides run along their own lines. */
__kernel __attribute__((reqd_work_group_size(TILE, TILE, 1)))
void swap(__global const T *restrict src, __global T *restrict dst, const int src_offset,
          const int dst_offset, const int na, const int nb, const int src_step,
          const int dst_step, AXES)
{
    __local T tile[TILE][TILE + 1];
    const int x = get_local_id(0), y = get_local_id(1);
    const int a = get_group_id(1) * TILE, b = get_group_id(0) * TILE;
    int outer = get_global_id(2), from = src_offset, to = dst_offset;
    STEPS
    if (a + y < na && b + x < nb) tile[y][x] = src[from + (a + y) * src_step + b + x];
    barrier(CLK_LOCAL_MEM_FENCE);
    if (b + y < nb && a + x < na) dst[to + (b + y) * dst_step + a + x] = tile[x][y];
}

/* x and y are (matrices, rows, columns); `all` counts the rows of all matrices. */
__kernel void trilu(__global const T *restrict x, __global T *restrict y, const int columns,
                    const int rows, const int all, const int diagonal)
{
    const int i = get_global_id(0) * SPAN, row = get_global_id(1);
    if (i >= columns || row >= all) return;
    const int border = row % rows + diagonal - i;
    __global const T *restrict s = x + row * columns + i;
    __global T *restrict t = y + row * columns + i;
    FOR_SPAN(i, columns, t[k] = (UPPER ? k >= border : k <= border) ? s[k] : (T)0)
}

/* x and y are (first, second, inner); the time dimension is the first where time_first is set and
 * the second otherwise; the other one is the batch, which has a length for each entry. */
__kernel void reverse(__global const T *restrict x, __global const L *lengths,
                      __global T *restrict y, const int inner, const int first, const int second,
                      const int time_first)
{
    const int i = get_global_id(0) * SPAN, row = get_global_id(1);
    if (i >= inner || row >= first * second) return;
    const int p = row / second, q = row % second;
    const int time = time_first ? p : q, length = (int)lengths[time_first ? q : p];
    const int source = time < length ? length - 1 - time : time;
    __global const T *restrict s =
        x + (row + (source - time) * (time_first ? second : 1)) * inner + i;
    __global T *restrict t = y + row * inner + i;
    FOR_SPAN(i, inner, t[k] = s[k])
}
