/* The gradient of weights as sums of outer products: W[lane, row] = alpha * sum over positions of
 * y[lane, position] * B[row, position] + beta * bias; with one tap and one image also the product
 * of a matrix with a transposed matrix. Element (lane, row) of W lies at lane * w_lane + row *
 * w_row, that of bias at lane * bias_lane + row * bias_row.
 *
 * Positions (image, o0, o1, o2) are walked through LENGTH at a time. A panel of y is turned there
 * so that vectors run along its rows, [position][NR]; B (rows: channels and taps) is read where x
 * lies (type ACC), one element at a time, each multiplied with the NR elements of its position. No sum ever
 * crosses lanes, and nothing is gathered:
 * PASSES 1: a pass for each tap, over the positions where that tap lies inside x; tiles of MR
 *   channels. What padding adds costs nothing.
 * PASSES 0: tiles of MR rows (channel, tap); x has no padding, or was copied with it (widen).
 *
 * A task is a part of the positions, blocks of NR rows of y, and channels; it keeps its sums,
 * [block of y][row][NR], in `panels`. Where positions are divided (`splits`), its sums go to
 * `parts`, and `finish` adds those of all parts, in order.
 * An operand may be there as blocks of codes: outer_codes.cl.
 * Geometry: outer: one work-item per slot, work-groups of one; tasks are divided evenly, in order.
 * finish: (blocks of y of all groups, blocks of SPAN rows). widen: one per line of padded x. */

#include "alone.cl"

#ifndef MR
#define MR 6 /* rows of a register tile: 4, 6, 8 or 12 */
#endif
#ifndef NV
#define NV 2 /* vectors in a row of a register tile: 2 or 3 */
#endif
#ifndef LENGTH
#define LENGTH 256 /* positions in a panel */
#endif
#ifndef PASSES
#define PASSES 1 /* 1: one pass per tap; 0: taps are rows */
#endif
#ifndef STEP
#define STEP 0 /* the kernel of this program. 0: outer; 1: finish; 2: widen */
#endif
#ifndef SPAN
#define SPAN 64 /* rows that a work-item of finish adds */
#endif
#define NR (NV * V)

typedef JOIN(ACC, V) vec;
/* min is a call on some runtimes. */
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
/* vloadn is a call on some runtimes. */
#define LOAD(p) WIDEN(*(__global const stored *)(p))
#define STORE(p, v) (*(__global stored *)(p) = NARROW(v))

#define ROWS_4(F) F(0) F(1) F(2) F(3)
#define ROWS_6(F) ROWS_4(F) F(4) F(5)
#define ROWS_8(F) ROWS_6(F) F(6) F(7)
#define ROWS_12(F) ROWS_8(F) F(8) F(9) F(10) F(11)
#define ROWS(F) JOIN(ROWS_, MR)(F)
#define VECTORS_2(F, i) F(i, 0) F(i, 1)
#define VECTORS_3(F, i) F(i, 0) F(i, 1) F(i, 2)
#define VECTORS(F, i) JOIN(VECTORS_, NV)(F, i)

#define ZERO_ONE(i, v) vec c##i##_##v = 0;
#define ZERO(i) VECTORS(ZERO_ONE, i)
#define FETCH(i, v) const vec b##v = *(__global const vec *)(pb + v * V);
#define MULTIPLY_ONE(i, v) c##i##_##v += e##i * b##v;
#define MULTIPLY(i)                                                                                \
    const ACC e##i = row##i[at];                                                              \
    VECTORS(MULTIPLY_ONE, i)
#if PASSES
#define SUMS_ROW (taps * NR) /* elements between the sums of neighbouring rows of a pass */
#define ROW_OFFSET(r) ((r) * x_channel)
#else
#define SUMS_ROW NR
#define ROW_OFFSET(r)                                                                              \
    ((r) / taps * x_channel +                                                                      \
     (((r) % taps / (k1 * k2) * d0) * i1 + (r) / k2 % k1 * d1) * i2 + (r) % k2 * d2)
