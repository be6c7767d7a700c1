/* Maximum pooling that notes which element of each window it took, and its gradient.
 * Layout: x (planes, in_d, in_h, in_w), y, dy and taps (planes, out_d, out_h, out_w), row-major. A
 * tap is the row-major number of an element of its window, 255 where no gradient passes: with
 * `positive`, where the maximum is not above 0.
 *
 * max_pool_taps, max_pool_taps_grad: one work-item per element of the result; geometry x = position
 *     along w, y = all other positions, both padded to the work-group.
 * pairs, pairs_grad (TILES 1): windows are the 2 x 2 tiles of x, V at a time; out_w >= V, the last
 *     vector of a row overlaps its neighbour. One work-item per share of all rows of windows
 *     (divided evenly, in order), groups of one. A last odd row or column is in no window.
 *     BITS: defined where pairs also keeps y as blocks of codes (compress.cl), `granule` rows of
 *     windows being whole blocks. */

#ifndef T
#define T float /* element type of x and y */
#endif
#ifndef ACC
#define ACC float /* type that sums are made in */
#endif
#ifndef TILES
#define TILES 0 /* 1: the kernels for 2 x 2 tiles */
#endif

#define NONE 255

#if TILES == 0

#define AXIS(a)                                                                                 \
    const int in_##a, const int out_##a, const int kernel_##a, const int stride_##a,            \
        const int dilation_##a, const int pad_##a, const int end_##a

__kernel void max_pool_taps(__global const T *x, __global T *y, __global uchar *taps,
                            const int positive, const int rows, AXIS(d), AXIS(h), AXIS(w))
{
    const int o_w = get_global_id(0), row = get_global_id(1);
    if (o_w >= out_w || row >= rows) return;
    const int o_h = row % out_h, o_d = row / out_h % out_d, plane = row / out_h / out_d;
    T best = 0;
    int tap = NONE, number = 0;
    for (int d = 0; d < kernel_d; ++d)
        for (int h = 0; h < kernel_h; ++h)
            for (int w = 0; w < kernel_w; ++w, ++number) {
                const int i_d = o_d * stride_d - pad_d + d * dilation_d;
                const int i_h = o_h * stride_h - pad_h + h * dilation_h;
                const int i_w = o_w * stride_w - pad_w + w * dilation_w;
                if (i_d < 0 || i_d >= in_d || i_h < 0 || i_h >= in_h || i_w < 0 || i_w >= in_w)
                    continue;
                const T v = x[((plane * in_d + i_d) * in_h + i_h) * in_w + i_w];
                if (tap == NONE || v > best || v != v) {
                    best = v;
                    tap = number;
                }
            }
    const int at = row * out_w + o_w;
    y[at] = tap == NONE ? (T)-INFINITY : best;
    taps[at] = positive && !(best > 0) ? NONE : tap;
}

/* Windows that may hold input i: first (included) and last (included). */
#define WINDOWS(a)                                                                              \
    const int low_##a = i_##a + pad_##a - (kernel_##a - 1) * dilation_##a;                      \
    const int first_##a = low_##a <= 0 ? 0 : (low_##a + stride_##a - 1) / stride_##a;           \
    const int last_##a = min((i_##a + pad_##a) / stride_##a, out_##a - 1);
#define OFFSET(a) (i_##a + pad_##a - o_##a * stride_##a)

__kernel void max_pool_taps_grad(__global const uchar *taps, __global const T *dy, __global T *dx,
                                 const int rows, AXIS(d), AXIS(h), AXIS(w))
{
    const int i_w = get_global_id(0), row = get_global_id(1);
    if (i_w >= in_w || row >= rows) return;
    const int i_h = row % in_h, i_d = row / in_h % in_d, plane = row / in_h / in_d;
    WINDOWS(d)
    WINDOWS(h)
    WINDOWS(w)
    ACC sum = 0;
    for (int o_d = first_d; o_d <= last_d; ++o_d)
        for (int o_h = first_h; o_h <= last_h; ++o_h)
            for (int o_w = first_w; o_w <= last_w; ++o_w) {
                if (OFFSET(d) % dilation_d || OFFSET(h) % dilation_h || OFFSET(w) % dilation_w)
                    continue;
                const int tap = (OFFSET(d) / dilation_d * kernel_h + OFFSET(h) / dilation_h) *
                                    kernel_w + OFFSET(w) / dilation_w;
                const int at = ((plane * out_d + o_d) * out_h + o_h) * out_w + o_w;
                if (taps[at] == tap) sum += (ACC)dy[at];
            }
    dx[row * in_w + i_w] = (T)sum;
}

