/* Matrix products and convolutions as one blocked product Y = alpha * A * B + beta * bias.
 *
 * A (rows x depth) is read in place where its rows are contiguous, else it comes packed by pack.cl:
 * tiles of MR rows, [batch][tile][depth][MR], type ACC.
 * B (depth x columns) is never stored whole. A column is a position of the result (image, o0, o1,
 * o2), a row of B a channel and a tap (t0, t1, t2) of the window, so B[row, column] is
 *     x[image, channel, o * s - p + t * d], zero outside x (extents i0, i1, i2).
 * A matrix B is the case of one tap and one image (stored by columns: many images of one element).
 * Each work-item owns a slot of `panels`: it gathers `block` rows (whole channels) of one panel of
 * NR columns there, multiplies all tiles of A with it, goes to the next block of rows, and then to
 * its next panel: the panel stays in cache and scratch is small whatever the sizes. Blocks after
 * the first add to Y. Where panels are too few to occupy the device, rows of A are divided among
 * tasks too (row_block, whole tiles). A matrix that a single tile reads once is read in place.
 *
 * Y: element (m, column) lies at m * y_row + image * y_image + (o * q + u) in a plane of extents
 * w1, w2: q is 1 and u 0 for a convolution, the stride and the phase for its input's gradient.
 * bias: element (m, column) lies at m * bias_row + column * bias_column.
 * Batch (groups of a convolution): two levels, outer and inner, with a stride per operand.
 * Geometry: one work-item per slot, work-groups of one; tasks are divided evenly, in order. */

#ifndef T
#define T float /* element type of x, bias and y */
#endif
#ifndef ACC
#define ACC float /* type of sums and packed operands */
#endif
#ifndef V
#define V 16 /* lanes of a vector: 64 bytes of ACC */
#endif
#ifndef MASK
#define MASK int /* integer type as wide as ACC */
#endif
#ifndef MR
#define MR 8 /* rows of a register tile: 4, 8 or 12 */
#endif
#ifndef NV
#define NV 3 /* vectors in a row of a register tile: 1 to 4 */
#endif
#ifndef DOTS
#define DOTS 0 /* 1: the kernel of weight gradients instead */
#endif
#ifndef PACKED
#define PACKED 1 /* 0: A is not packed: A[m, k] lies at m * a_row + k, type T */
#endif
#if PACKED
#define LEFT ACC
#else
#define LEFT T
#endif

#define NR (NV * V)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

typedef JOIN(ACC, V) vec;
typedef JOIN(MASK, V) mask;
typedef JOIN(T, V) stored __attribute__((aligned(sizeof(T)))); /* V elements in memory */
typedef JOIN(ACC, V) fetched __attribute__((aligned(sizeof(ACC)))); /* V elements of a panel */
typedef MASK lane;

/* vloadn and convert are calls on some runtimes, so the common case has neither. */
#define CONVERT_(type) convert_##type
#define CONVERT(type) CONVERT_(type)
#ifndef SAME
#define SAME 1 /* 1: T and ACC are one type; 0: convert */
#endif
#if SAME
#define WIDEN(v) (v)
#define NARROW(v) (v)
#else
#define WIDEN(v) CONVERT(JOIN(ACC, V))(v)
#define NARROW(v) CONVERT(JOIN(T, V))(v)
#endif
#define LOAD(p) WIDEN(*(__global const stored *)(p))
#define STORE(p, v) (*(__global stored *)(p) = NARROW(v))
#define AS_(type, v) as_##type(v)
#define AS(type, v) AS_(type, v)
#define KEEP(v, m) AS(JOIN(ACC, V), AS(JOIN(MASK, V), v) & (m))
#define MERGE(a, m, b, n) \
    AS(JOIN(ACC, V), (AS(JOIN(MASK, V), a) & (m)) | (AS(JOIN(MASK, V), b) & (n)))

/* One work-item a group, vectors written out: a compiler that vectorises across work-items need not
 * try (and takes a sixth of the time to build). */
