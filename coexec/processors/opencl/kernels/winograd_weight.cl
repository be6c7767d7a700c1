/* The gradient of the weights of 3 x 3 convolutions with stride 1 by minimal filtering, the
 * transpose of F(4 x 4, 3 x 3) (winograd_tiles.cl): of every tile of 4 x 4 positions of y,
 *     w[k, c] = G^T (sum over tiles of (A y[k] A^T) * (B^T x[c] B)) G.
 * Layout: x (images, channels, i1, i2), y (images, rows, o1, o2), and for each part of
 *     the tiles its sums, parts[part][panel of NR rows][channel][tap][NR], which the kernel
 *     `finish` of outer.cl adds, in order.
 *
 * Tiles are numbered image by image, row by row. A work-item owns a slot of `slots`. A task is a
 * part of the tiles (`part` of them) and `row_block` rows, whole panels. It takes `block` tiles at
 * a time: transforms their rows of y to [panel][point][tile][NR] in the slot, then, for
 * `channel_block` channels at a time, their patches of x to [point][tile][channel], which stay in
 * cache while they are multiplied with every panel, point by point, MR channels x NR rows in
 * registers, to [point][channel][NR]; transforms these back and adds them to the part's sums.
 * BITS: defined where x is there as blocks of codes (compress.cl). The images that a block of tiles
 * lies in are expanded for those channels, to [image][channel] at `window_at` of the slot.
 * Geometry: one work-item per slot, groups of one, tasks divided evenly, in order. */

#include "winograd_tiles.cl"
#include "winograd_products.cl"

#ifdef BITS
#include "blocks.cl"
#include "block_vectors.cl"
#define X_ARGUMENT __global const uint *words, __global const float *ends, const int window_at,
#else
#define X_ARGUMENT __global const T *x,
#endif

/* min and max are calls on some runtimes. */
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define MOST(a, b) ((a) > (b) ? (a) : (b))

/* to(0..5) = transform of four positions of y: the transpose of winograd.cl's for results. */
#define GRADIENT_TRANSFORM(to, y0, y1, y2, y3)                                                     \
    {                                                                                              \
        const float8 even_a = y0 + 2.0f * y2, odd_a = ROOT * y1 + (2 * ROOT) * y3;                 \
        const float8 even_b = y0 + 0.5f * y2, odd_b = HALF_ROOT * y1 + (0.5f * HALF_ROOT) * y3;    \
        to(0, y0);                                                                                 \
        to(1, even_a + odd_a);                                                                     \
        to(2, even_a - odd_a);                                                                     \
        to(3, even_b + odd_b);                                                                     \
        to(4, even_b - odd_b);                                                                     \
        to(5, y3);                                                                                 \
    }

/* to(0..2) = three weights from six sums: the transpose of winograd.cl's for weights. */
#define WEIGHT_TRANSFORM(to, m0, m1, m2, m3, m4, m5)                                               \
    {                                                                                              \
        const vec sum_a = m1 + m2, sum_b = m3 + m4;                                                \
        to(0, m0 + (1.0f / 6) * sum_a - (2.0f / 3) * sum_b);                                       \
        to(1, (ROOT / 6) * (m1 - m2) - (ROOT / 3) * (m3 - m4));                                    \
        to(2, (1.0f / 3) * (sum_a - sum_b) + m5);                                                  \
    }