#endif
#define ROW_AT(i) __global const ACC *row##i = xs + ROW_OFFSET((LEAST(r + i, rows - 1)));
#define KEEP_ONE(i, v) to[v] = fresh ? c##i##_##v : to[v] + c##i##_##v;
#define KEEP(i)                                                                                    \
    if (r + i < rows) {                                                                            \
        __global vec *to = (__global vec *)(sum + (r + i) * SUMS_ROW);                             \
        VECTORS(KEEP_ONE, i)                                                                       \
    }

/* V vectors q0, q1, ... as rows of a matrix: turned, column j is in the vector that COLUMN names.
 * Neighbours first: instructions that stay within 16 bytes are the cheap ones. */
#define EXCHANGE(i, j, A, B)                                                                       \
    {                                                                                              \
        const vec a = q##i, b = q##j;                                                              \
        q##i = (vec)A;                                                                             \
        q##j = (vec)B;                                                                             \
    }
#if V == 4
#define SINGLES (a.s0, b.s0, a.s1, b.s1), (a.s2, b.s2, a.s3, b.s3)
#define PAIRS (a.lo, b.lo), (a.hi, b.hi)
#define EACH(F) F(0, 0) F(1, 2) F(2, 1) F(3, 3)
#define TURN_REST
#elif V == 8
#define SINGLES                                                                                    \
    (a.s0, b.s0, a.s1, b.s1, a.s4, b.s4, a.s5, b.s5),                                              \
        (a.s2, b.s2, a.s3, b.s3, a.s6, b.s6, a.s7, b.s7)
#define PAIRS (a.s01, b.s01, a.s45, b.s45), (a.s23, b.s23, a.s67, b.s67)
#define HALVES (a.lo, b.lo), (a.hi, b.hi)
#define EACH(F) F(0, 0) F(1, 2) F(2, 1) F(3, 3) F(4, 4) F(5, 6) F(6, 5) F(7, 7)
#define TURN_REST                                                                                  \
    TURN_FOUR(4, 5, 6, 7)                                                                          \
    TURN_BY(HALVES, 0, 4) TURN_BY(HALVES, 1, 5) TURN_BY(HALVES, 2, 6) TURN_BY(HALVES, 3, 7)
#else
#define SINGLES                                                                                    \
    (a.s0, b.s0, a.s1, b.s1, a.s4, b.s4, a.s5, b.s5, a.s8, b.s8, a.s9, b.s9, a.sc, b.sc, a.sd,     \
     b.sd),                                                                                        \
        (a.s2, b.s2, a.s3, b.s3, a.s6, b.s6, a.s7, b.s7, a.sa, b.sa, a.sb, b.sb, a.se, b.se, a.sf, \
         b.sf)
#define PAIRS                                                                                      \
    (a.s01, b.s01, a.s45, b.s45, a.s89, b.s89, a.scd, b.scd),                                      \
        (a.s23, b.s23, a.s67, b.s67, a.sab, b.sab, a.sef, b.sef)
#define FOURS (a.s0123, b.s0123, a.s89ab, b.s89ab), (a.s4567, b.s4567, a.scdef, b.scdef)
#define HALVES (a.lo, b.lo), (a.hi, b.hi)
#define EACH(F)                                                                                    \
    F(0, 0) F(1, 2) F(2, 1) F(3, 3) F(4, 4) F(5, 6) F(6, 5) F(7, 7)                                \
    F(8, 8) F(9, 10) F(10, 9) F(11, 11) F(12, 12) F(13, 14) F(14, 13) F(15, 15)
#define TURN_REST                                                                                  \
    TURN_FOUR(4, 5, 6, 7) TURN_FOUR(8, 9, 10, 11) TURN_FOUR(12, 13, 14, 15)                        \
    TURN_BY(FOURS, 0, 4) TURN_BY(FOURS, 1, 5) TURN_BY(FOURS, 2, 6) TURN_BY(FOURS, 3, 7)            \
    TURN_BY(FOURS, 8, 12) TURN_BY(FOURS, 9, 13) TURN_BY(FOURS, 10, 14) TURN_BY(FOURS, 11, 15)      \
    TURN_BY(HALVES, 0, 8) TURN_BY(HALVES, 1, 9) TURN_BY(HALVES, 2, 10) TURN_BY(HALVES, 3, 11)      \
    TURN_BY(HALVES, 4, 12) TURN_BY(HALVES, 5, 13) TURN_BY(HALVES, 6, 14) TURN_BY(HALVES, 7, 15)
