/* Strided moves whose innermost dimension is a run: consecutive in the target, and in the source
 * either consecutive (copied) or one element (repeated). Made for CPUs.
 * Layout: any, given by dimensions and strides in elements; see movement.cl.
 * A work-item has a share of all runs, or of parts of them where they are few and long, in order, and
 * counts through their coordinates, so that addresses cost additions only.
 * Geometry: one work-item per share, work-groups of one. */

#ifndef T
#define T uint /* a word as wide as an element */
#endif
#ifndef V
#define V 8 /* elements of a vector */
#endif
#ifndef RANK
#define RANK 3 /* dimensions of the move, 1 to 8 */
#endif
#ifndef REPEAT
#define REPEAT 0 /* 1: a run of the target is one element of the source */
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef JOIN(T, V) vec __attribute__((aligned(sizeof(T))));
typedef JOIN(T, 4) vec4 __attribute__((aligned(sizeof(T))));

/* One (size, source stride, target stride) triple for each outer dimension; those that a move of
 * RANK dimensions does not have are never read. */
#define AXIS(k) const int d##k, const int s##k, const int t##k
#define AXES AXIS(0), AXIS(1), AXIS(2), AXIS(3), AXIS(4), AXIS(5), AXIS(6)

/* Coordinate k of the first run. */
#define START(k)                                                                                   \
    int c##k = 0;                                                                                  \
    if (RANK > k + 1) {                                                                            \
        c##k = rest % d##k;                                                                        \
        rest /= d##k;                                                                              \
        from += c##k * s##k;                                                                       \
        to += c##k * t##k;                                                                         \
    }
/* On to the next run along axis k, or (else) back to the start of the axis and on along the next. */
#define STEP(k)                                                                                    \
    if (RANK > k + 1) {                                                                            \
        from += s##k;                                                                              \
        to += t##k;                                                                                \
        if (++c##k < d##k) continue;                                                               \
        from -= d##k * s##k;                                                                       \
        to -= d##k * t##k;                                                                         \
        c##k = 0;                                                                                  \
    }

/* The last vector of a run overlaps its neighbour. */
#if REPEAT
#define VALUE(type, i) ((type)(*s))
#else
#define VALUE(type, i) (*(__global const type *)(s + (i)))
#endif
#define COPY(type, lanes)                                                                          \
    {                                                                                              \
        for (int i = 0; i < count - lanes; i += lanes)                                             \
            *(__global type *)(t + i) = VALUE(type, i);                                            \
        *(__global type *)(t + count - lanes) = VALUE(type, count - lanes);                        \
    }

__kernel __attribute__((reqd_work_group_size(1, 1, 1), vec_type_hint(JOIN(T, V)))) void runs(
    __global const T *src, __global T *dst, const int src_offset, const int dst_offset, const int n,
    const int rows, const int parts, const int part, AXES)
{
    const int item = get_global_id(0), items = get_global_size(0);
    const int tasks = rows * parts, end = (int)((long)tasks * (item + 1) / items);
    const int begin = (int)((long)tasks * item / items);
    int from = src_offset, to = dst_offset, rest = begin / parts, p = begin % parts;
    START(6) START(5) START(4) START(3) START(2) START(1) START(0)
    for (int task = begin; task < end; ++task) {
        const int first = p * part, count = n - first < part ? n - first : part;
        __global const T *s = src + from + (REPEAT ? 0 : first);
        __global T *t = dst + to + first;
        if (count >= V) COPY(vec, V)
        else if (count >= 4) COPY(vec4, 4)
        else
            for (int i = 0; i < count; ++i) t[i] = s[REPEAT ? 0 : i];
        if (++p < parts) continue;
        p = 0;
        STEP(6) STEP(5) STEP(4) STEP(3) STEP(2) STEP(1) STEP(0)
    }
}
