/* Borders around or between elements: window (Pad, CenterCropPad, SliceGrad).
 * Layout: contiguous x and y, collapsed to RANK dimensions. Along each, output element o reads
 * element `at` of the source, by MODE: 0 at = o - before where it lies in [0, n), else `value`;
 * 1 reflect; 2 edge; 3 wrap (of o - before into [0, n)); 4 at = (o - before) / step where that is
 * whole and in [0, n), else zero.
 * Geometry: (innermost dimension / SPAN, product of the others), padded to the work-group size. */

#ifndef T
#define T uint /* a word as wide as an element */
#endif
#ifndef RANK
#define RANK 3 /* dimensions, 1 to 8 */
#endif
#ifndef SPAN
#define SPAN 16 /* neighbouring elements of a work-item, so that rows are located once for all */
#endif
#ifndef MODE
#define MODE 0 /* see above */
#endif
#ifndef VECTORS
#define VECTORS 0 /* 1: spans are copied as vectors, where compilers make none of short words */
#endif
#ifndef HAS_VALUE
#define HAS_VALUE 0 /* whether `value` holds the border's element; else it is zero */
#endif

#if VECTORS
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef JOIN(T, SPAN) words __attribute__((aligned(sizeof(T))));
#define COPY_SPAN(to, from) *(__global words *)(to) = *(__global const words *)(from)
#else
#define COPY_SPAN(to, from) for (int k = 0; k < SPAN; ++k) (to)[k] = (from)[k]
#endif

inline int place(const int o, const int n, const int before, const int step)
{
    int at = o - before;
    if (MODE == 0) return at >= 0 && at < n ? at : -1;
    if (MODE == 4) {
        const int k = at / step;
        return k * step == at && k >= 0 && k < n ? k : -1;
    }
    if (MODE == 2) return clamp(at, 0, n - 1);
    /* A reflection repeats after 2 * (n - 1) elements, a wrap after n. */
    const int period = MODE == 1 ? max(2 * (n - 1), 1) : n;
    at %= period;
    at = at < 0 ? at + period : at;
    return at < n ? at : period - at;
}

/* size of y, size of x, border before, stride of x, step (MODE 4 only) along a dimension. */
#define AXIS(k) const int d##k, const int n##k, const int b##k, const int s##k, const int p##k
#define STEP(k)                                                 \
    if (RANK > k + 1) {                                         \
        const int rest = outer / d##k;                          \
        const int at = place(outer - rest * d##k, n##k, b##k, p##k); \
        inside = inside && at >= 0;                             \
        from += at * s##k;                                      \
        outer = rest;                                           \
    }

__kernel void window(__global const T *x, __global const T *value, __global T *y,
                     const int offset, const int rows, const int width, const int n,
                     const int before, const int step, AXIS(0), AXIS(1), AXIS(2), AXIS(3),
                     AXIS(4), AXIS(5), AXIS(6))
{
    const int i = get_global_id(0) * SPAN, row = get_global_id(1);
    if (i >= width || row >= rows) return;
    int outer = row, from = offset;
    bool inside = true;
    STEP(6) STEP(5) STEP(4) STEP(3) STEP(2) STEP(1) STEP(0)
    const T border = HAS_VALUE ? value[0] : (T)0;
    __global const T *restrict s = x + from;
    __global T *restrict t = y + row * width + i;
    const int last = min(SPAN, width - i);
    if (!inside) {
        for (int k = 0; k < last; ++k) t[k] = border;
    } else if (i >= before && i + SPAN <= before + n && MODE != 4) {
        /* All of the span lies in the source. */
        COPY_SPAN(t, s + i - before);
    } else {
        for (int k = 0; k < last; ++k) {
            const int at = place(i + k, n, before, step);
            t[k] = at < 0 ? border : s[at];
        }
    }
}
