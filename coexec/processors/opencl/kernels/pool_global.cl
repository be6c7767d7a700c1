/* Averages and maxima of whole planes. Layout: x (planes, size), y (planes). Made for CPUs.
 * Geometry: one work-item per share of the planes (divided evenly, in order), groups of one. */

#ifndef MAXIMUM
#define MAXIMUM 0 /* 1: maxima, 0: averages */
#endif

#include "alone.cl"

typedef fetched vec;

#define LOAD(p) WIDEN(*(__global const stored *)(p))
#define FASTEN static inline __attribute__((always_inline))
#if MAXIMUM
/* A NaN is never lost. */
#define MERGE(a, b) ((a) > (b) || (a) != (a) ? (a) : (b))
#define MERGE_LANES(a, b) ((((a) > (b)) | ((a) != (a))) ? (a) : (b))
#else
#define MERGE(a, b) ((a) + (b))
#define MERGE_LANES(a, b) ((a) + (b))
#endif

/* Folds halves: a fixed order that takes few steps. */
FASTEN ACC fold2(const JOIN(ACC, 2) v) { return MERGE(v.x, v.y); }
#if V >= 4
FASTEN ACC fold4(const JOIN(ACC, 4) v) { return fold2(MERGE_LANES(v.lo, v.hi)); }
#endif
#if V >= 8
FASTEN ACC fold8(const JOIN(ACC, 8) v) { return fold4(MERGE_LANES(v.lo, v.hi)); }
#endif
#if V >= 16
FASTEN ACC fold16(const JOIN(ACC, 16) v) { return fold8(MERGE_LANES(v.lo, v.hi)); }
#endif

__kernel ALONE void pool_global(__global const T *x, __global T *y, const int planes,
                                const int size)
{
    const int item = get_global_id(0), count = get_global_size(0);
    const int end = (int)((long)planes * (item + 1) / count);
    for (int plane = (int)((long)planes * item / count); plane < end; ++plane) {
        __global const T *from = x + plane * size;
        ACC joined = (ACC)from[0];
        int i = 1;
        if (size >= V) {
            /* Four chains hide the latency of joining. */
            vec a = LOAD(from);
            i = V;
            if (size >= 4 * V) {
                vec b = LOAD(from + V), c = LOAD(from + 2 * V), d = LOAD(from + 3 * V);
                for (i = 4 * V; i + 4 * V <= size; i += 4 * V) {
                    const vec e = LOAD(from + i), f = LOAD(from + i + V);
                    const vec g = LOAD(from + i + 2 * V), h = LOAD(from + i + 3 * V);
                    a = MERGE_LANES(e, a);
                    b = MERGE_LANES(f, b);
                    c = MERGE_LANES(g, c);
                    d = MERGE_LANES(h, d);
                }
                b = MERGE_LANES(c, b);
                a = MERGE_LANES(d, a);
                a = MERGE_LANES(b, a);
            }
            for (; i + V <= size; i += V) {
                const vec e = LOAD(from + i);
                a = MERGE_LANES(e, a);
            }
            joined = JOIN(fold, V)(a);
        }
        for (; i < size; ++i) {
            const ACC v = (ACC)from[i];
            joined = MERGE(v, joined);
        }
        y[plane] = (T)(MAXIMUM ? joined : joined / (ACC)size);
    }
}
