/* Softmax, LogSoftmax and their gradients along the innermost axis, for GPUs.
 * Layout: outer x length, dense. y may be the storage of x, dx that of dy or y.
 * Geometry: work-groups of LANES x LINES items; LANES of them share a line, so that neighbouring
 * items read and write neighbours. A line is read three times (from caches, as a rule) and written
 * once; the gradient reads its operands twice. Every sum has a fixed order. */

#ifndef T
#define T float /* element type */
#endif
#ifndef C
#define C float /* type to compute in: float for half, T else */
#endif
#ifndef KIND
#define KIND 0 /* 0 Softmax, 1 LogSoftmax */
#endif
#ifndef LANES
#define LANES 32 /* work-items of a line, a power of two */
#endif
#ifndef LINES
#define LINES 2 /* lines of a work-group */
#endif

#define W 1
#include "vectors.cl"
#include "exponential.cl"

#define COLLECTIVE static __attribute__((always_inline))
#define PLUS(a, b) ((a) + (b))
#define LARGER(a, b) ((a) < (b) ? (b) : (a))

/* `value` of all lanes of a line, joined and known to each of them. */
#define JOINED(NAME, JOIN_OF)                                                      \
    COLLECTIVE C NAME(C value, __local C *line, const int lane)                    \
    {                                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                              \
        line[lane] = value;                                                        \
        for (int half_lanes = LANES / 2; half_lanes > 0; half_lanes /= 2) {        \
            barrier(CLK_LOCAL_MEM_FENCE);                                          \
            if (lane < half_lanes) {                                               \
                const C other = line[lane + half_lanes];                           \
                value = JOIN_OF(value, other);                                     \
                line[lane] = value;                                                \
            }                                                                      \
        }                                                                          \
        barrier(CLK_LOCAL_MEM_FENCE);                                              \
        return line[0];                                                            \
    }
JOINED(sum_of_line, PLUS)
JOINED(top_of_line, LARGER)

/* Items behind the last line take part in all barriers and touch nothing. */
#define EACH(i) for (int i = lane; i < count; i += LANES)

__kernel __attribute__((reqd_work_group_size(LANES, LINES, 1))) void groups(
    __global const T *x, __global T *y, const int outer, const int length)
{
    __local C partial[LINES * LANES];
    const int lane = get_local_id(0), o = get_global_id(1);
    __local C *line = partial + get_local_id(1) * LANES;
    const int count = o < outer ? length : 0, start = o < outer ? o * length : 0;
    x += start;
    y += start;
    C top = (C)-INFINITY;
    EACH(i) {
        const C v = (C)x[i];
        top = LARGER(top, v);
    }
    top = top_of_line(top, line, lane);
    C sum = 0;
    EACH(i) sum += EXP_FALLING(C, (C)x[i] - top);
    sum = sum_of_line(sum, line, lane);
#if KIND == 0
    const C scale = (C)1 / sum;
    EACH(i) y[i] = (T)(EXP_FALLING(C, (C)x[i] - top) * scale);
#else
    const C shift = log(sum);
    EACH(i) y[i] = (T)((C)x[i] - top - shift);
#endif
}

__kernel __attribute__((reqd_work_group_size(LANES, LINES, 1))) void grad_groups(
    __global const T *dy, __global const T *y, __global T *dx, const int outer, const int length)
{
    __local C partial[LINES * LANES];
    const int lane = get_local_id(0), o = get_global_id(1);
    __local C *line = partial + get_local_id(1) * LANES;
    const int count = o < outer ? length : 0, start = o < outer ? o * length : 0;
    dy += start;
    y += start;
    dx += start;
    C sum = 0;
#if KIND == 0
    EACH(i) sum += (C)dy[i] * (C)y[i];
    sum = sum_of_line(sum, line, lane);
    EACH(i) {
        const C v = (C)y[i];
        dx[i] = (T)(v * ((C)dy[i] - sum));
    }
#else
    EACH(i) sum += (C)dy[i];
    sum = sum_of_line(sum, line, lane);
    EACH(i) {
        const C v = (C)y[i];
        dx[i] = (T)((C)dy[i] - EXP(C, v) * sum);
    }
#endif
}
