/* Convolutions and their inputs' gradients on GPUs: products whose right operand is never stored.
 *
 * y[m, column] = bias[m] + sum over terms k of w[m, k] * x[k, column]: m is a channel of the
 * result, a column one of its positions in any image, k a channel of x and a tap; outside, x is 0.
 * Layout: x (images, groups * channels, i0, i1, i2), y (images, groups * rows, o0, o1, o2),
 * weight (m, channel, tap) of a group at m * a_row + channel * a_channel + tap.
 * BACK 0: position o reads o * s - p + t * d. BACK 1: from a gradient to what it is of; positions
 * congruent modulo the stride (a phase) read the same taps, those `e` apart from the first, from
 * neighbouring places: nothing is multiplied by zeros put in between. A phase that no tap reaches
 * is the bias alone.
 *
 * Geometry: groups of WX x WY items (conv_tile.cl); numbers of groups: tiles of columns, tiles of
 * rows, groups of channels times parts of the sum times phases. With PARTS the sum is cut into
 * parts of `span` terms that conv_sum.cl adds up: few results alone do not occupy a GPU.
 * STAGED 1: a step of TK terms is brought to local memory. Neighbouring items read neighbouring
 * positions of x (vectors of 4 with FLAT), and terms of w that follow each other. What a tap means
 * for addresses is in a table in local memory; an item keeps the place of its column.
 * From memory an element of x is read once for TM rows, one of w once for TN columns: with 32 x 64
 * a step reads 96 * TK floats for 4096 * TK flop, 10.7 flop per byte; with 64 x 64, 16.
 * Local memory: TK * (TM + TN + 4) sums and 20 bytes per tap, 7 KiB with 32 x 64 and 32 taps.
 * STAGED 0: nothing is brought anywhere, for GPUs whose local memory is plain memory and for few
 * rows: items read 4 positions (one vector where those lie in a run) and RM weights for each term,
 * 5 to 8 reads for 16 multiplications with RM 4; all but the first find them in cache. `span`
 * counts channels then. Neither depends on the size of sub-groups. */

#ifndef STAGED
#define STAGED 1 /* 1: steps of the sum in local memory */
#endif
#ifndef BACK
#define BACK 0 /* 1: x is read by phases of the stride */
#endif
#ifndef FLAT
#define FLAT 0 /* 1: one tap, x is read where y is written, rows are whole vectors */
#endif
#ifndef ALIGNED
#define ALIGNED 0 /* 1: four columns from a multiple of 4 on are one vector of y */
#endif
#ifndef PARTS
#define PARTS 0 /* 1: y is parts of sums */
#endif
#ifndef ROOM
#define ROOM 32 /* taps at most */
#endif

#include "conv_tile.cl"

#if PARTS
#define R ACC
#define WHOLE_R vec
#define OF_SUMS(v) (v)
#else
#define R T
#define WHOLE_R whole
#define OF_SUMS(v) NARROW(v)
#endif
#if FLAT
#define RUN whole
#else
#define RUN stored
#endif

/* One axis of a phase: `size` positions of y, first, first + apart...; the i-th of them reads
 * i * stride - pad + j * dilation through tap `tap` + j * e. */
typedef struct {
    int size, first, apart, stride, pad, dilation, tap, taps;
} axis;

/* Phase `first` of an axis with `i` positions, `k` taps, stride s, padding p, dilation d. */
static inline axis phase_axis(const int first, const int i, const int k, const int s, const int p,
                              const int d, const int e)
{
    axis found;
    found.size = (i - first + s - 1) / s;
    found.first = first;
    found.apart = s;
    found.stride = 1;
    found.tap = 0;
    while (found.tap < k && (first + p - found.tap * d) % s != 0) ++found.tap;
    found.taps = (k - found.tap + e - 1) / e;
    found.pad = -((first + p - found.tap * d) / s);
    found.dilation = -(e * d / s);
    return found;
}

static inline axis whole_axis(const int o, const int k, const int s, const int p, const int d)
{
    axis found;
    found.size = o;
    found.first = 0;
    found.apart = 1;
    found.stride = s;
    found.tap = 0;
    found.taps = k;
    found.pad = p;
    found.dilation = d;
    return found;
}

#if BACK
#define AXIS(n, first) phase_axis(first, o##n, k##n, s##n, p##n, d##n, e##n)
#else
#define AXIS(n, first) whole_axis(o##n, k##n, s##n, p##n, d##n)
#endif

/* Where column `column` lies: its image and its positions along the axes of the phase. */
#define FIND_COLUMN(column)                                                                        \
    const int q2 = (column) % a2.size, q1 = (column) / a2.size % a1.size;                          \
    const int q0 = (column) / (a2.size * a1.size) % a0.size;                                       \
    const int image = (column) / (a2.size * a1.size * a0.size)

#define INSIDE(z, n) ((uint)(z) < (uint)(n))