#endif
#define EXCHANGE_(i, j, ...) EXCHANGE(i, j, __VA_ARGS__)
#define TURN_BY(WHAT, i, j) EXCHANGE_(i, j, WHAT)
#define TURN_FOUR(i, j, k, l)                                                                      \
    TURN_BY(SINGLES, i, j) TURN_BY(SINGLES, k, l) TURN_BY(PAIRS, i, k) TURN_BY(PAIRS, j, l)
#define TURN TURN_FOUR(0, 1, 2, 3) TURN_REST

#if STEP == 0
#include "outer_codes.cl"

/* Positions `start` to `end` of tap (t0, t1, t2) that lie inside x: offsets in x and the panel. */
inline int list_positions(int *x_at, int *y_at, const int start, const int end, const int x_image,
                          WINDOW_ARGUMENTS const int i0, const int i1, const int i2,
                          const int o0, const int o1, const int o2, const int s0, const int s1,
                          const int s2, const int t0, const int t1, const int t2)
{
    int c2 = start % o2, c1 = start / o2 % o1, c0 = start / (o2 * o1) % o0;
    int image = start / (o2 * o1 * o0), found = 0;
    /* Of a line, positions from `low` up to `high` lie inside. */
    const int low = t2 < 0 ? (s2 - 1 - t2) / s2 : 0;
    const int fit = t2 < i2 ? (i2 - 1 - t2) / s2 + 1 : 0, high = LEAST(fit, o2);
    for (int p = start - c2; p < end; p += o2) {
        const int x0 = c0 * s0 + t0, x1 = c1 * s1 + t1;
        if (x0 >= 0 && x0 < i0 && x1 >= 0 && x1 < i1) {
            const int line = IMAGE_AT(image) + (x0 * i1 + x1) * i2 + t2, place = p - start;
            const int last = LEAST(high, end - p);
            for (int c = low > c2 ? low : c2; c < last; ++c) {
                x_at[found] = line + c * s2;
                y_at[found++] = (place + c) * NR;
            }
        }
        c2 = 0;
        if (++c1 == o1) {
            c1 = 0;
            if (++c0 == o0) c0 = 0, ++image;
        }
    }
    return found;
}

#define LINE(i, j) vec q##i = LOAD(from + (LEAST(l + i, lanes - 1)) * y_row);
#define PLACE(i, j) *(__global vec *)(panel + i * NR + l) = q##j;

/* Turn NR rows of y, from `start` to `end`, into a panel [position][NR]; past the last row that
 * row again, into lanes that nobody reads. */
inline void turn(__global const T *y, __global ACC *panel, const int start, const int end,
                 const int lanes, const int y_image, const int y_row)
{
    int image = start / y_row, pixel = start % y_row;
    for (int p = start; p < end;) {
        __global const T *from = y + image * y_image + pixel;
        int step = 1;
        if (p + V <= end && pixel + V <= y_row) {
            step = V;
            for (int l = 0; l < NR; l += V) {
                EACH(LINE)
                TURN
                EACH(PLACE)
            }
        } else {
            for (int l = 0; l < NR; ++l) panel[l] = (ACC)from[(LEAST(l, lanes - 1)) * y_row];
        }
        p += step;
        panel += step * NR;
        pixel += step;
        if (pixel == y_row) pixel = 0, ++image;
    }
}
#endif

#if STEP < 2
#define ADD_PARTS(i, j)                                                                            \
    vec q##i = *(__global const vec *)(sums + (r + i) * NR + l);                                   \
    for (int s = 1; s < splits; ++s)                                                               \
        q##i += *(__global const vec *)(sums + s * part_size + (r + i) * NR + l);
#define WRITE(i, j)                                                                                \
    if (l + i < lanes) {                                                                           \
        vec value = alpha * q##j;                                                                  \
        if (has_bias) {                                                                            \
            __global const T *from = bias + (l + i) * bias_lane + r * bias_row;                    \
            value += beta * (bias_row ? LOAD(from) : (vec)(ACC)*from);                             \
        }                                                                                          \
        STORE(w + (l + i) * w_lane + r, value);                                                    \
    }

