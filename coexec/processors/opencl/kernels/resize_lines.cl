/* Linear and cubic resampling along one axis or two that lie side by side, by lone work-items.
 *
 * Layout: x (planes, in_h, in_w, inner), y (planes, out_h, out_w, inner). Each output of
 * an axis is a weighted sum of TAPS elements that follow each other (those that the filter repeats at a
 * border have the sum of their weights). Rows are resampled along in_w into a ring of TALL_TAPS rows,
 * each once, and added up from there; TALL 0: along in_w alone, WIDE 0: along in_h alone.
 * WALK 0: vectors along inner (inner >= V). 1: element by element of a row, by tables of first taps and
 * weights. 2, 3: inner is 1 and slope is 1/2 or 1/4, so that outputs 2 i and 2 i + 1 (or four of them)
 * read around x[i] with weights that are the same for all i of [low, high): V of these at once,
 * high - low >= V; all others as in WALK 1. With TALL, out_w * inner >= V.
 * Work-item i has an even share of the rows of y, and `table_size` ints and `slot` ACCs of scratch.
 * Geometry: one work-item per share, groups of one. */

#ifndef TALL
#define TALL 1 /* 1: resampled along in_h */
#endif
#ifndef WIDE
#define WIDE 1 /* 1: resampled along in_w */
#endif
#ifndef WALK
#define WALK 1 /* see above */
#endif
#ifndef TALL_REACH
#define TALL_REACH 1 /* elements that the filter along in_h takes in on either side */
#endif
#ifndef WIDE_REACH
#define WIDE_REACH 1 /* the same along in_w */
#endif
#ifndef TALL_TAPS
#define TALL_TAPS 2 /* elements that are added up: 2 TALL_REACH, at most in_h */
#endif
#ifndef WIDE_TAPS
#define WIDE_TAPS 2 /* the same along in_w */
#endif
#ifndef NORMALISE
#define NORMALISE 0 /* weights are divided by their sum (antialiasing, exclude_outside) */
#endif
#ifndef EXCLUDE
#define EXCLUDE 0 /* elements outside have weight 0 instead of repeating the border */
#endif
#ifndef MODE
#define MODE 1
#endif
#ifndef ACC
#define ACC float /* type of weights, sums and the ring */
#endif
#ifndef XT
#define XT ACC /* element type of x: ACC, or half */
#endif
#ifndef YT
#define YT ACC /* element type of y: ACC, or half */
#endif
#ifndef X_SAME
#define X_SAME 1 /* 1: XT is ACC */
#endif
#ifndef Y_SAME
#define Y_SAME 1 /* 1: YT is ACC */
#endif

#define T ACC
#define SAME 1
#include "alone.cl"
#include "column_pairs.cl"
#include "resize_weights.cl"

typedef JOIN(XT, V) x_lanes __attribute__((aligned(sizeof(XT))));
typedef JOIN(YT, V) y_lanes __attribute__((aligned(sizeof(YT))));
#define AS_(type) convert_##type
#define AS(type) AS_(type)
#if X_SAME
#define LOAD_X(p) (*(__global const x_lanes *)(p))
#else
#define LOAD_X(p) AS(JOIN(ACC, V))(*(__global const x_lanes *)(p))
#endif
#if Y_SAME
#define STORE_Y(p, v) (*(__global y_lanes *)(p) = (v))
#else
#define STORE_Y(p, v) (*(__global y_lanes *)(p) = AS(JOIN(YT, V))(v))
#endif
/* What rows are resampled along in_w into, and what is added up along in_h. */
#if TALL
#define WIDENED ACC
#else
#define WIDENED YT
#undef STORE
#define STORE STORE_Y
#endif
#if WIDE
#define ADDED ACC
#define LOAD_ADDED LOAD
#else
#define ADDED XT
#define LOAD_ADDED LOAD_X
#endif

#define INLINE static inline __attribute__((always_inline))
#define PERIOD (WALK == 3 ? 4 : 2)