#else

#include "alone.cl"
#include "column_pairs.cl"

typedef JOIN(int, V) places;
typedef JOIN(uchar, V) bytes __attribute__((aligned(1)));
#define TO_PLACES(v) JOIN(convert_int, V)(v)
#define TO_BYTES(v) JOIN(convert_uchar, V)(v)

/* A later element is the maximum if it is larger or no number. Taps are floats, of the maxima's
 * width, until they are stored. */
#define TAKE(v, number)                                                                         \
    {                                                                                           \
        const places better = (v > best) | (v != v);                                            \
        best = better ? v : best;                                                               \
        tap = better ? (fetched)(number) : tap;                                                 \
    }
#ifdef BITS
#include "blocks.cl"
#include "block_vectors.cl"
#define KEEP_ARGUMENT __global uint *words, __global E *ends, const int granule,
#define GRANULE granule
#else
#define KEEP_ARGUMENT
#define GRANULE 1
#endif
/* Shares of whole granules. */
#define SHARE(item, granule) ((int)((long)(lines / (granule)) * (item) / count) * (granule))
#define ROWS(granule)                                                                           \
    const int item = get_global_id(0), count = get_global_size(0);                              \
    const int end = SHARE(item + 1, granule);                                                   \
    for (int line = SHARE(item, granule); line < end; ++line)
#define SIZES const int lines, const int i1, const int i2, const int o1, const int o2
#define NEXT_COLUMN                                                                             \
    if (col == o2 - V) break;                                                                   \
    col = col + V < o2 - V ? col + V : o2 - V;

__kernel ALONE void pairs(__global const T *x, __global T *y, __global uchar *taps,
                          KEEP_ARGUMENT const int positive, SIZES)
{
    ROWS(GRANULE) {
        __global const T *from = x + (line / o1 * i1 + 2 * (line % o1)) * i2;
        for (int col = 0;;) {
            LOAD_PAIRS(from + 2 * col, v0, v1)
            LOAD_PAIRS(from + 2 * col + i2, v2, v3)
            fetched best = v0;
            fetched tap = 0;
            TAKE(v1, 1)
            TAKE(v2, 2)
            TAKE(v3, 3)
            if (positive) tap = best > 0 ? tap : (fetched)NONE;
            STORE(y + line * o2 + col, best);
            *(__global bytes *)(taps + line * o2 + col) = TO_BYTES(tap);
            NEXT_COLUMN
        }
#ifdef BITS
        if ((line + 1) % granule) continue;
        for (int at = (line + 1 - granule) * o2; at < (line + 1) * o2; at += BLOCK)
            compress_block(y + at, words + at / BLOCK * WORDS, ends + at / BLOCK * 2);
#endif
    }
}

__kernel ALONE void pairs_grad(__global const uchar *taps, __global const T *dy, __global T *dx,
                               SIZES)
{
    ROWS(1) {
        const int row = line % o1, top = (line / o1 * i1 + 2 * row) * i2;
        for (int col = 0;;) {
            const int at = line * o2 + col, to = top + 2 * col;
            const places tap = TO_PLACES(*(__global const bytes *)(taps + at));
            const fetched flow = LOAD(dy + at), none = 0;
            const fetched d0 = tap == 0 ? flow : none, d1 = tap == 1 ? flow : none;
            const fetched d2 = tap == 2 ? flow : none, d3 = tap == 3 ? flow : none;
            STORE_PAIRS(dx + to, d0, d1)
            STORE_PAIRS(dx + to + i2, d2, d3)
            NEXT_COLUMN
        }
        if (i2 % 2) dx[top + i2 - 1] = dx[top + 2 * i2 - 1] = 0;
        if (i1 % 2 && row == o1 - 1)
            for (int i = 0; i < i2; ++i) dx[top + 2 * i2 + i] = 0;
    }
}

#endif
