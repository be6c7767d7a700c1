/* Sums over vectors of lone work-items: included by norm_streams.cl and norm_rows.cl. What a whole
 * vector does not reach at the end of a run is read as one that overlaps the one before; sums then
 * take its new lanes only. A run has V elements at least. No kernel stands here. */

#include "alone.cl"

#define INLINE static inline __attribute__((always_inline))
#define GET(p) WIDEN(*(__global const stored *)(p))
#define PUT(p, v) (*(__global stored *)(p) = NARROW(v))

INLINE ACC add_up(const fetched v)
{
#if V == 16
    const JOIN(ACC, 8) h = v.lo + v.hi;
#elif V == 8
    const JOIN(ACC, 8) h = v;
#endif
#if V >= 8
    const JOIN(ACC, 4) q = h.lo + h.hi;
#elif V == 4
    const JOIN(ACC, 4) q = v;
#endif
#if V >= 4
    const JOIN(ACC, 2) p = q.lo + q.hi;
#else
    const JOIN(ACC, 2) p = v;
#endif
    return p.x + p.y;
}

/* 0, 1, 2 and so on. */
INLINE fetched lane_numbers(void)
{
    ACC lanes[V];
    for (int i = 0; i < V; ++i) lanes[i] = i;
    return *(const fetched *)lanes;
}

/* 1 for the lanes of the last vector of `length` elements that no whole vector before it has. */
INLINE fetched new_lanes(const int length)
{
    ACC lanes[V];
    for (int i = 0; i < V; ++i) lanes[i] = i >= V - length % V;
    return *(const fetched *)lanes;
}

#define ONLY(keep, v) ((keep) != 0 ? (v) : (fetched)0)