#define ALONE __attribute__((reqd_work_group_size(1, 1, 1), vec_type_hint(JOIN(ACC, V))))

#define WINDOW                                                                                     \
    const int i0, const int i1, const int i2, const int o0, const int o1, const int o2,            \
        const int k0, const int k1, const int k2, const int s0, const int s1, const int s2,        \
        const int p0, const int p1, const int p2, const int d0, const int d1, const int d2
#define WINDOW_VALUES i0, i1, i2, o0, o1, o2, k0, k1, k2, s0, s1, s2, p0, p1, p2, d0, d1, d2

/* Gather V columns from `column` on, `count` channels from `channel` on, all taps. Lanes of one tap
 * mostly lie in one or two contiguous runs of x: then two masked vector loads per channel do. */
inline void gather(__global const T *x, __global ACC *panel, const int stride, const int column,
                   const int columns, const int x_size, const int x_image, const int x_channel,
                   const int channel, const int count, WINDOW)
{
    int at[V], z0[V], z1[V], z2[V], from[V];
    int c2 = column % o2, c1 = column / o2 % o1, c0 = column / (o2 * o1) % o0;
    int image = column / (o2 * o1 * o0);
#pragma unroll 1
    for (int j = 0; j < V; ++j) {
        at[j] = image * x_image + channel * x_channel;
        z0[j] = c0 * s0 - p0;
        z1[j] = c1 * s1 - p1;
        z2[j] = column + j < columns ? c2 * s2 - p2 : -0x40000000;
        if (++c2 == o2) {
            c2 = 0;
            if (++c1 == o1) {
                c1 = 0;
                if (++c0 == o0) c0 = 0, ++image;
            }
        }
    }
    const int taps = k0 * k1 * k2;
    const int last = (count - 1) * x_channel + V;
    for (int t = 0; t < taps; ++t) {
        const int t0 = t / (k1 * k2) * d0, t1 = t / k2 % k1 * d1, t2 = t % k2 * d2;
        for (int j = 0; j < V; ++j) {
            const int x0 = z0[j] + t0, x1 = z1[j] + t1, x2 = z2[j] + t2;
            const int inside =
                (x0 >= 0) & (x0 < i0) & (x1 >= 0) & (x1 < i1) & (x2 >= 0) & (x2 < i2);
            from[j] = inside ? at[j] + (x0 * i1 + x1) * i2 + x2 : -1;
        }
        /* Two runs: lane j of run r is x[run_r + j]. A run may lie before x: unusable then. */
        int run_a = 0, run_b = 0, found = 0;
        union { mask all; lane each[V]; } in_a, in_b;
#pragma unroll 1
        for (int j = 0; j < V; ++j) {
            const int run = from[j] - j;
            in_a.each[j] = in_b.each[j] = 0;
            if (from[j] < 0) continue;
            if (found == 0) run_a = run_b = run, found = 1;
            if (run == run_a) in_a.each[j] = -1;
            else if (found == 1) run_b = run, found = 2, in_b.each[j] = -1;
            else if (run == run_b) in_b.each[j] = -1;
            else found = 3;
        }
        __global ACC *to = panel + t * stride;
        const int low = min(run_a, run_b), high = max(run_a, run_b);
        if (found == 3 || low < 0 || high + last > x_size) {
            for (int c = 0; c < count; ++c)
#pragma unroll 4
                for (int j = 0; j < V; ++j)
                    to[c * taps * stride + j] =
                        from[j] < 0 ? (ACC)0 : (ACC)x[from[j] + c * x_channel];
        } else if (found == 2) {
            const mask keep_a = in_a.all, keep_b = in_b.all;
            for (int c = 0; c < count; ++c) {
                const vec a = LOAD(x + run_a + c * x_channel), b = LOAD(x + run_b + c * x_channel);
                *(__global vec *)(to + c * taps * stride) = MERGE(a, keep_a, b, keep_b);
            }
        } else {
            const mask keep = in_a.all;
            for (int c = 0; c < count; ++c)
                *(__global vec *)(to + c * taps * stride) =
                    KEEP(LOAD(x + run_a + c * x_channel), keep);
        }
    }
}

