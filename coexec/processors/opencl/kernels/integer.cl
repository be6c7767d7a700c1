/* Exact products of bytes with zero points: Y[b] = (A[b] - za) (B[b] - zb), as int32.
 * Layout: A (rows, depth) and B (depth, columns) contiguous, the batch index of Y has four levels
 * of extents (extent_0), extent_1..3 with one stride per level of each operand, 0 where broadcast.
 * The zero point of row m is za[m % za_count], that of column n zb[n % zb_count].
 *
 * products_naive:  one work-item per element of Y.
 * convolve_naive:  one work-item per element of Y, up to three spatial axes, as conv.cl.
 * centre:   A - za as floats, and the sum of each row; one work-item a row.
 * patches:  columns of a convolution, (batch, groups, depth, positions), padded with the zero
 *           point of x; geometry (rows of positions, depth, batch * groups).
 * products: from what centre made; geometry (panels of W * VECTORS columns, tiles of ROWS rows,
 *           batch), one work-item each. Products of bytes are exact in float, and so are sums of
 *           256 of them: (255 * 255) * 256 < 2^24. These are added up as integers. With PANELS, B
 *           stands in panels (panels, depth, W * VECTORS), which are read from end to end.
 * pack_panels: B in panels, one work-item each; columns that are not there are 0. */

#ifndef TA
#define TA uchar /* element type of A and of its zero points; of x for patches */
#endif
#ifndef TB
#define TB char /* element type of B and of its zero points */
#endif
#ifndef ROWS
#define ROWS 4 /* rows of Y that a work-item computes */
#endif
#ifndef VECTORS
#define VECTORS 4 /* vectors of columns that a work-item computes */
#endif
#ifndef EXACT
#define EXACT 256 /* products whose sum is exact in float */
#endif
#ifndef PANELS
#define PANELS 0 /* 1: B stands in panels */
#endif
/* ZERO_A, ZERO_B: defined where zero points are given. */

#define W 16
#include "vectors.cl"

#ifdef ZERO_A
#define FROM_A(m) ((int)za[(m) % za_count])
#else
#define FROM_A(m) 0
#endif
#ifdef ZERO_B
#define FROM_B(n) ((int)zb[(n) % zb_count])
#else
#define FROM_B(n) 0
#endif

#define LEVELS                                                                                  \
    const int extent_1, const int extent_2, const int extent_3, const int a_0, const int a_1,   \
        const int a_2, const int a_3, const int b_0, const int b_1, const int b_2, const int b_3

#define STEP(a, b)                                                                               \
    a += batch % extent_3 * a_3, b += batch % extent_3 * b_3, batch /= extent_3;                 \
    a += batch % extent_2 * a_2, b += batch % extent_2 * b_2, batch /= extent_2;                 \
    a += batch % extent_1 * a_1, b += batch % extent_1 * b_1, batch /= extent_1;                 \
    a += batch * a_0, b += batch * b_0;

__kernel void products_naive(__global const TA *a, __global const TB *b, __global const TA *za,
                             __global const TB *zb, __global int *y, const int total,
                             const int rows, const int columns, const int depth,
                             const int za_count, const int zb_count, LEVELS)
{
    const int i = get_global_id(0);
    if (i >= total) return;
    const int n = i % columns, m = i / columns % rows;
    int batch = i / columns / rows;
    STEP(a, b)
    uint sum = 0;
    for (int k = 0; k < depth; ++k)
        sum += ((int)a[m * depth + k] - FROM_A(m)) * ((int)b[k * columns + n] - FROM_B(n));
    y[i] = (int)sum;
}

#define GEOMETRY                                                                                   \
    const int batch, const int in_channels, const int out_channels, const int groups,              \
        const int i0, const int i1, const int i2, const int o0, const int o1, const int o2,        \
        const int k0, const int k1, const int k2, const int s0, const int s1, const int s2,        \
        const int p0, const int p1, const int p2, const int d0, const int d1, const int d2

/* Here x is B, and the weights are A: each row of them belongs to a channel of the result. */
__kernel void convolve_naive(__global const TB *x, __global const TA *w, __global const TB *zb,
                             __global const TA *za, __global int *y, const int total,
                             const int za_count, GEOMETRY)
{
    int i = get_global_id(0);
    if (i >= total) return;
    __global int *result = y + i;
    const int z2 = i % o2 * s2 - p2;
    i /= o2;
    const int z1 = i % o1 * s1 - p1;
    i /= o1;
    const int z0 = i % o0 * s0 - p0;
    i /= o0;
    const int channel = i % out_channels, image = i / out_channels;
    const int inner = in_channels / groups, zb_count = 1;
    const int first = channel / (out_channels / groups) * inner;
    uint sum = 0;
    for (int c = 0; c < inner; ++c) {
        __global const TB *plane = x + (image * in_channels + first + c) * (i0 * i1 * i2);
        __global const TA *taps = w + (channel * inner + c) * (k0 * k1 * k2);
        for (int t = 0; t < k0 * k1 * k2; ++t) {
            const int x0 = z0 + t / (k1 * k2) * d0;
            const int x1 = z1 + t / k2 % k1 * d1;
            const int x2 = z2 + t % k2 * d2;
            if (x0 < 0 || x0 >= i0 || x1 < 0 || x1 >= i1 || x2 < 0 || x2 >= i2) continue;
            sum += ((int)plane[(x0 * i1 + x1) * i2 + x2] - FROM_B(0)) *
                   ((int)taps[t] - FROM_A(channel));
        }
    }
    *result = (int)sum;
}