#define LINE(name)                                                                              \
    const int name##_in, const int name##_out, const long name##_slope, const long name##_offset, \
        const long name##_snap, const float name##_scale
#define OF(name) name##_in, name##_out, name##_slope, name##_offset, name##_snap, name##_scale

/* First tap of output o and the weights of all `count`. */
INLINE int find_taps(const int o, LINE(axis), const int reach, const int count, const ACC a,
                     ACC *weights)
{
    const long place = place_of(o, axis_slope, axis_offset, axis_snap);
    const int base = (int)(place >> FRACTION);
    const ACC f = fraction_of(place);
    const int first = clamp(base + 1 - reach, 0, axis_in - count);
    ACC total = 0;
    for (int j = 0; j < count; ++j) weights[j] = 0;
    for (int k = 1 - reach; k <= reach; ++k) {
        if (EXCLUDE && (base + k < 0 || base + k >= axis_in)) continue;
        const ACC weight = weight_of((k - f) * (ACC)axis_scale, a);
        weights[clamp(base + k, 0, axis_in - 1) - first] += weight;
        total += weight;
    }
    if (NORMALISE && total != 0)
        for (int j = 0; j < count; ++j) weights[j] /= total;
    return first;
}

#if WIDE

#define STEP (WALK == 0 ? 1 : inner) /* entries of the tables for an output */

/* Tables of outputs [begin, end): place of the first tap in a row of x; weights (taps, size). */
INLINE void fill_tables(__global int *places, __global ACC *weights, const int size,
                        const int begin, const int end, LINE(w), const int inner, const ACC a)
{
    for (int o = begin; o < end; ++o) {
        ACC own[WIDE_TAPS];
        const int first = find_taps(o, OF(w), WIDE_REACH, WIDE_TAPS, a, own);
        for (int c = 0; c < STEP; ++c) {
            places[o * STEP + c] = first * inner + c;
            for (int k = 0; k < WIDE_TAPS; ++k) weights[k * size + o * STEP + c] = own[k];
        }
    }
}

#if WALK != 0
INLINE void widen_elements(__global const XT *from, __global WIDENED *to,
                           __global const int *places, __global const ACC *weights,
                           const int size, const int begin, const int end, const int inner)
{
    for (int i = begin; i < end; ++i) {
        __global const XT *at = from + places[i];
        ACC sum = weights[i] * (ACC)at[0];
        for (int k = 1; k < WIDE_TAPS; ++k) sum += weights[k * size + i] * (ACC)at[k * inner];
        to[i] = (WIDENED)sum;
    }
}
#endif

#if WALK >= 2
/* V outputs of one phase, whose first taps follow each other. */
INLINE fetched phase_of(__global const XT *at, const ACC *weights)
{
    fetched sum = weights[0] * LOAD_X(at);
    for (int k = 1; k < WIDE_TAPS; ++k) sum += weights[k] * LOAD_X(at + k);
    return sum;
}

INLINE void widen_phases(__global const XT *from, __global WIDENED *to,
                         __global const int *places, __global const ACC *weights, const int size,
                         const int low, const int high)
{
    ACC own[PERIOD][WIDE_TAPS];
    int shift[PERIOD];
    for (int r = 0; r < PERIOD; ++r) {
        shift[r] = places[PERIOD * low + r] - low;
        for (int k = 0; k < WIDE_TAPS; ++k) own[r][k] = weights[k * size + PERIOD * low + r];
    }
    for (int i = low;;) {
        const fetched p0 = phase_of(from + i + shift[0], own[0]);
        const fetched p1 = phase_of(from + i + shift[1], own[1]);
#if WALK == 2
        STORE_PAIRS(to + 2 * i, p0, p1)
#else
        const fetched p2 = phase_of(from + i + shift[2], own[2]);
        const fetched p3 = phase_of(from + i + shift[3], own[3]);
        fetched e0, e1, o0, o1;
        e0.even = p0.lo;
        e0.odd = p2.lo;
        e1.even = p0.hi;
        e1.odd = p2.hi;
        o0.even = p1.lo;
        o0.odd = p3.lo;
        o1.even = p1.hi;
        o1.odd = p3.hi;
        STORE_PAIRS(to + 4 * i, e0, o0)
        STORE_PAIRS(to + 4 * i + 2 * V, e1, o1)
#endif
        if (i == high - V) break;
        i = i + V < high - V ? i + V : high - V;
    }
}
#endif

