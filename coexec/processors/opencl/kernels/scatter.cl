/* Placement by index: locate + scatter_rows (coexec::GatherGrad, ScatterND), scatter_lanes
 * (ScatterElements), tensor_scatter (TensorScatter).
 * Where an index occurs twice, updates apply in index order without atomics: every work-item owns
 * a segment of the targets, looks at all indices and applies those that fall into its segment.
 * Where the result is the first operand itself, nothing but updates is written.
 * An index out of range is left out (a kernel cannot raise).
 * Layout: contiguous tensors, collapsed as each kernel says. Geometry: see each kernel. */

#ifndef T
#define T float /* element type; a word of its width where nothing is computed */
#endif
#ifndef I
#define I long /* type of the indices */
#endif
#ifndef APPLY
#define APPLY(a, b) ((a) + (b)) /* the reduction: old value a, update b */
#endif
#ifndef FROM_ZERO
#define FROM_ZERO 0 /* scatter_rows: start from zero, not from data */
#endif
#ifndef WIDTH
#define WIDTH 16 /* neighbouring elements that a work-item takes at once */
#endif
#ifndef DEPTH
#define DEPTH 1 /* locate: coordinates per index, 0 to 8 */
#endif
#ifndef RANK
#define RANK 1 /* scatter_lanes: collapsed dimensions beside the axis but the last, 0 to 6 */
#endif

/* Index within [0, n), or -1. Compared in the index type, so that none is cut to int. */
inline int resolve(I index, const int n)
{
    if (index < 0) index += (I)n;
    return index >= 0 && index < (I)n ? (int)index : -1;
}