#define ROWS_4(F) F(0) F(1) F(2) F(3)

#if DOTS
/* The gradient of weights: W[m, row] = alpha * sum over positions of y[m, position] * B[row,
 * position] + beta * bias; with one tap and one image also the product of a matrix with a
 * transposed matrix. bias[m * bias_row + row * bias_column].
 * Both operands are contiguous along positions, so vectors run there, and each sum is reduced over
 * its lanes once per LENGTH positions. A task is a block of rows of y (output channels of a group)
 * and a block of rows of B (whole channels with their taps). It walks through all positions, LENGTH
 * at a time: gathers its rows of B (and of y unless DIRECT), multiplies tiles of 4 x 5, and keeps
 * the sums, 4 x 8 per tile, in its slot. Geometry as above: one work-item per slot. */
#ifndef LENGTH
#define LENGTH 512 /* positions in a panel */
#endif
#ifndef DIRECT
#define DIRECT 1 /* 1: planes of y are whole vectors of type ACC: y is read in place; 2: x too */
#endif
#define STRIDE (LENGTH + V) /* of panel rows: no power of two, which caches dislike */
#define STEPS (LENGTH / V)

#define WIDE 5 /* rows of B in a tile: with 4 of y and their products all fit 32 registers */
#define COLUMNS(F, i) F(i, 0) F(i, 1) F(i, 2) F(i, 3) F(i, 4)
#define TILE(F) COLUMNS(F, 0) COLUMNS(F, 1) COLUMNS(F, 2) COLUMNS(F, 3)
#define ZERO(i, j) vec c##i##_##j = 0;
#define DOT(i, j) c##i##_##j += e##i * f##j;
#define LEFT_ROW(i) __global const LEFT *left##i = left + min(m + i, height - 1) * left_row;
#define RIGHT_ROW(i, j)                                                                            \
    __global const RIGHT *right##j = right + min(n + j, width - 1) * right_row;
#define LEFT_LANES(i) const vec e##i = *(__global const lanes *)(left##i + y_at[s]);
#if DIRECT == 2
#define RIGHT T
#define RIGHT_LANES(i, j) const vec f##j = *(__global const stored *)(right##j + x_at[s]);
#else
#define RIGHT ACC
#define RIGHT_LANES(i, j) const vec f##j = *(__global const vec *)(right##j + s * V);
#endif

/* Adding halves, quarters and so on of lanes: those of a, then those of b. Not neighbours first:
 * that becomes vhaddps, which cannot address the upper 16 registers and so spills all the sums. */
