/* Moves of elements whose meaning does not matter: Transpose, Slice, Concat, Split, Expand, Tile,
 * DepthToSpace, SpaceToDepth (copy, swap), Trilu and ReverseSequence.
 * Layout: any, given by dimensions and strides in elements; the last of RANK dimensions is the
 * innermost of the target. Geometry: copy (innermost dimension, product of all others);
 * swap (tiles of the source's innermost, tiles of the target's innermost, all other dimensions);
 * trilu, reverse: flat. All padded to the work-group size. */

#ifndef T
#define T uint /* a word as wide as an element (or as several, where runs allow) */
#endif
#ifndef RANK
#define RANK 3 /* dimensions of the move, 1 to 8 */
#endif
#ifndef T4
#define T4 uint4 /* swap: four of them (T itself is scalar there) */
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

__kernel void copy(__global const T *src, __global T *dst, const int src_offset,
                   const int dst_offset, const int n, const int src_step, const int dst_step,
                   const int rows, AXES)
{
    const int i = get_global_id(0);
    int outer = get_global_id(1);
    if (i >= n || outer >= rows) return;
    int from = src_offset, to = dst_offset;
    STEPS
    dst[to + i * dst_step] = src[from + i * src_step];
}

/* dst[b * dst_step + a] = src[a * src_step + b]: a work-item carries a tile of 4 x 4 elements
 * through registers, so that it reads and writes runs of 4 and a work-group whole lines. */
typedef T4 Run __attribute__((aligned(sizeof(T))));

__kernel void swap(__global const T *src, __global T *dst, const int src_offset,
                   const int dst_offset, const int na, const int nb, const int src_step,
                   const int dst_step, const int rows, AXES)
{
    const int b = get_global_id(0) * 4, a = get_global_id(1) * 4;
    int outer = get_global_id(2);
    if (a >= na || b >= nb || outer >= rows) return;
    int from = src_offset + a * src_step + b, to = dst_offset + b * dst_step + a;
    STEPS
    __global const T *s = src + from;
    __global T *t = dst + to;
    if (a + 4 <= na && b + 4 <= nb) {
        const T4 r0 = *(__global const Run *)s;
        const T4 r1 = *(__global const Run *)(s + src_step);
        const T4 r2 = *(__global const Run *)(s + 2 * src_step);
        const T4 r3 = *(__global const Run *)(s + 3 * src_step);
        *(__global Run *)t = (T4)(r0.x, r1.x, r2.x, r3.x);
        *(__global Run *)(t + dst_step) = (T4)(r0.y, r1.y, r2.y, r3.y);
        *(__global Run *)(t + 2 * dst_step) = (T4)(r0.z, r1.z, r2.z, r3.z);
        *(__global Run *)(t + 3 * dst_step) = (T4)(r0.w, r1.w, r2.w, r3.w);
        return;
    }
    const int ea = min(4, na - a), eb = min(4, nb - b);
    for (int i = 0; i < eb; ++i)
        for (int j = 0; j < ea; ++j) t[i * dst_step + j] = s[j * src_step + i];
}

__kernel void trilu(__global const T *x, __global T *y, const int size, const int rows,
                    const int columns, const int k)
{
    const int i = get_global_id(0);
    if (i >= size) return;
    const int row = i / columns % rows, above = i % columns - row;
    y[i] = (UPPER ? above >= k : above <= k) ? x[i] : (T)0;
}

/* x and y are (first, second, inner); the time dimension is the first where time_first is set and
 * the second otherwise; the other one is the batch, which has a length for each entry. */
__kernel void reverse(__global const T *x, __global const L *lengths, __global T *y,
                      const int size, const int inner, const int first, const int second,
                      const int time_first)
{
    const int i = get_global_id(0);
    if (i >= size) return;
    const int p = i / inner / second, q = i / inner % second;
    const int time = time_first ? p : q, batch = time_first ? q : p;
    const int length = (int)lengths[batch];
    const int source = time < length ? length - 1 - time : time;
    const int step = time_first ? second * inner : inner;
    y[i] = x[i + (source - time) * step];
}