#define COORDINATE(k)                           \
    if (DEPTH > k) {                            \
        const int at = resolve(index[k], d##k); \
        inside = inside && at >= 0;             \
        row += at * s##k;                       \
    }
#define PAIR(k) const int d##k, const int s##k

/* rows[i]: target row of index i (of DEPTH coordinates), or -1. One work-item per index. */
__kernel void locate(__global const I *indices, __global int *rows, const int count, PAIR(0),
                     PAIR(1), PAIR(2), PAIR(3), PAIR(4), PAIR(5), PAIR(6), PAIR(7))
{
    const int i = get_global_id(0);
    if (i >= count) return;
    __global const I *index = indices + i * DEPTH;
    int row = 0;
    bool inside = true;
    COORDINATE(0) COORDINATE(1) COORDINATE(2) COORDINATE(3)
    COORDINATE(4) COORDINATE(5) COORDINATE(6) COORDINATE(7)
    rows[i] = inside ? row : -1;
}

/* y, data (outer, n, inner); updates (outer, count, inner); rows (count).
 * Geometry: (inner / span, segments of n, outer). */
__kernel void scatter_rows(__global const T *data, __global const int *rows,
                           __global const T *updates, __global T *y, const int inner,
                           const int count, const int n, const int segment, const int span)
{
    const int column = get_global_id(0) * span, width = min(span, inner - column);
    const int first = get_global_id(1) * segment, last = min(first + segment, n);
    const int outer = get_global_id(2);
    if (column >= inner || first >= n) return;
    __global T *to = y + outer * n * inner + column;
    __global const T *from = updates + outer * count * inner + column;
    if (FROM_ZERO || data != y)
        for (int r = first; r < last; ++r)
            for (int k = 0; k < width; ++k)
                to[r * inner + k] = FROM_ZERO ? (T)0 : data[(outer * n + r) * inner + column + k];
    for (int i = 0; i < count; ++i) {
        const int r = rows[i];
        if (r < first || r >= last) continue;
        __global T *t = to + r * inner;
        __global const T *u = from + i * inner;
        int k = 0;
        for (; k + WIDTH <= width; k += WIDTH) {
            /* All loads before all stores: a compiler cannot tell the two tensors apart. */
            T v[WIDTH];
            for (int w = 0; w < WIDTH; ++w) v[w] = APPLY(t[k + w], u[k + w]);
            for (int w = 0; w < WIDTH; ++w) t[k + w] = v[w];
        }
        for (; k < width; ++k) t[k] = APPLY(t[k], u[k]);
    }
}

/* Size in y, size in the indices, stride in y, stride in the indices of a dimension. */
#define AXIS(k) const int d##k, const int m##k, const int s##k, const int t##k
#define STEP(k)                            \
    if (RANK > k) {                        \
        const int rest = lane / d##k;      \
        const int at = lane - rest * d##k; \
        inside = inside && at < m##k;      \
        to += at * s##k;                   \
        from += at * t##k;                 \
        lane = rest;                       \
    }

/* Along the axis y has n elements at stride step, updates count at stride updates_step. A lane is
 * one position beside the axis: along the last such dimension (`lanes` in y, `lanes_within` in the
 * indices) a work-item has up to WIDTH, whose elements are neighbours in memory where the axis is
 * not the last one. Geometry: (lanes / WIDTH, segments of n, product of the other dimensions). */
__kernel void scatter_lanes(__global const T *data, __global const I *indices,
                            __global const T *updates, __global T *y, const int n, const int step,
                            const int count, const int updates_step, const int segment,
                            const int lanes, const int lanes_within, const int lane_step,
                            const int lane_updates_step, AXIS(0), AXIS(1), AXIS(2), AXIS(3),
                            AXIS(4), AXIS(5))
{
    const int column = get_global_id(0) * WIDTH;
    const int first = get_global_id(1) * segment, last = min(first + segment, n);
    if (column >= lanes || first >= n) return;
    int lane = get_global_id(2), to = column * lane_step, from = column * lane_updates_step;
    bool inside = true;
    STEP(5) STEP(4) STEP(3) STEP(2) STEP(1) STEP(0)
    const int width = min(WIDTH, lanes - column);
    if (data != y)
        for (int r = first; r < last; ++r)
            for (int k = 0; k < width; ++k)
                y[to + r * step + k * lane_step] = data[to + r * step + k * lane_step];
    const int within = inside ? min(WIDTH, lanes_within - column) : 0;
    for (int i = 0; i < count; ++i)
        for (int k = 0; k < within; ++k) {
            const int at = from + i * updates_step + k * lane_updates_step;
            const int r = resolve(indices[at], n);
            if (r < first || r >= last) continue;
            const int target = to + r * step + k * lane_step;
            y[target] = APPLY(y[target], updates[at]);
        }
}

/* y, cache (batch, heads, n, inner); update (batch, heads, count, inner); starts (batch), if any.
 * Geometry: (inner / span, segments of n, batch * heads). */
#ifndef STARTS
#define STARTS 1 /* tensor_scatter: whether there are starts (else all are zero) */
#endif
#ifndef CIRCULAR
#define CIRCULAR 0 /* tensor_scatter: whether positions wrap around */
#endif
__kernel void tensor_scatter(__global const T *cache, __global const T *update,
                             __global const I *starts, __global T *y, const int inner,
                             const int heads, const int n, const int count, const int segment,
                             const int span)
{
    const int column = get_global_id(0) * span, width = min(span, inner - column);
    const int first = get_global_id(1) * segment, last = min(first + segment, n);
    const int lane = get_global_id(2);
    if (column >= inner || first >= n) return;
    __global const T *from = cache + lane * n * inner + column;
    __global const T *fresh = update + lane * count * inner + column;
    __global T *to = y + lane * n * inner + column;
    if (from != to)
        for (int r = first; r < last; ++r)
            for (int k = 0; k < width; ++k) to[r * inner + k] = from[r * inner + k];
    const int start = STARTS ? (int)starts[lane / heads] : 0;
    for (int i = 0; i < count; ++i) {
        int r = start + i;
        if (CIRCULAR) {
            r %= n;
            r = r < 0 ? r + n : r;
        }
        if (r < first || r >= last) continue;
        for (int k = 0; k < width; ++k) to[r * inner + k] = fresh[i * inner + k];
    }
}