#define POSITIONS(i)                                                                               \
    as_float8(as_int8((float8)(WIDEN4(*(__global const stored4 *)(a + at##i)),                     \
                               WIDEN4(*(__global const stored4 *)(b + at##i)))) &                  \
              keep##i)

/* Transform 4 x 4 positions of 8 rows of y, `plane` apart; those past `last` are row `last` again.
 * Positions from `height` x `width` on are zeros, but read. Point q of all goes to to[q * step],
 * eight elements. */
inline void transform_gradients(__global const T *y, const int plane, const int last,
                                const int pitch, const int height, const int width,
                                __global float *to, const int step)
{
    const int8 none = 0, keep0 = (int8)(0, 1, 2, 3, 0, 1, 2, 3) < width;
    const int8 keep1 = height > 1 ? keep0 : none, keep2 = height > 2 ? keep0 : none;
    const int8 keep3 = height > 3 ? keep0 : none;
    const int at0 = 0, at1 = height > 1 ? pitch : 0, at2 = height > 2 ? 2 * pitch : 0;
    const int at3 = height > 3 ? 3 * pitch : 0;
    float8 points[PATCH][4];
#pragma unroll 1
    for (int p = 0; p < 4; ++p) {
        __global const T *a = y + (p < last ? p : last) * plane;
        __global const T *b = y + (p + 4 < last ? p + 4 : last) * plane;
        const float8 y0 = POSITIONS(0), y1 = POSITIONS(1), y2 = POSITIONS(2), y3 = POSITIONS(3);
#define TO_GRADIENT_ROWS(i, value) points[i][p] = value
        GRADIENT_TRANSFORM(TO_GRADIENT_ROWS, y0, y1, y2, y3)
    }
#pragma unroll 1
    for (int i = 0; i < PATCH; ++i, to += PATCH * step) {
        const float8 a0 = points[i][0], a1 = points[i][1], a2 = points[i][2], a3 = points[i][3];
        COLUMNS(a0, a1, a2, a3, c0, c1, c2, c3)
#define TO_GRADIENTS(j, value) *(__global float8 *)(to + (j) * step) = value
        GRADIENT_TRANSFORM(TO_GRADIENTS, c0, c1, c2, c3)
    }
}

/* Transform one tile of rows `from` to `to` of y, panels of NR, of which there are `rows`. */
inline void transform_rows(__global const T *y, const int y_size, const int image,
                           const int from, const int to, const int rows, const int o, const int q,
                           const int o1, const int o2, __global T *stage,
                           __global float *gradients, const int step)
{
    const int plane = o1 * o2, height = LEAST(4, o1 - o), width = LEAST(4, o2 - q);
    for (int row = from; row < to; row += 8) {
        /* A panel's end may lie past the last row: nobody reads what is there. */
        const int first = LEAST(row, rows - 1), last = LEAST(7, rows - 1 - first);
        const int start = (image * rows + first) * plane + o * o2 + q;
        const int inside = start + last * plane + (height - 1) * o2 + 4 <= y_size;
        __global float *place =
            gradients + (row - from) / NR * POINTS * step + (row - from) % NR;
        if (!inside) {
#pragma unroll 1
            for (int i = 0; i < 8 * 16; ++i) {
                const int r = i / 4 % 4, c = i % 4, there = r < height && c < width;
                stage[i] = there ? y[start + LEAST(i / 16, last) * plane + r * o2 + c] : (T)0;
            }
        }
        transform_gradients(inside ? y + start : stage, inside ? plane : 16, inside ? last : 7,
                            inside ? o2 : 4, height, width, place, step);
    }
}

/* Transform the patches of one tile, `count` channels after `from`; point q of channel c goes to
 * to[q * step + c]. */
inline void transform_channels(__global const T *x, const int x_size, const int from,
                               const int plane, const int count, __global const int *at,
                               __global const int8 *keep, __global const int *staged,
                               __global T *stage, __global float *to, const int step)
{
    int low = at[0], high = at[0];
#pragma unroll 1
    for (int i = 1; i < PATCH; ++i) {
        low = LEAST(low, at[i]);
        high = MOST(high, at[i]);
    }
    for (int c = 0; c < count; c += 8) {
        const int start = from + c * plane;
        const int inside = start + low >= 0 && start + high + 7 * plane + 8 <= x_size;
        if (!inside) copy_patches(x, start, plane, x_size, at, keep, 0, stage);
        transform_patches(inside ? x + start : stage, inside ? plane : 8 * PATCH,
                          inside ? at : staged, keep, 0, to + c, step);
    }
}

/* Transform the sums of a channel and NR rows back (`step` elements between points) and add them
 * to [tap][NR], or begin there. */
inline void add_weights(__global const float *m, const int step, __global float *sums,
                        const int begin)
{
#pragma unroll 1
    for (int v = 0; v < NR; v += V, m += V, sums += V) {
        vec rows_of[3][PATCH];
#pragma unroll 1
        for (int j = 0; j < PATCH; ++j) {
#define SUM(i) const vec m##i = *(__global const vec *)(m + (i * PATCH + j) * step);
            TILES_6(SUM)
#define TO_WEIGHT_ROWS(i, value) rows_of[i][j] = value
            WEIGHT_TRANSFORM(TO_WEIGHT_ROWS, m0, m1, m2, m3, m4, m5)
        }
#pragma unroll 1
        for (int i = 0; i < 3; ++i) {
            __global float *to = sums + i * 3 * NR;
#define FROM_WEIGHT_ROWS(j) const vec r##j = rows_of[i][j];
            TILES_6(FROM_WEIGHT_ROWS)
#define WEIGHT(j) (*(__global vec *)(to + (j) * NR))
#define TO_WEIGHTS(j, value) WEIGHT(j) = begin ? value : WEIGHT(j) + value
            WEIGHT_TRANSFORM(TO_WEIGHTS, r0, r1, r2, r3, r4, r5)
        }
    }
}

__kernel ALONE void winograd_weight(X_ARGUMENT __global const T *y, __global float *parts,
                                    __global float *slots, const int rows,
                                    const int row_block, const int channels,
                                    const int channel_block, const int tiles, const int part,
                                    const int block, const int tasks, const int slot_size,
                                    const int x_size, const int y_size, const int i1, const int i2,
                                    const int o1, const int o2, const int p1, const int p2)
{
    const int across = (o2 + 3) / 4, down = (o1 + 3) / 4, plane = i1 * i2;
    const int panels = (rows + NR - 1) / NR, row_blocks = (rows + row_block - 1) / row_block;
    const int most = (channel_block + MR - 1) / MR * MR, sums_size = channels * 9 * NR;
    const int slot = get_global_id(0), count_of = get_global_size(0);
    __global float *m = slots + slot * slot_size;
    __global int8 *keep = (__global int8 *)(m + POINTS * STEP(most * NR));
    __global int *at = (__global int *)(keep + block * PATCH);
    __global int *staged = at + block * PATCH;
    __global T *stage = (__global T *)(staged + 8);
    __global float *gradients = m + POINTS * STEP(most * NR) +
                                (block * PATCH * 9 + 8 + 64 * PATCH + 15) / 16 * 16;
    __global float *patches = gradients + row_block / NR * POINTS * STEP(block * NR);
#ifdef BITS
    __global T *x = m + window_at; /* codes are expanded to float */
    const int image_size = channel_block * plane;
#else
    const int image_size = channels * plane;
#endif
#pragma unroll 1
    for (int i = 0; i < PATCH; ++i) staged[i] = i * 8;
    const int stop = (int)((long)tasks * (slot + 1) / count_of);
    for (int task = (int)((long)tasks * slot / count_of); task < stop; ++task) {
        const int begin = task / row_blocks * part, end = LEAST(begin + part, tiles);
        const int from = task % row_blocks * row_block, to = LEAST(from + row_block, panels * NR);
        __global float *sums =
            parts + (task / row_blocks * panels + from / NR) * sums_size;
        for (int start = begin; start < end; start += block) {
            const int count = LEAST(block, end - start);
            const int y_step = STEP(count * NR), x_step = STEP(count * channel_block);
#ifdef BITS
            const int first_image = start / (across * down);
            const int images = (start + count - 1) / (across * down) + 1 - first_image;
#else
            const int first_image = 0;
#endif
            for (int t = 0; t < count; ++t) {
                const int tile = start + t, image = tile / (across * down);
                const int o = tile / across % down * 4, q = tile % across * 4;
                find_patch(at + t * PATCH, keep + t * PATCH, 1,
                           (image - first_image) * image_size, o - p1, q - p2, i1, i2);
                transform_rows(y, y_size, image, from, to, rows, o, q, o1, o2, stage,
                               gradients + t * NR, y_step);
            }
            for (int channel = 0; channel < channels; channel += channel_block) {
                const int width = LEAST(channel_block, channels - channel);
#ifdef BITS
                for (int image = 0; image < images; ++image)
                    expand_run(words, ends, x + image * image_size,
                               ((first_image + image) * channels + channel) * plane,
                               width * plane);
                const int from_channel = 0;
#else
                const int from_channel = channel * plane;
#endif
                for (int t = 0; t < count; ++t)
                    transform_channels(x, x_size, from_channel, plane, width, at + t * PATCH,
                                       keep + t * PATCH, staged, stage,
                                       patches + t * channel_block, x_step);
                for (int panel = 0; panel < (to - from) / NR; ++panel) {
                    multiply(patches, gradients + panel * POINTS * y_step, m, POINTS, width,
                             channel_block, most, count, count,
                             gradients + (panel + 1) * POINTS * y_step);
                    for (int c = 0; c < width; ++c)
                        add_weights(m + c * NR, STEP(most * NR),
                                    sums + panel * sums_size + (channel + c) * 9 * NR,
                                    start == begin);
                }
            }
        }
    }
}