/* Write `rows` rows of NR sums to W, those of all parts added in order. bias_row is 0 or 1. */
inline void write_sums(__global const ACC *sums, __global const T *bias, __global T *w,
                       const int lanes, const int rows, const int splits, const int part_size,
                       const ACC alpha, const ACC beta, const int has_bias, const int bias_lane,
                       const int bias_row, const int w_lane, const int w_row)
{
    const int turned = w_row == 1 ? rows / V * V : 0;
    for (int l = 0; l < lanes; l += V)
        for (int r = 0; r < turned; r += V) {
            EACH(ADD_PARTS)
            TURN
            EACH(WRITE)
        }
    /* Lanes side by side in W leave as they lie. */
    const int along = w_lane == 1 && !has_bias ? lanes / V * V : 0;
    for (int r = turned; r < rows; ++r) {
        for (int l = 0; l < along; l += V) {
            vec value = *(__global const vec *)(sums + r * NR + l);
            for (int s = 1; s < splits; ++s)
                value += *(__global const vec *)(sums + s * part_size + r * NR + l);
            STORE(w + l + r * w_row, alpha * value);
        }
        for (int l = along; l < lanes; ++l) {
            ACC value = sums[r * NR + l];
            for (int s = 1; s < splits; ++s) value += sums[s * part_size + r * NR + l];
            value *= alpha;
            if (has_bias) value += beta * (ACC)bias[l * bias_lane + r * bias_row];
            w[l * w_lane + r * w_row] = (T)value;
        }
    }
}
#endif

#define RESULT                                                                                     \
    const ACC alpha, const ACC beta, const int has_bias, const int bias_lane, const int bias_row,  \
        const int w_lane, const int w_row, const int w_group, const int groups, const int lanes,   \
        const int channels, const int splits

