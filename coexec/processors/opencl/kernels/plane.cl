/* Planes of tensors on padded grids in scratch, included by depthwise*.cl and pool_rows.cl. No
 * kernel stands here.
 *
 * A row of a grid has `sheets` parts of `sheet` elements: part r holds the padded columns whose
 * remainder modulo `sheets` is r, so that columns which a stride reads stand side by side. Margins
 * keep the value that grids are filled with once: only what lies within the plane is ever written. */

#include "alone.cl"

typedef fetched vec;

/* min and max are calls on some runtimes, before which vectors leave their registers. */
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define MOST(a, b) ((a) > (b) ? (a) : (b))
#define INLINE static inline __attribute__((always_inline))

/* Tasks are divided evenly among work-items, in order. */
#define SHARE(slot, count) ((int)((long)tasks * (slot) / (count)))

#if V > 4
typedef JOIN(T, 4) stored4 __attribute__((aligned(sizeof(T))));
typedef JOIN(ACC, 4) fetched4 __attribute__((aligned(sizeof(ACC))));
#if SAME
#define WIDEN4(v) (v)
#else
#define WIDEN4(v) CONVERT(JOIN(ACC, 4))(v)
#endif
#endif

INLINE void fill(__global ACC *to, const int count, const ACC value)
{
    for (int i = 0; i < count; ++i) to[i] = value;
}

/* A run of elements in vectors of N; the last one overlaps its neighbour, so that no more than the
 * run is read or written. */
#define COPY_RUN(N, IN, OUT, GROW)                                                                 \
    {                                                                                              \
        for (int i = 0; i < n - N; i += N) *(__global OUT *)(to + i) = GROW(*(__global const IN *)(from + i)); \
        *(__global OUT *)(to + n - N) = GROW(*(__global const IN *)(from + n - N));                \
        return;                                                                                    \
    }

INLINE void copy_run(__global ACC *to, __global const T *from, const int n)
{
    if (n >= V) COPY_RUN(V, stored, vec, WIDEN)
#if V > 4
    if (n >= 4) COPY_RUN(4, stored4, fetched4, WIDEN4)
#endif
    for (int i = 0; i < n; ++i) to[i] = (ACC)from[i];
}

/* Elements of even place to one run, those of odd place to another. */
#define DEAL_PAIR(N, IN, OUT, GROW, at)                                                            \
    {                                                                                              \
        const OUT a = GROW(*(__global const IN *)(from + 2 * (at)));                               \
        const OUT b = GROW(*(__global const IN *)(from + 2 * (at) + N));                           \
        *(__global OUT *)(even + (at)) = (OUT)(a.even, b.even);                                    \
        *(__global OUT *)(odd + (at)) = (OUT)(a.odd, b.odd);                                       \
    }
#define DEAL_RUN(N, IN, OUT, GROW)                                                                 \
    {                                                                                              \
        for (int i = 0; i < pairs - N; i += N) DEAL_PAIR(N, IN, OUT, GROW, i)                      \
        DEAL_PAIR(N, IN, OUT, GROW, pairs - N)                                                     \
        if (n % 2) even[pairs] = (ACC)from[n - 1];                                                 \
        return;                                                                                    \
    }

INLINE void deal_run(__global ACC *even, __global ACC *odd, __global const T *from, const int n)
{
    const int pairs = n / 2;
    if (pairs >= V) DEAL_RUN(V, stored, vec, WIDEN)
#if V > 4
    if (pairs >= 4) DEAL_RUN(4, stored4, fetched4, WIDEN4)
#endif
    for (int i = 0; i < pairs; ++i) {
        even[i] = (ACC)from[2 * i];
        odd[i] = (ACC)from[2 * i + 1];
    }
    if (n % 2) even[pairs] = (ACC)from[n - 1];
}

/* Rows first .. first + rows of a plane of (i1, i2) elements to a grid, with a margin of `pad`
 * on their left (or, if it is negative, without so many columns). Rows outside of the plane are
 * filled with `margin`, if the grid may hold other rows there (`again`). */
INLINE void spread(__global ACC *grid, __global const T *plane, const int i1, const int i2,
                   const int sheets, const int first, const int rows, const int pad,
                   const int sheet, const int again, const ACC margin)
{
    const int pitch = sheets * sheet, skip = MOST(0, -pad);
    const int count = MOST(LEAST(i2, pitch - pad) - skip, 0), start = skip + pad;
    for (int row = 0; row < rows; ++row) {
        __global ACC *to = grid + row * pitch;
        __global const T *from = plane + (first + row) * i2 + skip;
        if (first + row < 0 || first + row >= i1) {
            if (again) fill(to, pitch, margin);
        } else if (sheets == 1)
            copy_run(to + start, from, count);
        else if (sheets == 2)
            deal_run(to + start % 2 * sheet + start / 2,
                     to + (start + 1) % 2 * sheet + (start + 1) / 2, from, count);
        else
            for (int i = 0; i < count; ++i)
                to[(start + i) % sheets * sheet + (start + i) / sheets] = (ACC)from[i];
    }
}

/* Stores the first `room` lanes only; what lies beyond them belongs to another work-item. */
INLINE void put(__global T *to, const vec v, const int room)
{
    if (room >= V)
        *(__global stored *)to = NARROW(v);
    else {
        ACC lanes[V];
        *(vec *)lanes = v;
        for (int i = 0; i < room; ++i) to[i] = (T)lanes[i];
    }
}
