/* The gradient of a convolution's input, or its transpose, as one matrix product and the sum of the
 * terms that meet in an element: X = col2im(W^T * Y), with X[c, q * s - p + t * d] += S[(c, t), q].
 * Layout: y (images, depth, o0, o1, o2), w (depth, channels, k0, k1, k2), x (images, channels, i0,
 * i1, i2), all of type T: float, or half, which is multiplied and added up as float.
 *
 * Rows (c, t) of W^T are contiguous for each of `depth`, and columns q are runs of y: neither is
 * gathered. A task is `channel_block` channels and `sheet_block` sheets, a sheet being `positions`
 * positions of an image: all, or a piece of a pointwise convolution (`flat`), of which S is X. In
 * its slot it packs its rows of w, tiles of MR, [tile][step][MR], for `depth_block` steps at a
 * time; copies a panel of NR columns, [step][NR], and multiplies all tiles with it, so that sums
 * [row][pitch] stay in cache; then it adds up the planes of X, line by line. Columns of a sheet
 * fill whole vectors.
 * Geometry: one work-item per slot, groups of one; tasks are divided evenly, in order. */

#include "alone.cl"

#ifndef MR
#define MR 6 /* rows of a register tile: 4, 6, 8 or 12 */
#endif
#ifndef NV
#define NV 2 /* vectors in a register tile: 1 to 3 */
#endif
#define NR (NV * V)
#define PAD 16 /* elements between tiles of w, which then share no cache sets */

typedef JOIN(ACC, V) vec;
typedef float4 float4u __attribute__((aligned(4)));
typedef float8 float8u __attribute__((aligned(4)));
#if SAME
#define TAKE8(p) (*(__global const float8u *)(p))
#define GIVE4(p, v) *(__global float4u *)(p) = (v)
#define GIVE8(p, v) *(__global float8u *)(p) = (v)
#else
typedef half4 half4u __attribute__((aligned(2)));
typedef half8 half8u __attribute__((aligned(2)));
#define TAKE8(p) convert_float8(*(__global const half8u *)(p))
#define GIVE4(p, v) *(__global half4u *)(p) = convert_half4(v)
#define GIVE8(p, v) *(__global half8u *)(p) = convert_half8(v)
#endif
#define AS_VECTOR(type, v) as_##type(v)
#define LEAST(a, b) ((a) < (b) ? (a) : (b)) /* min is a call on some runtimes */

#define ROWS_4(F) F(0) F(1) F(2) F(3)
#define ROWS_6(F) ROWS_4(F) F(4) F(5)
#define ROWS_8(F) ROWS_6(F) F(6) F(7)
#define ROWS_12(F) ROWS_8(F) F(8) F(9) F(10) F(11)
#define ROWS(F) JOIN(ROWS_, MR)(F)
#define VECTORS_1(F, i) F(i, 0)
#define VECTORS_2(F, i) VECTORS_1(F, i) F(i, 1)
#define VECTORS_3(F, i) VECTORS_2(F, i) F(i, 2)
#define VECTORS(F, i) JOIN(VECTORS_, NV)(F, i)
#define START_ONE(i, v) vec c##i##_##v = fresh ? (vec)0 : *(__global vec *)(to + i * pitch + v * V);
#define START(i) VECTORS(START_ONE, i)
#define FETCH(i, v) const vec b##v = *(__global const vec *)(right + v * V);
#define MULTIPLY_ONE(i, v) c##i##_##v += e##i * b##v;
#define MULTIPLY(i)                                                                                \
    const float e##i = left[i];                                                                    \
    VECTORS(MULTIPLY_ONE, i)
#define KEEP_ONE(i, v) *(__global vec *)(to + i * pitch + v * V) = c##i##_##v;
#define KEEP(i) VECTORS(KEEP_ONE, i)

/* Rows of w from `at` on, `tiles` * MR of them, for `steps` steps that lie `w_step` apart. Eight
 * elements move at a time; those of other tiles among them are overwritten by the next step. */
inline void pack_rows(__global const T *w, __global float *packed, const int at,
                      const int w_size, const int w_step, const int tiles, const int steps,
                      const int tile_size)
{
    for (int k = 0; k < steps; ++k) {
        const int from = at + k * w_step;
        __global float *to = packed + k * MR;
        if (from + tiles * MR + 8 <= w_size) {
            for (int tile = 0; tile < tiles; ++tile, to += tile_size)
#pragma unroll
                for (int i = 0; i < MR; i += 8)
                    *(__global float8u *)(to + i) = TAKE8(w + from + tile * MR + i);
            continue;
        }
        for (int tile = 0; tile < tiles; ++tile, to += tile_size)
#pragma unroll 1
            for (int i = 0; i < MR; ++i) to[i] = w[LEAST(from + tile * MR + i, w_size - 1)];
    }
}

