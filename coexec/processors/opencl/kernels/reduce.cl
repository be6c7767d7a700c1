/* Reductions of a dense tensor, and positions of extremes.
 *
 * rows, columns: x is k0 x r0 x k1 x r1, reduced over r0 and r1; result (or partial result of
 *          segment s) o = a * k1 + b lies at y[s * k0 * k1 + o].
 * rows:    the inner axis r1 is reduced. Geometry: (segments, outputs); segment s = (s0, s1) takes
 *          `part` rows of r0 and, of each row, the W-vectors from s1 * first in steps of `step` up
 *          to (s1 + 1) * span; the last s1 also takes the rest of the row. Chunks or interleaved
 *          vectors are both a choice of (first, step, span).
 * columns: r1 = 1. Geometry: (k1 / W, k0, segments); consecutive items lie along k1; segment s
 *          takes `part` of r0.
 * strided: any kept and reduced dimensions, four each, by strides. One work-item per output.
 * groups:  r1 is reduced, too; a work-group of LANES x ROWS items has a line of LANES for each of
 *          ROWS outputs, so that neighbouring items read neighbours (GPUs). Only where LANES.
 * arg:     x is outer x length x inner; y[o, i] = position of the extreme. One item per output.
 *
 * Every sum has a fixed order: results do not depend on timing. */

#ifndef T
#define T float /* element type of x */
#endif
#ifndef U
#define U float /* element type of y */
#endif
#ifndef ACC
#define ACC float /* type of partial results: float for half, T else */
#endif
#ifndef W
#define W 16 /* elements of a vector: 1, 2, 4, 8 or 16 */
#endif
#ifndef INIT
#define INIT 0 /* result of nothing */
#endif
#ifndef MAP
#define MAP(V, x) (x) /* what is reduced, of x of type V: ACC or a vector of it */
#endif
#ifndef COMBINE
#define COMBINE(V, a, b) ((a) + (b))
#endif
#ifndef FINISH
#define FINISH(V, a) (a) /* result of a; may use count, and shift where SHIFTED */
#endif
#ifndef BETTER
#define BETTER(a, b) ((a) > (b)) /* arg: whether a replaces b */
#endif
/* WIDEN: defined where ACC is not T.  ROUND: defined where U is not ACC.
 * SHIFTED: defined where MAP and FINISH use `shift`, one value per output (log-sum-exp). */

#include "vectors.cl"

typedef VEC(T) TV __attribute__((aligned(sizeof(T))));
typedef VEC(U) UV __attribute__((aligned(sizeof(U))));
typedef VEC(ACC) AV __attribute__((aligned(sizeof(ACC))));
#define HINT __attribute__((vec_type_hint(VEC(ACC))))

#ifdef WIDEN
#define LOAD(v) CONVERT(ACC, v)
#else
#define LOAD(v) (v)
#endif
#ifdef ROUND
#define STORE(v) CONVERT(U, v)
#else
#define STORE(v) (v)
#endif

/* An infinite maximum cannot be subtracted: infinity - infinity is NaN. */
#define USABLE(V, m) (((m) == (V)INFINITY) | ((m) == (V)(-INFINITY)) ? (V)0 : (m))

static inline ACC combine_all(const VEC(ACC) v)
{
#if W == 1
    return v;
#else
#if W == 16
    const CAT(ACC, 8) h = COMBINE(CAT(ACC, 8), v.lo, v.hi);
#elif W == 8
    const CAT(ACC, 8) h = v;
#endif
#if W >= 8
    const CAT(ACC, 4) q = COMBINE(CAT(ACC, 4), h.lo, h.hi);
#elif W == 4
    const CAT(ACC, 4) q = v;
#endif
#if W >= 4
    const CAT(ACC, 2) p = COMBINE(CAT(ACC, 2), q.lo, q.hi);
#else
    const CAT(ACC, 2) p = v;
#endif
    return COMBINE(ACC, p.x, p.y);
#endif
}

__kernel HINT void rows(__global const T *x, __global const ACC *shifts, __global U *y,
                        const int outputs, const int k1, const int r0, const int r1,
                        const int segments, const int inner_segments,
                        const int part, const int first, const int step, const int span,
                        const ACC count)
{
    const int s = get_global_id(0);
    const int o = get_global_id(1);
    if (s >= segments || o >= outputs) return;
    const int s0 = s / inner_segments;
    const int s1 = s % inner_segments;
    const int last_row = min(r0, (s0 + 1) * part);
    const int full = r1 - r1 % W;
    const int end = min(full, (s1 + 1) * span);
#ifdef SHIFTED
    const ACC shift1 = USABLE(ACC, shifts[o]);
#endif
    VEC(ACC) total = (VEC(ACC))(ACC)INIT;
    ACC rest = (ACC)INIT;
    for (int r = s0 * part; r < last_row; r++) {
        __global const T *row = x + (((o / k1) * r0 + r) * k1 + o % k1) * r1;
        {
#ifdef SHIFTED
            const VEC(ACC) shift = (VEC(ACC))shift1;
#endif
            for (int i = s1 * first; i < end; i += step) {
                const VEC(ACC) v = LOAD(*(__global const TV *)(row + i));
                total = COMBINE(VEC(ACC), total, MAP(VEC(ACC), v));
            }
        }
        if (s1 == inner_segments - 1) {
#ifdef SHIFTED
            const ACC shift = shift1;
#endif
            for (int i = full; i < r1; i++) {
                const ACC v = (ACC)row[i];
                rest = COMBINE(ACC, rest, MAP(ACC, v));
            }
        }
    }
#ifdef SHIFTED
    const ACC shift = shift1;
#endif
    const ACC all = combine_all(total);
    const ACC result = COMBINE(ACC, all, rest);
    y[s * outputs + o] = (U)FINISH(ACC, result);
}

