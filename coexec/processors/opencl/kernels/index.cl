/* Look-ups by index: gather (Gather), gather_elements (GatherElements), gather_nd (GatherND).
 * Indices count from the back where negative; one out of range reads zero (a kernel cannot raise).
 * Layout: contiguous tensors, collapsed as each kernel says; T is a word that only moves.
 * Geometry: (innermost dimension, product of the others), padded to the work-group size. */

#ifndef T
#define T uint /* a word as wide as an element (or as several, where runs allow) */
#endif
#ifndef I
#define I long /* type of the indices */
#endif
#ifndef RANK
#define RANK 2 /* gather_elements: dimensions of the collapsed indices, 1 to 8 */
#endif
#ifndef DEPTH
#define DEPTH 2 /* gather_nd: coordinates per index, 0 to 8 */
#endif

/* Index within [0, n), or -1. Compared in the index type, so that none is cut to int. */
inline int resolve(I index, const int n)
{
    if (index < 0) index += (I)n;
    return index >= 0 && index < (I)n ? (int)index : -1;
}

/* y (outer, count, inner) = x (outer, n, inner) at indices (count). */
__kernel void gather(__global const T *x, __global const I *indices, __global T *y,
                     const int inner, const int count, const int n, const int rows)
{
    const int i = get_global_id(0), row = get_global_id(1);
    if (i >= inner || row >= rows) return;
    const int outer = row / count;
    const int at = resolve(indices[row - outer * count], n);
    y[row * inner + i] = at < 0 ? (T)0 : x[(outer * n + at) * inner + i];
}

/* (size, stride in x) of each outer dimension of the indices; unused ones are never read. */
#define AXIS(k) const int d##k, const int s##k
#define STEP(k)                                    \
    if (RANK > k + 1) {                            \
        const int rest = outer / d##k;             \
        from += (outer - rest * d##k) * s##k;      \
        outer = rest;                              \
    }

/* y and indices share a shape; `step` is the stride of the axis in x and `n` its size there. */
__kernel void gather_elements(__global const T *x, __global const I *indices, __global T *y,
                              const int width, const int width_step, const int rows, const int n,
                              const int step, AXIS(0), AXIS(1), AXIS(2), AXIS(3), AXIS(4), AXIS(5),
                              AXIS(6))
{
    const int i = get_global_id(0);
    int outer = get_global_id(1);
    if (i >= width || outer >= rows) return;
    const int to = outer * width + i;
    int from = i * width_step;
    STEP(6) STEP(5) STEP(4) STEP(3) STEP(2) STEP(1) STEP(0)
    const int at = resolve(indices[to], n);
    y[to] = at < 0 ? (T)0 : x[from + at * step];
}

#define COORDINATE(k)                                   \
    if (DEPTH > k) {                                    \
        const int at = resolve(index[k], d##k);         \
        inside = inside && at >= 0;                     \
        from += at * s##k;                              \
    }

/* y (rows, inner); x (batches, d0, d1, .., inner); indices (rows, DEPTH); rows_per_batch rows
 * belong to one batch of x; strides count words. */
__kernel void gather_nd(__global const T *x, __global const I *indices, __global T *y,
                        const int inner, const int rows, const int rows_per_batch,
                        const int batch_step, AXIS(0), AXIS(1), AXIS(2), AXIS(3), AXIS(4), AXIS(5),
                        AXIS(6), AXIS(7))
{
    const int i = get_global_id(0), row = get_global_id(1);
    if (i >= inner || row >= rows) return;
    __global const I *index = indices + row * DEPTH;
    int from = row / rows_per_batch * batch_step + i;
    bool inside = true;
    COORDINATE(0) COORDINATE(1) COORDINATE(2) COORDINATE(3)
    COORDINATE(4) COORDINATE(5) COORDINATE(6) COORDINATE(7)
    y[row * inner + i] = inside ? x[from] : (T)0;
}