__kernel void centre(__global const TA *a, __global const TA *za, __global float *wide,
                     __global int *sums, const int rows, const int depth, const int za_count)
{
    const int m = get_global_id(0);
    if (m >= rows) return;
    const int zero = FROM_A(m);
    int sum = 0;
    for (int k = 0; k < depth; ++k) {
        const int value = (int)a[m * depth + k] - zero;
        sum += value;
        wide[m * depth + k] = (float)value;
    }
    sums[m] = sum;
}

__kernel void patches(__global const TB *x, __global const TB *zb, __global TB *columns, GEOMETRY)
{
    const int row = get_global_id(0), d = get_global_id(1), part = get_global_id(2);
    if (row >= o0 * o1) return;
    const int inner = in_channels / groups, zb_count = 1;
    const int t = d % (k0 * k1 * k2), c = d / (k0 * k1 * k2);
    const int x0 = row / o1 * s0 - p0 + t / (k1 * k2) * d0;
    const int x1 = row % o1 * s1 - p1 + t / k2 % k1 * d1;
    const int from = t % k2 * d2 - p2;
    const TB zero = (TB)FROM_B(0);
    const bool inside = x0 >= 0 && x0 < i0 && x1 >= 0 && x1 < i1;
    __global const TB *line = x + (((part * inner + c) * i0 + x0) * i1 + x1) * i2;
    __global TB *target = columns + ((part * get_global_size(1) + d) * (o0 * o1) + row) * o2;
    for (int i = 0; i < o2; ++i) {
        const int x2 = from + i * s2;
        target[i] = inside && x2 >= 0 && x2 < i2 ? line[x2] : zero;
    }
}

__kernel void pack_panels(__global const TB *b, __global TB *panels, const int columns,
                          const int depth)
{
    const int n = (int)get_global_id(0) * (W * VECTORS);
    if (n >= columns) return;
    panels += (size_t)n * depth;
    for (int k = 0; k < depth; ++k)
        for (int i = 0; i < W * VECTORS; ++i)
            panels[(size_t)k * (W * VECTORS) + i] =
                n + i < columns ? b[(size_t)k * columns + n + i] : 0;
}

#define PITCH (PANELS ? W * VECTORS : columns) /* from one row of B to the next */
/* ROWS x (COUNT vectors) of Y from column n on. */
#define TILE(COUNT)                                                                          \
    {                                                                                        \
        uint16 whole[ROWS][COUNT];                                                           \
        for (int r = 0; r < ROWS; ++r)                                                       \
            for (int v = 0; v < COUNT; ++v) whole[r][v] = zero_of(v) * -sum[r];              \
        for (int start = 0; start < depth; start += EXACT) {                                 \
            const int end = min(start + EXACT, depth);                                       \
            float16 part[ROWS][COUNT];                                                       \
            _Pragma("unroll") for (int r = 0; r < ROWS; ++r)                                 \
                _Pragma("unroll") for (int v = 0; v < COUNT; ++v) part[r][v] = 0.0f;         \
            for (int k = start; k < end; ++k) {                                              \
                float16 line[COUNT];                                                         \
                _Pragma("unroll") for (int v = 0; v < COUNT; ++v) line[v] =                  \
                    CONVERT(float, *(__global const TBV *)(b + k * PITCH + n + v * W));      \
                _Pragma("unroll") for (int r = 0; r < ROWS; ++r)                             \
                    _Pragma("unroll") for (int v = 0; v < COUNT; ++v) part[r][v] =           \
                        fma((float16)row[r][k], line[v], part[r][v]);                        \
            }                                                                                \
            _Pragma("unroll") for (int r = 0; r < ROWS; ++r)                                 \
                _Pragma("unroll") for (int v = 0; v < COUNT; ++v) whole[r][v] +=             \
                as_uint16(convert_int16(part[r][v]));                                        \
        }                                                                                    \
        for (int r = 0; r < ROWS && m + r < rows; ++r)                                       \
            for (int v = 0; v < COUNT; ++v)                                                  \
                *(__global IV *)(y + r * columns + n + v * W) = as_int16(whole[r][v]);       \
    }

typedef VEC(TB) TBV __attribute__((aligned(1)));
typedef int16 IV __attribute__((aligned(4)));

#ifdef ZERO_B
#define zero_of(v)                                                                     \
    as_uint16(zb_count == 1 ? (int16)(int)zb[0]                                        \
                            : convert_int16(*(__global const TBV *)(zb + n + (v) * W)))
#else
#define zero_of(v) ((uint16)0)
#endif

__kernel __attribute__((vec_type_hint(float16)))
void products(__global const float *a, __global const int *sums, __global const TB *b,
              __global const TB *zb, __global int *y, const int rows, const int columns,
              const int depth, const int zb_count, LEVELS)
{
    int n = (int)get_global_id(0) * (W * VECTORS);
    const int m = get_global_id(1) * ROWS;
    int batch = get_global_id(2);
    if (n >= columns || m >= rows) return;
    y += (batch * rows + m) * columns;
    __global const float *first = a;
    STEP(a, b)
    if (PANELS) b += (size_t)n * depth - n;
    __global const float *row[ROWS];
    uint sum[ROWS];
    for (int r = 0; r < ROWS; ++r) {
        row[r] = a + min(m + r, rows - 1) * depth;
        sum[r] = sums[(row[r] - first) / depth];
    }
    if (n + W * VECTORS <= columns) {
        TILE(VECTORS)
        return;
    }
    for (; n + W <= columns; n += W) TILE(1)
    for (; n < columns; ++n)
        for (int r = 0; r < ROWS && m + r < rows; ++r) {
            uint total = -sum[r] * FROM_B(n);
            for (int k = 0; k < depth; ++k) total += (int)row[r][k] * (int)b[k * PITCH + n];
            y[r * columns + n] = (int)total;
        }
}