__kernel HINT void columns(__global const T *x, __global const ACC *shifts, __global U *y,
                           const int k0, const int r0, const int k1, const int part,
                           const ACC count)
{
    const int start = (int)get_global_id(0) * W;
    const int a = get_global_id(1);
    const int s = get_global_id(2);
    if (start >= k1 || a >= k0) return;
    const int from = s * part;
    const int to = min(r0, from + part);
    x += a * r0 * k1;
    y += (s * k0 + a) * k1;
    if (start + W <= k1) {
#ifdef SHIFTED
        const VEC(ACC) top = *(__global const AV *)(shifts + a * k1 + start);
        const VEC(ACC) shift = USABLE(VEC(ACC), top);
#endif
        VEC(ACC) total = (VEC(ACC))(ACC)INIT;
        for (int r = from; r < to; r++) {
            const VEC(ACC) v = LOAD(*(__global const TV *)(x + r * k1 + start));
            total = COMBINE(VEC(ACC), total, MAP(VEC(ACC), v));
        }
        *(__global UV *)(y + start) = STORE(FINISH(VEC(ACC), total));
        return;
    }
    for (int i = start; i < k1; i++) {
#ifdef SHIFTED
        const ACC shift = USABLE(ACC, shifts[a * k1 + i]);
#endif
        ACC total = (ACC)INIT;
        for (int r = from; r < to; r++) {
            const ACC v = (ACC)x[r * k1 + i];
            total = COMBINE(ACC, total, MAP(ACC, v));
        }
        y[i] = (U)FINISH(ACC, total);
    }
}

#ifdef LANES
__kernel __attribute__((reqd_work_group_size(LANES, ROWS, 1))) void groups(
    __global const T *x, __global const ACC *shifts, __global U *y, const int outputs,
    const int k1, const int r0, const int r1, const ACC count)
{
    __local ACC partial[ROWS * LANES];
    const int lane = get_local_id(0), o = get_global_id(1);
    const int item = get_local_id(1) * LANES + lane;
    ACC total = (ACC)INIT;
#ifdef SHIFTED
    const ACC shift = o < outputs ? USABLE(ACC, shifts[o]) : (ACC)0;
#endif
    if (o < outputs) {
        for (int r = 0; r < r0; r++) {
            __global const T *row = x + (((o / k1) * r0 + r) * k1 + o % k1) * r1;
            for (int i = lane; i < r1; i += LANES) {
                const ACC v = (ACC)row[i];
                total = COMBINE(ACC, total, MAP(ACC, v));
            }
        }
    }
    partial[item] = total;
    for (int half_lanes = LANES / 2; half_lanes > 0; half_lanes /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lane < half_lanes) {
            const ACC other = partial[item + half_lanes];
            total = COMBINE(ACC, total, other);
            partial[item] = total;
        }
    }
    if (lane == 0 && o < outputs) y[o] = (U)FINISH(ACC, total);
}
#endif

#define SPLIT(d, s) at += (rest % d) * s; rest /= d;

__kernel void strided(__global const T *x, __global const ACC *shifts, __global U *y,
                      const int outputs,
                      const int d0, const int d1, const int d2, const int d3,
                      const int s0, const int s1, const int s2, const int s3,
                      const int e0, const int e1, const int e2, const int e3,
                      const int t0, const int t1, const int t2, const int t3, const ACC count)
{
    const int o = get_global_id(0);
    if (o >= outputs) return;
    int rest = o, at = 0;
    SPLIT(d3, s3)
    SPLIT(d2, s2)
    SPLIT(d1, s1)
    SPLIT(d0, s0)
#ifdef SHIFTED
    const ACC shift = USABLE(ACC, shifts[o]);
#endif
    ACC total = (ACC)INIT;
    for (int i = 0; i < e0; i++)
        for (int j = 0; j < e1; j++)
            for (int k = 0; k < e2; k++)
                for (int l = 0; l < e3; l++) {
                    const ACC v = (ACC)x[at + i * t0 + j * t1 + k * t2 + l * t3];
                    total = COMBINE(ACC, total, MAP(ACC, v));
                }
    y[o] = (U)FINISH(ACC, total);
}

__kernel void arg(__global const T *x, __global long *y, const int outputs, const int inner,
                  const int length)
{
    const int o = get_global_id(0);
    if (o >= outputs) return;
    __global const T *line = x + (o / inner) * length * inner + o % inner;
    T best = line[0];
    int found = 0;
    for (int i = 1; i < length; i++) {
        const T v = line[i * inner];
        if (BETTER(v, best)) {
            best = v;
            found = i;
        }
    }
    y[o] = found;
}