inline vec fold_halves(const vec a, const vec b) { return (vec)(a.lo, b.lo) + (vec)(a.hi, b.hi); }
inline vec fold_pairs(const vec a, const vec b)
{
    return (vec)(a.even, b.even) + (vec)(a.odd, b.odd);
}
#if V == 16
inline vec fold_quarters(const vec a, const vec b)
{
    return (vec)(a.s0123, a.s89ab, b.s0123, b.s89ab) + (vec)(a.s4567, a.scdef, b.s4567, b.scdef);
}
inline vec fold_last(const vec a, const vec b)
{
    return (vec)(a.s01, a.s45, a.s89, a.scd, b.s01, b.s45, b.s89, b.scd) +
           (vec)(a.s23, a.s67, a.sab, a.sef, b.s23, b.s67, b.sab, b.sef);
}
#else
inline vec fold_quarters(const vec a, const vec b)
{
    return (vec)(a.s01, a.s45, b.s01, b.s45) + (vec)(a.s23, a.s67, b.s23, b.s67);
}
#define fold_last fold_pairs
#endif
/* Eight sums of a row, each in 2 lanes (V = 16) or one (V = 8). */
#define FOLD_ROW(i)                                                                                \
    fold_last(fold_quarters(fold_halves(c##i##_0, c##i##_1), fold_halves(c##i##_2, c##i##_3)),     \
              fold_quarters(fold_halves(c##i##_4, (vec)0), (vec)0))

__kernel ALONE void dots(
    __global const T *x, __global const T *y, __global const T *bias, __global T *w,
    __global ACC *panels, const ACC alpha, const ACC beta, const int has_bias, const int bias_row,
    const int bias_column, const int rows, const int row_block, const int channels, const int block,
    const int columns, const int x_size,
    const int y_size, const int x_image, const int y_image, const int slot_size, const int tasks,
    WINDOW)
{
    const int taps = k0 * k1 * k2, y_row = o0 * o1 * o2, x_channel = i0 * i1 * i2;
    const int row_blocks = (rows + row_block - 1) / row_block;
    const int channel_blocks = (channels + block - 1) / block;
    const int slot = get_global_id(0), slots = get_global_size(0);
    __global ACC *b_panel = panels + slot * slot_size;
    __global ACC *y_panel = b_panel + (DIRECT == 2 ? 0 : block * taps * STRIDE);
    __global ACC *sums = y_panel + (DIRECT ? 0 : row_block * STRIDE);
    const int end = (int)((long)tasks * (slot + 1) / slots);
    for (int task = (int)((long)tasks * slot / slots); task < end; ++task) {
        const int first = task % row_blocks * row_block;
        const int channel = task / row_blocks % channel_blocks * block;
        const int group = task / row_blocks / channel_blocks;
        const int height = min(row_block, rows - first);
        const int count = min(block, channels - channel), width = count * taps;
        __global const T *xs = x + group * channels * x_channel;
        __global const T *ys = y + (group * rows + first) * y_row;
        int start = 0;
        do {
            int x_at[STEPS], y_at[STEPS];
            const int steps = min(STEPS, (columns - start + V - 1) / V);
            for (int s = 0; s < steps; ++s) {
                const int column = start + s * V;
                const int image = column / y_row, pixel = column % y_row;
                x_at[s] = image * x_image + pixel;
                y_at[s] = DIRECT ? image * y_image + pixel : s * V;
#if DIRECT < 2
                gather(xs, b_panel + s * V, STRIDE, column, columns, x_size - (int)(xs - x),
                       x_image, x_channel, channel, count, WINDOW_VALUES);
#endif
#if DIRECT < 1
                gather(ys, y_panel + s * V, STRIDE, column, columns, y_size - (int)(ys - y),
                       y_image, y_row, 0, height, o0, o1, o2, o0, o1, o2, 1, 1, 1, 1, 1, 1, 0, 0,
                       0, 1, 1, 1);
#endif
            }
#if DIRECT
            __global const T *left = ys;
            const int left_row = y_row;
            typedef stored lanes;
#else
            __global const ACC *left = y_panel;
            const int left_row = STRIDE;
            typedef vec lanes;
#endif
#if DIRECT == 2
            __global const T *right = xs + channel * x_channel;
            const int right_row = x_channel;
#else
            __global const ACC *right = b_panel;
            const int right_row = STRIDE;
#endif
            __global ACC *sum = sums;
            for (int n = 0; n < width; n += WIDE)
                for (int m = 0; m < height; m += 4) {
                    ROWS_4(LEFT_ROW)
                    COLUMNS(RIGHT_ROW, 0)
                    TILE(ZERO)
                    for (int s = 0; s < steps; ++s) {
                        ROWS_4(LEFT_LANES)
                        COLUMNS(RIGHT_LANES, 0)
                        TILE(DOT)
                    }
                    __global vec *to = (__global vec *)sum;
#if V == 16
                    const vec r0 = fold_pairs(FOLD_ROW(0), FOLD_ROW(1));
                    const vec r1 = fold_pairs(FOLD_ROW(2), FOLD_ROW(3));
                    to[0] = start ? to[0] + r0 : r0;
                    to[1] = start ? to[1] + r1 : r1;
#else
                    const vec r0 = FOLD_ROW(0), r1 = FOLD_ROW(1);
                    const vec r2 = FOLD_ROW(2), r3 = FOLD_ROW(3);
                    to[0] = start ? to[0] + r0 : r0;
                    to[1] = start ? to[1] + r1 : r1;
                    to[2] = start ? to[2] + r2 : r2;
                    to[3] = start ? to[3] + r3 : r3;
#endif
                    sum += 32;
                }
            start += LENGTH;
        } while (start < columns);
        __global const ACC *sum = sums;
        for (int n = 0; n < width; n += WIDE)
            for (int m = 0; m < height; m += 4, sum += 32)
                for (int i = 0; i < 4 && m + i < height; ++i)
                    for (int j = 0; j < WIDE && n + j < width; ++j) {
                        const int row = group * rows + first + m + i;
                        const int column = channel * taps + n + j;
                        ACC value = alpha * sum[i * 8 + j];
                        if (has_bias)
                            value += beta * (ACC)bias[row * bias_row + column * bias_column];
                        w[row * channels * taps + column] = (T)value;
                    }
    }
}
#else
#define ROWS_8(F) ROWS_4(F) F(4) F(5) F(6) F(7)
#define ROWS_12(F) ROWS_8(F) F(8) F(9) F(10) F(11)
#define ROWS(F) JOIN(ROWS_, MR)(F)
#define VECTORS_1(F, i) F(i, 0)
#define VECTORS_2(F, i) F(i, 0) F(i, 1)
#define VECTORS_3(F, i) F(i, 0) F(i, 1) F(i, 2)
#define VECTORS_4(F, i) F(i, 0) F(i, 1) F(i, 2) F(i, 3)
#define VECTORS(F, i) JOIN(VECTORS_, NV)(F, i)

#define DECLARE_ONE(i, v) vec c##i##_##v = 0;
#define DECLARE(i) VECTORS(DECLARE_ONE, i)
#define FETCH(i, v) const vec b##v = *(__global const fetched *)(pb + v * V);
#define MULTIPLY_ONE(i, v) c##i##_##v += e##i * b##v;
#if PACKED
#define POINT(i)
#define ENTRY(i) pa[i]
#else
#define POINT(i) __global const T *pa##i = a + min(m + i, rows - 1) * a_row + r * taps;
#define ENTRY(i) (ACC)pa##i[k]
#endif
#define MULTIPLY(i)                                                                                \
    const ACC e##i = ENTRY(i);                                                                     \
    VECTORS(MULTIPLY_ONE, i)
#define DUMP_ONE(i, v) *(__global vec *)(tile + i * NR + v * V) = alpha * c##i##_##v;
#define DUMP(i) VECTORS(DUMP_ONE, i)

/* Where the NR columns from `column` on lie in a plane of y, -1 past the end; whether they are
 * one contiguous run. */
inline int find_places(int *place, const int column, const int columns, const int o0, const int o1,
                       const int o2, const int y_image, const int w1, const int w2, const int q0,
                       const int q1, const int q2, const int u0, const int u1, const int u2)
{
    int c2 = column % o2, c1 = column / o2 % o1, c0 = column / (o2 * o1) % o0;
    int image = column / (o2 * o1 * o0), contiguous = column + NR <= columns;
#pragma unroll 1
    for (int j = 0; j < NR; ++j) {
        const int inside = ((c0 * q0 + u0) * w1 + c1 * q1 + u1) * w2 + c2 * q2 + u2;
        place[j] = column + j < columns ? image * y_image + inside : -1;
        contiguous &= place[j] == place[0] + j;
        if (++c2 == o2) {
            c2 = 0;
            if (++c1 == o1) {
                c1 = 0;
                if (++c0 == o0) c0 = 0, ++image;
            }
        }
    }
    return contiguous;
}

__kernel ALONE void packed(
    __global const LEFT *a, __global const T *x, __global const T *bias, __global T *y,
    __global ACC *panels, const ACC alpha, const ACC beta, const int has_bias, const int bias_row,
    const int bias_column, const int rows, const int row_block, const int channels,
    const int columns, const int block, const int tasks, const int inner,
    const int a_row, const int a_outer, const int a_inner, const int x_outer,
    const int x_inner, const int y_batch, const int bias_batch, const int x_size, const int x_image,
    const int x_channel, const int y_row, const int y_image, const int w1, const int w2,
    const int q0, const int q1, const int q2, const int u0, const int u1, const int u2, WINDOW)
{
    const int taps = k0 * k1 * k2;
    const int x_is_matrix =
        columns == o2 && i2 == o2 && s2 == 1 && p2 == 0 && p1 == 0 && p0 == 0;
    const int width = (columns + NR - 1) / NR, row_blocks = (rows + row_block - 1) / row_block;
    const int slot = get_global_id(0), slots = get_global_size(0);
    __global ACC *panel = panels + slot * ((block * taps + MR) * NR);
    __global ACC *tile = panel + block * taps * NR;
    __global const LEFT *a_first = a;
    __global const T *x_first = x, *bias_first = bias;
    __global T *y_first = y;
    const int end = (int)((long)tasks * (slot + 1) / slots);
    for (int task = (int)((long)tasks * slot / slots); task < end; ++task) {
        const int batch = task / width / row_blocks, column = task % width * NR;
        const int first = task / width % row_blocks * row_block;
        const int last = min(first + row_block, rows);
        const int outer = batch / inner, x_at = outer * x_outer + batch % inner * x_inner;
        a = a_first + outer * a_outer + batch % inner * a_inner;
        x = x_first + x_at;
        y = y_first + batch * y_batch;
        bias = bias_first + batch * bias_batch;
        int place[NR];
        const int whole = find_places(place, column, columns, o0, o1, o2, y_image, w1, w2, q0, q1,
                                      q2, u0, u1, u2);
        const int in_place =
            taps == 1 && x_is_matrix && last - first <= MR && column + NR <= columns;
        int r = 0;
        do {
            const int count = min(block, channels - r), depth = count * taps;
            __global const ACC *right = panel;
            int step = NR;
#if SAME
            if (in_place) {
                right = x + column + r * x_channel;
                step = x_channel;
            }
#endif
#pragma unroll 1 /* a call of gather is long */
            for (int v = 0; v < NV && right == panel; ++v)
                gather(x, panel + v * V, NR, column + v * V, columns, x_size - x_at, x_image,
                       x_channel, r, count, WINDOW_VALUES);
            for (int m = first; m < last; m += MR) {
#if PACKED
                __global const ACC *pa = a + (m * channels + r * MR) * taps;
#else
                ROWS(POINT)
#endif
                __global const ACC *pb = right;
                ROWS(DECLARE)
                for (int k = 0; k < depth; ++k) {
                    VECTORS(FETCH, 0)
                    ROWS(MULTIPLY)
#if PACKED
                    pa += MR;
#endif
                    pb += step;
                }
                ROWS(DUMP)
#pragma unroll 1
                for (int i = 0; i < MR && m + i < rows; ++i) {
                    __global const vec *sum = (__global const vec *)(tile + i * NR);
                    __global const T *pc = bias + (m + i) * bias_row + column * bias_column;
                    __global T *py = y + (m + i) * y_row;
                    const ACC start = r == 0 && has_bias ? beta * (ACC)*pc : (ACC)0;
                    if (whole) {
                        py += place[0];
                        for (int v = 0; v < NV; ++v, py += V) {
                            vec old = (vec)start;
                            if (r > 0) old = LOAD(py);
                            else if (bias_column) old = beta * LOAD(pc + v * V);
                            STORE(py, sum[v] + old);
                        }
                        continue;
                    }
                    for (int j = 0; j < NR && column + j < columns; ++j) {
                        ACC old = start;
                        if (r > 0) old = (ACC)py[place[j]];
                        else if (bias_column) old = beta * (ACC)pc[j];
                        py[place[j]] = (T)(tile[i * NR + j] + old);
                    }
                }
            }
            r += block;
        } while (r < channels);
    }
}
#endif