/* V columns of y from `at` on, for `steps` steps that lie `y_step` apart. Those beyond a sheet are
 * anything. */
inline void copy_columns(__global const T *y, __global float *panel, const int at,
                         const int y_size, const int y_step, const int steps)
{
    const int whole = LEAST(steps, (y_size - V - at) / y_step + 1);
    int k = 0;
    if (y_size - V - at >= 0)
        for (; k < whole; ++k)
            *(__global vec *)(panel + k * NR) =
                WIDEN(*(__global const stored *)(y + at + k * y_step));
    for (; k < steps; ++k)
#pragma unroll 1
        for (int j = 0; j < V; ++j) panel[k * NR + j] = y[LEAST(at + k * y_step + j, y_size - 1)];
}

/* L sums of a tap, columns `first` and on of a line of y, those that it does not have as zeros. */
#define LINE_SUMS(L, from, first)                                                                  \
    as_float##L(as_int##L(*(__global const float##L##u *)(from)) & (first + lanes##L >= 0) &       \
                (first + lanes##L < o2))
#define FOR_TAPS(first_of, L)                                                                      \
    for (int f = 0; f < found; ++f)                                                                \
        for (int t = 0; t < k2; ++t) {                                                             \
            const int first = first_of;                                                            \
            if (first <= -L || first >= o2) continue;                                              \
            __global const float *from = sums + at[f] + t * pitch + first;
#define END_TAPS }
/* A line without stride, L elements at a time; the last ones overlap. */
#define ADD_LINE(L)                                                                                \
    for (int j = 0; j < i2; j += L) {                                                              \
        const int i = LEAST(j, i2 - L);                                                            \
        float##L sum = lift;                                                                       \
        FOR_TAPS(i + p2 - t * d2, L)                                                               \
            sum += LINE_SUMS(L, from, first);                                                      \
        END_TAPS                                                                                   \
        GIVE##L(line + i, sum);                                                                    \
    }
/* Eight elements of a line of stride 2: even ones and odd ones have taps of their own. */
#define ADD_PAIRS                                                                                  \
    for (int j = 0; j < i2 / 2; j += 4) {                                                          \
        const int i = LEAST(j, i2 / 2 - 4);                                                        \
        float4 even = lift, odd = lift;                                                            \
        FOR_TAPS(i + ((p2 - t * d2 + 1) >> 1), 4)                                                  \
            const float4 part = LINE_SUMS(4, from, first);                                         \
            if ((p2 - t * d2) & 1) odd += part;                                                    \
            else even += part;                                                                     \
        END_TAPS                                                                                   \
        GIVE4(line + 2 * i, (float4)(even.s0, odd.s0, even.s1, odd.s1));                           \
        GIVE4(line + 2 * i + 4, (float4)(even.s2, odd.s2, even.s3, odd.s3));                       \
    }

/* A line of X: `lift` and the sums of `found` taps at `at` (axes 0 and 1) and k2 taps, `pitch`
 * apart. */
inline void add_line(__global const float *sums, __global const int *at, const int found,
                     __global T *line, const float lift, const int pitch, const int i2,
                     const int o2, const int k2, const int s2, const int p2, const int d2)
{
    const int8 lanes8 = (int8)(0, 1, 2, 3, 4, 5, 6, 7);
    const int4 lanes4 = (int4)(0, 1, 2, 3);
    int done = 0;
    if (s2 == 1 && i2 >= 8) {
        ADD_LINE(8)
        done = i2;
    } else if (s2 == 1 && i2 >= 4) {
        ADD_LINE(4)
        done = i2;
    } else if (s2 == 2 && i2 >= 8) {
        ADD_PAIRS
        done = i2 / 2 * 2;
    }
#pragma unroll 1
    for (int i = done; i < i2; ++i) {
        float sum = lift;
#pragma unroll 1
        for (int f = 0; f < found; ++f)
#pragma unroll 1
            for (int t = 0; t < k2; ++t) {
                const int place = i + p2 - t * d2;
                if (place >= 0 && place % s2 == 0 && place / s2 < o2)
                    sum += sums[at[f] + t * pitch + place / s2];
            }
        line[i] = (T)sum;
    }
}

/* For each line of X the taps of axes 0 and 1 that reach it: where their sums lie, behind their
 * number. */
inline void list_taps(__global int *lists, const int pitch, const int i0, const int i1,
                      const int o0, const int o1, const int o2, const int k0, const int k1,
                      const int k2, const int s0, const int s1, const int p0, const int p1,
                      const int d0, const int d1)
{
    for (int x0 = 0; x0 < i0; ++x0)
        for (int x1 = 0; x1 < i1; ++x1, lists += 1 + k0 * k1) {
            int found = 0;
#pragma unroll 1
            for (int t = 0; t < k0 * k1; ++t) {
                const int a = x0 + p0 - t / k1 * d0, b = x1 + p1 - t % k1 * d1;
                if (a < 0 || b < 0 || a % s0 || b % s1 || a / s0 >= o0 || b / s1 >= o1) continue;
                lists[++found] = t * k2 * pitch + (a / s0 * o1 + b / s1) * o2;
            }
            lists[0] = found;
        }
}

__kernel ALONE void col2im(__global const T *y, __global const T *w,
                           __global const T *bias, __global T *x, __global float *slots,
                           const int has_bias, const int flat, const int images, const int depth,
                           const int channels, const int depth_block, const int channel_block,
                           const int sheet_block, const int pieces, const int positions,
                           const int pitch, const int tasks, const int slot_size, const int i0,
                           const int i1, const int i2, const int o0, const int o1, const int o2,
                           const int k0, const int k1, const int k2, const int s0, const int s1,
                           const int s2, const int p0, const int p1, const int p2, const int d0,
                           const int d1, const int d2)
{
    const int taps = k0 * k1 * k2, y_step = o0 * o1 * o2, x_plane = i0 * i1 * i2;
    const int sheets = images * pieces, w_step = channels * taps, w_size = depth * w_step;
    const int y_size = images * depth * y_step, width = (positions + V - 1) / V * V;
    const int most_tiles = (channel_block * taps + MR - 1) / MR;
    const int tile_size = (depth_block * MR + 2 * PAD - 1) / PAD * PAD;
    const int sheet_blocks = (sheets + sheet_block - 1) / sheet_block;
    const int slot = get_global_id(0), count_of = get_global_size(0);
    __global float *panel = slots + slot * slot_size;
    __global float *packed = panel + depth_block * NR;
    __global float *sums = packed + most_tiles * tile_size + PAD;
    __global int *lists = (__global int *)(sums + most_tiles * MR * pitch + PAD);
    if (!flat) list_taps(lists, pitch, i0, i1, o0, o1, o2, k0, k1, k2, s0, s1, p0, p1, d0, d1);
    const int end = (int)((long)tasks * (slot + 1) / count_of);
    for (int task = (int)((long)tasks * slot / count_of); task < end; ++task) {
        const int first = task / sheet_blocks * channel_block;
        const int last = LEAST(first + channel_block, channels);
        const int start = task % sheet_blocks * sheet_block;
        const int count = LEAST(sheet_block, sheets - start), vectors = count * (width / V);
        const int tiles = ((last - first) * taps + MR - 1) / MR;
        for (int k = 0; k < depth; k += depth_block) {
            const int steps = LEAST(depth_block, depth - k), fresh = k == 0;
            pack_rows(w, packed, k * w_step + first * taps, w_size, w_step, tiles, steps,
                      tile_size);
            for (int vector = 0; vector < vectors; vector += NV) {
                for (int v = 0; v < NV && vector + v < vectors; ++v) {
                    const int sheet = start + (vector + v) * V / width;
                    const int inside = (vector + v) * V % width + sheet % pieces * positions;
                    copy_columns(y, panel + v * V,
                                 (sheet / pieces * depth + k) * y_step + inside, y_size, y_step,
                                 steps);
                }
                for (int tile = 0; tile < tiles; ++tile) {
                    __global const float *left = packed + tile * tile_size, *right = panel;
                    __global float *to = sums + tile * MR * pitch + vector * V;
                    ROWS(START)
                    for (int s = 0; s < steps; ++s) {
                        VECTORS(FETCH, 0)
                        ROWS(MULTIPLY)
                        left += MR;
                        right += NR;
                    }
                    ROWS(KEEP)
                }
            }
        }
        for (int c = first; c < last; ++c) {
            const float lift = has_bias ? (float)bias[c] : 0.0f;
            for (int s = 0; s < count; ++s) {
                const int image = (start + s) / pieces, piece = (start + s) % pieces * positions;
                __global const float *result = sums + (c - first) * taps * pitch + s * width;
                __global T *to = x + (image * channels + c) * x_plane + piece;
                if (flat) {
                    const int size = LEAST(positions, x_plane - piece);
                    int i = 0;
                    for (; i + V <= size; i += V)
                        *(__global stored *)(to + i) =
                            NARROW(*(__global const vec *)(result + i) + lift);
                    for (; i < size; ++i) to[i] = (T)(result[i] + lift);
                    continue;
                }
                __global const int *list = lists;
                for (int l = 0; l < i0 * i1; ++l, list += 1 + k0 * k1, to += i2)
                    add_line(result, list + 1, list[0], to, lift, pitch, i2, o2, k2, s2, p2, d2);
            }
        }
    }
}