/* Four columns of row i, from registers to y. Each store has all of its condition: behind a common
 * one PoCL 3.0 stores what it should not. */
#define LEAVE(i)                                                                                   \
    {                                                                                              \
        const int at = base + (row + i) * y_row, channel = group * rows + min(row + i, rows - 1);  \
        const vec sum = c##i + (has_bias ? (ACC)bias[channel] : (ACC)0);                           \
        LEAVE_ROW(i)                                                                               \
    }
#if ALIGNED
#define LEAVE_ROW(i)                                                                               \
    if (row + i < rows && place.s0 >= 0)                                                           \
        *(__global WHOLE_R *)(y + at + place.s0) = OF_SUMS(FINISH(sum, at + place.s0));
#else
#define LEAVE_ROW(i) LEAVE_ONE(i, s0) LEAVE_ONE(i, s1) LEAVE_ONE(i, s2) LEAVE_ONE(i, s3)
#define LEAVE_ONE(i, lane)                                                                         \
    if (row + i < rows && place.lane >= 0)                                                         \
        y[at + place.lane] = (R)FINISH_ONE(sum.lane, at + place.lane);
#endif

__kernel GROUP_OF_ITEMS void conv_tiled(
    __global const T *x, __global const T *w, __global const T *bias, __global R *y,
    const int has_bias, const int rows, const int channels, const int images, const int groups,
    const int parts, const int span, const int part_size, const int a_group, const int a_row,
    const int a_channel, const int i0, const int i1, const int i2, const int o0, const int o1,
    const int o2, const int k0, const int k1, const int k2, const int s0, const int s1,
    const int s2, const int p0, const int p1, const int p2, const int d0, const int d1,
    const int d2, const int e0, const int e1, const int e2 FINISH_PARAMETERS)
{
    const int lx = get_local_id(0), ly = get_local_id(1), id = ly * WX + lx;
    const int group = get_group_id(2) % groups, part = get_group_id(2) / groups % parts;
#if BACK
    const int phase = get_group_id(2) / groups / parts;
    const int n2 = min(s2, o2), n1 = min(s1, o1);
    const axis a0 = AXIS(0, phase / n2 / n1), a1 = AXIS(1, phase / n2 % n1);
    const axis a2 = AXIS(2, phase % n2);
#else
    const axis a0 = AXIS(0, 0), a1 = AXIS(1, 0), a2 = AXIS(2, 0);
#endif
    const int columns = images * a0.size * a1.size * a2.size;
    if ((int)get_group_id(0) * TN >= columns) return; /* all items of the group, before barriers */
    const int x_plane = i0 * i1 * i2, y_row = o0 * o1 * o2;
    const int taps = a0.taps * a1.taps * a2.taps, line = a1.taps * a2.taps;
    const int first_row = get_group_id(1) * TM, first_column = get_group_id(0) * TN;
    const int x_group = group * channels * x_plane, x_image = groups * channels * x_plane;
    w += group * a_group;
    ROWS(DECLARE)

#define TAP_OF(t)                                                                                  \
    const int t0 = (t) / max(line, 1), t1 = (t) / max(a2.taps, 1) % max(a1.taps, 1);               \
    const int t2 = (t) % max(a2.taps, 1);                                                          \
    const int y0 = t0 * a0.dilation, y1 = t1 * a1.dilation, y2 = t2 * a2.dilation;                 \
    const int weight = ((a0.tap + t0 * e0) * k1 + a1.tap + t1 * e1) * k2 + a2.tap + t2 * e2

#if STAGED
    LOCAL_LEFT;
    __local vec right[TK * WX];
#if !FLAT
    __local int4 reach[ROOM]; /* of a tap: its place in a plane of x, and along the axes */
    __local int in_weights[ROOM];
    for (int t = id; t < taps; t += ITEMS) {
        TAP_OF(t);
        reach[t] = (int4)((y0 * i1 + y1) * i2 + y2, y0, y1, y2);
        in_weights[t] = weight;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
#endif
    const int depth = channels * taps, begin = part * span, end = min(begin + span, depth);
    const int some = max(taps, 1);
    /* Terms of w that this item brings: lk of each step, of every ITEMS / TK-th row. */
    const int lk = id % TK, whole_steps = TK / some, more_taps = TK % some;
    int w_channel = (begin + lk) / some, w_tap = (begin + lk) % some;
#if FLAT
    const int column = first_column + 4 * lx, image = column / y_row;
    __global const T *from = x + (image * x_image + x_group + column - image * y_row);
#else
    /* This item brings one column: terms lr, lr + ITEMS / TN... of each step. */
    const int lc = id % TN, lr = id / TN, column = first_column + lc;
    FIND_COLUMN(column);
    const int z0 = q0 * a0.stride - a0.pad, z1 = q1 * a1.stride - a1.pad;
    const int z2 = q2 * a2.stride - a2.pad;
    const int from = image * x_image + x_group + (z0 * i1 + z1) * i2 + z2;
    int channel = (begin + lr) / some, tap = (begin + lr) % some;
#endif
    for (int k = begin; k < end; k += TK) {
        for (int m = id / TK; m < TM; m += ITEMS / TK) {
            ACC value = 0;
            if (k + lk < end && first_row + m < rows)
#if FLAT
                value = (ACC)w[(first_row + m) * a_row + (k + lk) * a_channel];
#else
                value = (ACC)w[(first_row + m) * a_row + w_channel * a_channel + in_weights[w_tap]];
#endif
            LEFT_AT(lk, m) = value;
        }
#if FLAT
        for (int r = ly; r < TK; r += WY) {
            vec value = 0;
            if (k + r < end && column < columns)
                value = WIDEN(*(__global const whole *)(from + (k + r) * x_plane));
            right[r * WX + lx] = value;
        }
#else
        for (int r = lr; r < TK; r += ITEMS / TN) {
            ACC value = 0;
            if (k + r < end && column < columns) {
                const int4 at = reach[tap];
                if (INSIDE(z0 + at.y, i0) && INSIDE(z1 + at.z, i1) && INSIDE(z2 + at.w, i2))
                    value = (ACC)x[from + channel * x_plane + at.x];
            }
            ((__local ACC *)right)[r * TN + lc] = value;
            tap += ITEMS / TN;
            while (tap >= some) tap -= some, ++channel;
        }
        w_channel += whole_steps;
        w_tap += more_taps;
        if (w_tap >= some) w_tap -= some, ++w_channel;
#endif
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 4
        for (int r = 0; r < TK; ++r)
            ADD_TERM(left + r * (TERM_OF_LEFT / 4) + ly * (RM / 4), right[r * WX + lx])
        barrier(CLK_LOCAL_MEM_FENCE);
    }
#else
#define POINT(i) const int w##i = min(first_row + ly * RM + i, rows - 1) * a_row;
#define ELEMENT(lane) (inside.lane ? (ACC)px[at.lane] : (ACC)0)
#define MULTIPLY(i) c##i += (ACC)pw[w##i] * value;
    const int begin = part * span, end = min(begin + span, channels);
    const int column = first_column + 4 * lx;
    const int4 most = columns - 1, each = min((int4)(0, 1, 2, 3) + column, most);
    const int4 q2 = each % a2.size, q1 = each / a2.size % a1.size;
    const int4 q0 = each / (a2.size * a1.size) % a0.size;
    const int4 image = each / (a2.size * a1.size * a0.size);
    const int4 z0 = q0 * a0.stride - a0.pad, z1 = q1 * a1.stride - a1.pad;
    const int4 z2 = q2 * a2.stride - a2.pad;
    const int4 from = image * x_image + x_group + (z0 * i1 + z1) * i2 + z2;
    ROWS(POINT)
    for (int t = 0; t < taps; ++t) {
        TAP_OF(t);
        const int4 inside = (z0 + y0 >= 0) & (z0 + y0 < i0) & (z1 + y1 >= 0) & (z1 + y1 < i1) &
                            (z2 + y2 >= 0) & (z2 + y2 < i2);
        const int4 at = from + ((y0 * i1 + y1) * i2 + y2);
        __global const T *pw = w + begin * a_channel + weight;
        if (all(inside) && at.s3 == at.s0 + 3 && at.s2 == at.s0 + 2 && at.s1 == at.s0 + 1) {
            __global const T *px = x + at.s0 + begin * x_plane;
            for (int c = begin; c < end; ++c, px += x_plane, pw += a_channel) {
                const vec value = WIDEN(*(__global const RUN *)px);
                ROWS(MULTIPLY)
            }
        } else if (any(inside)) {
            for (int c = begin; c < end; ++c, pw += a_channel) {
                __global const T *px = x + c * x_plane;
                const vec value = (vec)(ELEMENT(s0), ELEMENT(s1), ELEMENT(s2), ELEMENT(s3));
                ROWS(MULTIPLY)
            }
        }
    }
#endif
    int4 place;
    const int4 own = (int4)(0, 1, 2, 3) + (first_column + 4 * lx);
    {
        const int4 r2 = own % a2.size, r1 = own / a2.size % a1.size;
        const int4 r0 = own / (a2.size * a1.size) % a0.size;
        const int4 number = own / (a2.size * a1.size * a0.size);
        place = ((r0 * a0.apart + a0.first) * o1 + r1 * a1.apart + a1.first) * o2 +
                r2 * a2.apart + a2.first + number * groups * rows * y_row;
        place = own < columns ? place : (int4)(-1);
    }
    const int row = first_row + ly * RM, base = group * rows * y_row;
#if PARTS
    y += (size_t)part * part_size;
#endif
    ROWS(LEAVE)
}