#if STEP == 0
__kernel ALONE void outer(
    X_ARGUMENT Y_ARGUMENT __global const T *bias, __global T *w,
    __global ACC *panels, __global ACC *parts, RESULT, const int lane_blocks,
    const int channel_block, const int columns, const int part, const int x_image,
    const int x_channel, const int y_image, const int slot_size, const int tasks, const int i0,
    const int i1, const int i2, const int o0, const int o1, const int o2, const int k0,
    const int k1, const int k2, const int s0, const int s1, const int s2, const int p0,
    const int p1, const int p2, const int d0, const int d1, const int d2)
{
    const int taps = k0 * k1 * k2, y_row = o0 * o1 * o2, blocks = (lanes + NR - 1) / NR;
    const int lane_tasks = (blocks + lane_blocks - 1) / lane_blocks;
    const int channel_tasks = (channels + channel_block - 1) / channel_block;
    const int slot = get_global_id(0), slots = get_global_size(0);
    __global ACC *panel = panels + slot * slot_size;
    const int stop = (int)((long)tasks * (slot + 1) / slots);
    for (int task = (int)((long)tasks * slot / slots); task < stop; ++task) {
        const int first = task % lane_tasks * lane_blocks;
        const int channel = task / lane_tasks % channel_tasks * channel_block;
        const int split = task / lane_tasks / channel_tasks % splits;
        const int group = task / lane_tasks / channel_tasks / splits;
        const int count = min(lane_blocks, blocks - first);
        const int width = min(channel_block, channels - channel);
        const int begin = min(columns, split * part), end = min(columns, begin + part);
        const int x_first = (group * channels + channel) * x_channel;
#if COLUMNS >= 0
        __global T *window = panel + window_at;
#endif
#if COLUMNS == 0
        int image = begin / y_row;
#endif
#if COLUMNS == 0 || COLUMNS == 1
        __global const ACC *xs = window;
#else
        __global const ACC *xs = x + x_first;
#endif
#if COLUMNS == 2
        __global const T *ys = window;
        const int y_pitch = LENGTH;
#else
        __global const T *ys = y + (group * lanes + first * NR) * y_row;
        const int y_pitch = y_row;
#endif
        /* Sums of a block of lanes: in the slot, or among all rows of this part. */
        const int sums_block = (splits > 1 ? channels : width) * taps * NR;
        __global ACC *sums =
            splits > 1 ? parts + ((split * groups + group) * blocks + first) * sums_block +
                             channel * taps * NR
                       : panel + lane_blocks * LENGTH * NR;
        int start = begin;
        do {
            const int last = min(end, start + LENGTH), fresh = start == begin;
#if COLUMNS == 0
            for (; image * y_row < last; ++image)
                expand_run(words, ends, window + image % held * pitch, image * x_image + x_first,
                           width * x_channel);
#elif COLUMNS == 1
            expand_columns(words, ends, window, start, last, group * channels + channel, width,
                           held, y_row);
#elif COLUMNS == 2
            expand_columns(words, ends, window, start, last, group * lanes + first * NR,
                           min(count * NR, lanes - first * NR), held, y_row);
#endif
            /* Where y is expanded, its rows begin with the panel. */
            const int from = COLUMNS == 2 ? 0 : start, to = COLUMNS == 2 ? last - start : last;
            for (int b = 0; b < count; ++b)
                turn(ys + b * NR * y_pitch, panel + b * LENGTH * NR, from, to,
                     lanes - (first + b) * NR, y_image, y_pitch);
            for (int pass = 0; pass < (PASSES ? taps : 1); ++pass) {
                int x_at[LENGTH], y_at[LENGTH];
                const int t0 = pass / (k1 * k2) * d0, t1 = pass / k2 % k1 * d1, t2 = pass % k2 * d2;
                const int found = list_positions(x_at, y_at, start, last, x_image, WINDOW i0, i1,
                                                 i2, o0, o1, o2, s0, s1, s2, t0 - p0, t1 - p1,
                                                 t2 - p2);
                const int rows = PASSES ? width : width * taps;
                for (int b = 0; b < count; ++b) {
                    __global const ACC *right = panel + b * LENGTH * NR;
                    __global ACC *sum = sums + b * sums_block + pass * NR;
                    for (int r = 0; r < rows; r += MR) {
                        ROWS(ROW_AT)
                        ROWS(ZERO)
                        for (int s = 0; s < found; ++s) {
                            const int at = x_at[s];
                            __global const ACC *pb = right + y_at[s];
                            VECTORS(FETCH, 0)
                            ROWS(MULTIPLY)
                        }
                        ROWS(KEEP)
                    }
                }
            }
            start += LENGTH;
        } while (start < end);
        if (splits > 1) continue;
        for (int b = 0; b < count; ++b) {
            const int lane = (first + b) * NR, row = channel * taps;
            write_sums(sums + b * sums_block, bias + lane * bias_lane + row * bias_row,
                       w + group * w_group + lane * w_lane + row * w_row, min(NR, lanes - lane),
                       width * taps, 1, 0, alpha, beta, has_bias, bias_lane, bias_row, w_lane,
                       w_row);
        }
    }
}

#elif STEP == 1
__kernel ALONE void finish(__global const ACC *parts, __global const T *bias, __global T *w, RESULT,
                           const int all_rows)
{
    const int blocks = (lanes + NR - 1) / NR, item = get_global_id(0);
    const int lane = item % blocks * NR, row = get_global_id(1) * SPAN;
    write_sums(parts + (item * all_rows + row) * NR, bias + lane * bias_lane + row * bias_row,
               w + item / blocks * w_group + lane * w_lane + row * w_row, min(NR, lanes - lane),
               min(SPAN, all_rows - row), splits, groups * blocks * all_rows * NR, alpha, beta,
               has_bias, bias_lane, bias_row, w_lane, w_row);
}

#else
/* x with p0, p1, p2 zeros before and enough behind to fill lines of w0, w1, w2. */
__kernel void widen(__global const T *x, __global ACC *wide, const int i0, const int i1,
                    const int i2, const int w0, const int w1, const int w2, const int p0,
                    const int p1, const int p2)
{
    const int line = get_global_id(0);
    const int z1 = line % w1 - p1, z0 = line / w1 % w0 - p0, plane = line / w1 / w0;
    const int inside = z0 >= 0 && z0 < i0 && z1 >= 0 && z1 < i1;
    __global const T *from = x + ((plane * i0 + z0) * i1 + z1) * i2 - p2;
    __global ACC *to = wide + line * w2;
    for (int j = 0; j < w2; ++j)
        to[j] = inside && j >= p2 && j < p2 + i2 ? (ACC)from[j] : (ACC)0;
}
#endif
