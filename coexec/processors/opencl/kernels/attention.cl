/* Attention of few queries to many keys, as language models decode: keys and values are read once.
 * Layout: q (pairs, ROWS, SIZE), k (pairs, columns, SIZE), v (pairs, columns, VALUES), y (pairs,
 * ROWS, VALUES), contiguous; a pair is a key head of a sample, its ROWS are those of all query
 * heads that share it. SIZE and VALUES are multiples of 16.
 *
 * part: one work-item per chunk of keys and pair. It leaves the weighted sum of its values with the
 *       largest score and the sum of exponentials ("flash decoding": Dao et al., 2023).
 * join: one work-item per row and pair.
 *
 * Scratch: weights (pairs, chunks, ROWS, CHUNK), sums (pairs, chunks, ROWS, VALUES), tops and
 * totals (pairs, chunks, ROWS, 2). */

#ifndef CHUNK
#define CHUNK 256 /* keys of a work-item: a multiple of 16 */
#endif

#include "attention_score.cl"

typedef float16 float16u __attribute__((aligned(4)));
#define GET(p) (*(__global const float16u *)(p))
#define PUT(p, v) *(__global float16u *)(p) = (v)
#if WIDENED
typedef half16 half16u __attribute__((aligned(2)));
#define READ(p) convert_float16(*(__global const half16u *)(p))
#define WRITE(p, v) *(__global half16u *)(p) = convert_half16(v)
#else
#define READ(p) GET(p)
#define WRITE(p, v) PUT(p, v)
#endif
#define EACH 4 /* rows that are computed side by side */

inline float add_up(const float16 v)
{
    const float8 h8 = v.lo + v.hi;
    const float4 h4 = h8.lo + h8.hi;
    const float2 h2 = h4.lo + h4.hi;
    return h2.x + h2.y;
}

__kernel void part(__global const T *q, __global const T *k, __global const T *v,
                   __global const M *mask, __global float *weights, __global float *sums,
                   __global float *tops,
                   const int pairs, const int kv_heads, const int columns, const int rows,
                   const int by_image, const int by_head, const int by_row, const float scale,
                   const float cap)
{
    const int chunk = get_global_id(0), pair = get_global_id(1), chunks = get_global_size(0);
    if (pair >= pairs) return;
    const int first = chunk * CHUNK, count = min(CHUNK, columns - first);
    const int image = pair / kv_heads, head = pair % kv_heads * (ROWS / rows);
    const int slot = (pair * chunks + chunk) * ROWS;
    q += pair * ROWS * SIZE;
    k += (pair * columns + first) * SIZE;
    v += (pair * columns + first) * VALUES;
    weights += slot * CHUNK;
    sums += slot * VALUES;
    tops += slot * 2;
    for (int j = 0; j < count; ++j, k += SIZE)
        for (int r = 0; r < ROWS; r += EACH) {
            float16 dots[EACH];
            for (int i = 0; i < EACH; ++i) dots[i] = 0;
            for (int s = 0; s < SIZE; s += 16) {
                const float16 key = READ(k + s);
                for (int i = 0; i < EACH; ++i)
                    dots[i] += key * READ(q + min(r + i, ROWS - 1) * SIZE + s);
            }
            for (int i = 0; i < EACH && r + i < ROWS; ++i)
                weights[(r + i) * CHUNK + j] =
                    scored(add_up(dots[i]) * scale, r + i, first + j, cap, mask, image, head, rows,
                           by_image, by_head, by_row);
        }
    for (int r = 0; r < ROWS; ++r) {
        __global float *line = weights + r * CHUNK;
        for (int j = count; j < (count + 15) / 16 * 16; ++j) line[j] = -INFINITY;
        float16 best = -INFINITY, total = 0;
        for (int j = 0; j < count; j += 16) best = fmax(best, GET(line + j));
        float top = -INFINITY;
        for (int i = 0; i < 16; ++i) top = fmax(top, ((float *)&best)[i]);
        const float16 base = (float16)(top == -INFINITY ? 0.0f : top);
        for (int j = 0; j < count; j += 16) {
            const float16 e = EXP_FALLING(float16, GET(line + j) - base);
            PUT(line + j, e);
            total += e;
        }
        tops[2 * r] = top;
        tops[2 * r + 1] = add_up(total);
    }
    for (int s = 0; s < VALUES; s += 16)
        for (int r = 0; r < ROWS; r += EACH) {
            float16 all[EACH];
            for (int i = 0; i < EACH; ++i) all[i] = 0;
            for (int j = 0; j < count; ++j) {
                const float16 value = READ(v + j * VALUES + s);
                for (int i = 0; i < EACH; ++i)
                    all[i] += value * weights[min(r + i, ROWS - 1) * CHUNK + j];
            }
            for (int i = 0; i < EACH && r + i < ROWS; ++i) PUT(sums + (r + i) * VALUES + s, all[i]);
        }
}

__kernel void join(__global const float *sums, __global const float *tops, __global T *y,
                   const int chunks, const int lines)
{
    const int line = get_global_id(0);
    if (line >= lines) return;
    const int pair = line / ROWS, row = line % ROWS, from = pair * chunks * ROWS + row;
    float top = -INFINITY, total = 0;
    for (int c = 0; c < chunks; ++c) top = fmax(top, tops[2 * (from + c * ROWS)]);
    const float base = top == -INFINITY ? 0.0f : top;
    for (int c = 0; c < chunks; ++c) {
        __global const float *of = tops + 2 * (from + c * ROWS);
        total += of[1] * exp(of[0] - base);
    }
    const float factor = total > 0 ? 1 / total : 0;
    for (int s = 0; s < VALUES; s += 16) {
        float16 all = 0;
        for (int c = 0; c < chunks; ++c)
            all += GET(sums + (from + c * ROWS) * VALUES + s) *
                   exp(tops[2 * (from + c * ROWS)] - base);
        WRITE(y + line * VALUES + s, all * factor);
    }
}
