/* Resampling along one axis, y = M x with M given by a coordinate line and a filter, and its
 * transpose for gradients (as a gather: every element of dx is written once).
 *
 * Layout: x (outer, in_size, inner), y (outer, out_size, inner), row-major. Output o samples x at
 * slope * o + offset; both are fixed-point numbers with FRACTION fractional bits, so that places
 * halfway between elements are decided exactly alike on every device (no double precision needed);
 * `snap` is the distance within which a place counts as a multiple of 1/2.
 * Geometry: (out_size * inner, outer) for resample, (in_size * inner, outer) for resample_grad. */

#ifndef TX
#define TX float /* element type of what is read */
#endif
#ifndef TY
#define TY float /* element type of what is written */
#endif
#ifndef ROUND
#define ROUND 0 /* nearest: 0 half down, 1 half up, 2 floor, 3 ceil */
#endif
#ifndef REACH
#define REACH 1 /* linear, cubic: elements that the filter takes in on either side */
#endif
#ifndef NORMALISE
#define NORMALISE 0 /* weights are divided by their sum (antialiasing, exclude_outside) */
#endif
#ifndef EXCLUDE
#define EXCLUDE 0 /* elements outside have weight 0 instead of repeating the border */
#endif
#ifndef CROP
#define CROP 0 /* places outside of [0, in_size - 1] give `extrapolation` */
#endif

#include "resize_weights.cl"

static int is_outside(const long x, const int in_size)
{
    return CROP && (x < 0 || x > ((long)(in_size - 1) << FRACTION));
}

static int nearest_of(const long x)
{
#if ROUND == 0
    return -(int)((HALF_ONE - x) >> FRACTION);
#elif ROUND == 1
    return (int)((x + HALF_ONE) >> FRACTION);
#elif ROUND == 2
    return (int)(x >> FRACTION);
#else
    return -(int)(-x >> FRACTION);
#endif
}

/* Sum of all weights around a place with the fraction f, the element below it being `base`. */
static ACC total_of(const int base, const ACC f, const int in_size, const ACC scale, const ACC a)
{
#if NORMALISE
    ACC total = 0;
    for (int k = 1 - REACH; k <= REACH; ++k) {
        if (EXCLUDE && (base + k < 0 || base + k >= in_size)) continue;
        total += weight_of((k - f) * scale, a);
    }
    return total == 0 ? 1 : total;
#else
    return 1;
#endif
}

#define LINE                                                                                    \
    const int in_size, const int out_size, const int inner, const int outer, const long slope,  \
        const long offset, const long snap, const float filter_scale, const float cubic_a,      \
        const float extrapolation

__kernel void resample(__global const TX *x, __global TY *y, LINE)
{
    const int item = get_global_id(0), row = get_global_id(1);
    if (item >= out_size * inner || row >= outer) return;
    const int i = item % inner;
    const long place = place_of(item / inner, slope, offset, snap);
    const int to = row * out_size * inner + item;
    __global const TX *from = x + row * in_size * inner + i;
    if (is_outside(place, in_size)) {
        y[to] = (TY)extrapolation;
        return;
    }
#if MODE == 0
    y[to] = (TY)from[clamp(nearest_of(place), 0, in_size - 1) * inner];
#else
    const int base = (int)(place >> FRACTION);
    const ACC f = fraction_of(place), scale = filter_scale, a = cubic_a;
    ACC sum = 0;
    for (int k = 1 - REACH; k <= REACH; ++k) {
        if (EXCLUDE && (base + k < 0 || base + k >= in_size)) continue;
        sum += weight_of((k - f) * scale, a) * (ACC)from[clamp(base + k, 0, in_size - 1) * inner];
    }
    y[to] = (TY)(sum / total_of(base, f, in_size, scale, a));
#endif
}

/* What output o takes from element e of x. */
static ACC share_of(
    const int o, const int e, const int in_size, const long slope, const long offset,
    const long snap, const ACC scale, const ACC a)
{
    const long place = place_of(o, slope, offset, snap);
    if (is_outside(place, in_size)) return 0;
#if MODE == 0
    return clamp(nearest_of(place), 0, in_size - 1) == e;
#else
    const int base = (int)(place >> FRACTION);
    const ACC f = fraction_of(place);
    ACC share = 0;
    for (int k = 1 - REACH; k <= REACH; ++k) {
        if (EXCLUDE && (base + k < 0 || base + k >= in_size)) continue;
        if (clamp(base + k, 0, in_size - 1) == e) share += weight_of((k - f) * scale, a);
    }
    return share / total_of(base, f, in_size, scale, a);
#endif
}

__kernel void resample_grad(__global const TX *dy, __global TY *dx, LINE)
{
    const int item = get_global_id(0), row = get_global_id(1);
    if (item >= in_size * inner || row >= outer) return;
    const int e = item / inner;
    __global const TX *from = dy + row * out_size * inner + item % inner;
    /* Outputs that can reach e: places within REACH + 1, all beyond for a border element (which
     * repeats outwards), all at all on a line that does not rise. */
    int first = 0, last = out_size - 1;
    if (slope > 0) {
        const float rise = (float)slope, start = (float)offset, unit = (float)ONE;
        if (e > 0) {
            const float low = ((e - REACH - 1) * unit - start) / rise;
            first = (int)clamp(low - 1, 0.0f, (float)last);
        }
        if (e < in_size - 1) {
            const float high = ((e + REACH + 1) * unit - start) / rise;
            last = (int)clamp(high + 2, 0.0f, (float)last);
        }
    }
    ACC sum = 0;
    for (int o = first; o <= last; ++o) {
        const ACC share =
            share_of(o, e, in_size, slope, offset, snap, (ACC)filter_scale, (ACC)cubic_a);
        if (share != 0) sum += share * (ACC)from[o * inner];
    }
    dx[row * in_size * inner + item] = (TY)sum;
}