/* A row of y from a row of x. */
INLINE void widen(__global const XT *from, __global WIDENED *to, __global const int *places,
                  __global const ACC *weights, const int size, const int out, const int inner,
                  const int low, const int high)
{
#if WALK == 0
    for (int o = 0; o < out; ++o) {
        ACC own[WIDE_TAPS];
        for (int k = 0; k < WIDE_TAPS; ++k) own[k] = weights[k * size + o];
        __global const XT *at = from + places[o];
        for (int c = 0;;) {
            fetched sum = own[0] * LOAD_X(at + c);
            for (int k = 1; k < WIDE_TAPS; ++k) sum += own[k] * LOAD_X(at + c + k * inner);
            STORE(to + o * inner + c, sum);
            if (c == inner - V) break;
            c = c + V < inner - V ? c + V : inner - V;
        }
    }
#elif WALK == 1
    widen_elements(from, to, places, weights, size, 0, out * inner, inner);
#else
    widen_elements(from, to, places, weights, size, 0, PERIOD * low, 1);
    widen_phases(from, to, places, weights, size, low, high);
    widen_elements(from, to, places, weights, size, PERIOD * high, out, 1);
#endif
}

#endif

__kernel ALONE void resize_lines(__global const XT *x, __global YT *y, __global int *tables,
                                 __global ACC *memory, const int planes, LINE(h), LINE(w),
                                 const int inner, const int low, const int high,
                                 const int table_size, const int slot, const float cubic_a)
{
    const int item = get_global_id(0), count = get_global_size(0);
    const int wide = w_in * inner, line = w_out * inner, rows = planes * h_out;
    const int end = (int)((long)rows * (item + 1) / count);
    __global int *places = tables + item * table_size;
    __global ACC *weights = memory + item * slot;
#if WIDE
#if WALK >= 2
    fill_tables(places, weights, table_size, 0, PERIOD * (low + 1), OF(w), inner, cubic_a);
    fill_tables(places, weights, table_size, PERIOD * high, w_out, OF(w), inner, cubic_a);
#else
    fill_tables(places, weights, table_size, 0, w_out, OF(w), inner, cubic_a);
#endif
#endif
#if TALL && WIDE
    __global ACC *ring = weights + WIDE_TAPS * table_size;
    int held[TALL_TAPS]; /* which row of x a row of the ring was made from */
    for (int k = 0; k < TALL_TAPS; ++k) held[k] = -1;
#endif
    for (int row = (int)((long)rows * item / count); row < end; ++row) {
        __global YT *to = y + row * line;
#if TALL
        ACC own[TALL_TAPS];
        __global const ADDED *taken[TALL_TAPS];
        const int first = find_taps(row % h_out, OF(h), TALL_REACH, TALL_TAPS, cubic_a, own);
        for (int k = 0; k < TALL_TAPS; ++k) {
            const int source = row / h_out * h_in + first + k;
#if WIDE
            const int place = (first + k) % TALL_TAPS;
            taken[k] = ring + place * line;
            if (held[place] == source) continue;
            held[place] = source;
            widen(x + source * wide, ring + place * line, places, weights, table_size, w_out,
                  inner, low, high);
#else
            taken[k] = x + source * line;
#endif
        }
        for (int i = 0;;) {
            fetched sum = own[0] * LOAD_ADDED(taken[0] + i);
            for (int k = 1; k < TALL_TAPS; ++k) sum += own[k] * LOAD_ADDED(taken[k] + i);
            STORE_Y(to + i, sum);
            if (i == line - V) break;
            i = i + V < line - V ? i + V : line - V;
        }
#else
        widen(x + row * wide, to, places, weights, table_size, w_out, inner, low, high);
#endif
    }
}
