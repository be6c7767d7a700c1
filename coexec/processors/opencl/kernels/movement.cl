/* Moves of elements whose meaning does not matter: Transpose, Slice, Concat, Split, Expand, Tile,
 * DepthToSpace, SpaceToDepth (copy, copy_narrow, swap), Trilu and ReverseSequence.
 * Layout: any, given by dimensions and strides in elements; the last dimension is the innermost of
 * the target. A work-item moves SPAN neighbours, so that addresses are computed once for all.
 * Geometry: copy (innermost dimension / SPAN, product of all others); copy_narrow (the one before
 * it / SPAN, product of all others); swap (source's innermost / BLOCK, target's innermost / BLOCK,
 * all other dimensions); trilu and reverse (innermost / SPAN, product of all others).
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
#ifndef T4
#define T4 uint4 /* swap: four words (T itself is scalar there) */
#endif
#ifndef BLOCK
#define BLOCK 32 /* swap: rows and columns of a work-item, a multiple of 4 */
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

/* dst[b * dst_step + a] = src[a * src_step + b]: a work-item carries a block in tiles of 4 x 4
 * through registers, so that reads and writes are runs of 4 and lines are finished soon. */
typedef T4 Run __attribute__((aligned(sizeof(T))));

__kernel void swap(__global const T *restrict src, __global T *restrict dst, const int src_offset,
                   const int dst_offset, const int na, const int nb, const int src_step,
                   const int dst_step, AXES)
{
    const int b0 = get_global_id(0) * BLOCK, a0 = get_global_id(1) * BLOCK;
    if (a0 >= na || b0 >= nb) return;
    int outer = get_global_id(2), from = src_offset, to = dst_offset;
    STEPS
    const int a1 = min(a0 + BLOCK, na), b1 = min(b0 + BLOCK, nb);
    for (int b = b0; b < b1; b += 4)
        for (int a = a0; a < a1; a += 4) {
            __global const T *s = src + from + a * src_step + b;
            __global T *t = dst + to + b * dst_step + a;
            if (a + 4 > a1 || b + 4 > b1) {
                for (int i = 0; i < min(4, b1 - b); ++i)
                    for (int j = 0; j < min(4, a1 - a); ++j)
                        t[i * dst_step + j] = s[j * src_step + i];
                continue;
            }
            const T4 r0 = *(__global const Run *)s;
            const T4 r1 = *(__global const Run *)(s + src_step);
            const T4 r2 = *(__global const Run *)(s + 2 * src_step);
            const T4 r3 = *(__global const Run *)(s + 3 * src_step);
            *(__global Run *)t = (T4)(r0.x, r1.x, r2.x, r3.x);
            *(__global Run *)(t + dst_step) = (T4)(r0.y, r1.y, r2.y, r3.y);
            *(__global Run *)(t + 2 * dst_step) = (T4)(r0.z, r1.z, r2.z, r3.z);
            *(__global Run *)(t + 3 * dst_step) = (T4)(r0.w, r1.w, r2.w, r3.w);
        }
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
