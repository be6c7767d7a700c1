/* Attention of few queries to many keys on GPUs, as language models decode: keys and values are
 * read once, by neighbouring items. Layouts are those of attention.cl.
 *
 * part_groups: a work-group of LOCAL items per CHUNK keys and pair ("flash decoding": Dao et al.,
 *   2023). Keys come to local memory in steps of 16 elements, four items a key; then an item has a
 *   key, for all rows. Scores lie in local memory; 16 items share a row's largest one and sum. Of
 *   the values, neighbours take four columns each, and sets of items every other key; EACH rows at
 *   a time. Bound by reading keys and values: ROWS / 2 flop per byte.
 * join_groups: four columns of a row per work-item.
 *
 * Scratch: sums (pairs, chunks, ROWS, VALUES), tops and totals (pairs, chunks, ROWS, 2). */

#ifndef CHUNK
#define CHUNK 64 /* keys of a group: a multiple of LOCAL */
#endif
#ifndef LOCAL
#define LOCAL 64 /* items of a group: a multiple of 16 */
#endif
#ifndef EACH
#define EACH 4 /* rows whose values are summed side by side */
#endif

#define W 4
#include "attention_score.cl"

#if WIDENED
#define READ4(p) convert_float4(*(__global const half4 *)(p))
#define WRITE4(p, v) *(__global half4 *)(p) = convert_half4(v)
#else
#define READ4(p) (*(__global const float4 *)(p))
#define WRITE4(p, v) *(__global float4 *)(p) = (v)
#endif

#define GROUP __attribute__((reqd_work_group_size(LOCAL, 1, 1)))
#define STEP 16 /* elements of a key at a time */
#define LINE (STEP + 1) /* of a key in local memory: neighbours' lie in different banks */
#define QUADS (VALUES / 4)
#define ACROSS (QUADS < LOCAL ? QUADS : LOCAL) /* items side by side in a value */
#define SETS (LOCAL / ACROSS)                  /* that take keys in turns */
#define LANES 16                               /* items that share a row of scores */
#define TEAMS (LOCAL / LANES)
#define MEET barrier(CLK_LOCAL_MEM_FENCE)

/* `value` of LANES items joined by JOIN, known to all of them. */
#define JOIN_LANES(value, JOIN)                                                        \
    {                                                                                  \
        MEET;                                                                          \
        joined[item] = value;                                                          \
        for (int half_lanes = LANES / 2; half_lanes > 0; half_lanes /= 2) {            \
            MEET;                                                                      \
            if (lane < half_lanes) joined[item] = JOIN(joined[item], joined[item + half_lanes]); \
        }                                                                              \
        MEET;                                                                          \
        value = joined[item - lane];                                                   \
    }
#define PLUS(a, b) ((a) + (b))

__kernel GROUP void part_groups(
    __global const T *q, __global const T *k, __global const T *v, __global const M *mask,
    __global float *sums, __global float *tops, const int kv_heads, const int columns,
    const int rows, const int by_image, const int by_head, const int by_row, const float scale,
    const float cap)
{
    __local float weights[ROWS * CHUNK], joined[LOCAL], asked[ROWS * STEP];
    __local float4 spare[LOCAL * EACH > (LOCAL * LINE + 3) / 4 ? LOCAL * EACH
                                                                : (LOCAL * LINE + 3) / 4];
    __local float *keys = (__local float *)spare;
    const int item = get_local_id(0), chunk = get_group_id(0), pair = get_group_id(1);
    const int chunks = get_num_groups(0);
    const int first = chunk * CHUNK, count = min(CHUNK, columns - first);
    const int image = pair / kv_heads, head = pair % kv_heads * (ROWS / rows);
    const int slot = (pair * chunks + chunk) * ROWS;
    q += pair * ROWS * SIZE;
    k += (pair * columns + first) * SIZE;
    v += (pair * columns + first) * VALUES;

    for (int tile = 0; tile < CHUNK; tile += LOCAL) {
        const int key = tile + item, inside = key < count;
        float dots[ROWS];
        for (int r = 0; r < ROWS; ++r) dots[r] = 0;
        for (int s = 0; s < SIZE; s += STEP) {
            MEET;
            for (int i = item; i < LOCAL * (STEP / 4); i += LOCAL) {
                const int of = i / (STEP / 4), at = i % (STEP / 4) * 4;
                const int row = min(tile + of, count - 1);
                const float4 four = READ4(k + row * SIZE + s + at);
                __local float *to = keys + of * LINE + at;
                to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
            }
            for (int i = item; i < ROWS * STEP; i += LOCAL)
                asked[i] = (float)q[i / STEP * SIZE + s + i % STEP];
            MEET;
            for (int e = 0; e < STEP; ++e) {
                const float of_key = keys[item * LINE + e];
                for (int r = 0; r < ROWS; ++r) dots[r] += of_key * asked[r * STEP + e];
            }
        }
        for (int r = 0; r < ROWS; ++r)
            weights[r * CHUNK + key] =
                inside ? scored(dots[r] * scale, r, first + key, cap, mask, image, head, rows,
                                by_image, by_head, by_row)
                       : -INFINITY;
    }

    MEET;
    const int lane = item % LANES, team = item / LANES;
    for (int row = 0; row < ROWS; row += TEAMS) {
        const int r = row + team, mine = r < ROWS;
        __local float *line = weights + min(r, ROWS - 1) * CHUNK;
        float top = -INFINITY, total = 0;
        for (int j = lane; j < CHUNK; j += LANES) top = fmax(top, line[j]);
        JOIN_LANES(top, fmax)
        const float base = top == -INFINITY ? 0.0f : top;
        for (int j = mine ? lane : CHUNK; j < CHUNK; j += LANES) {
            const float e = EXP_FALLING(float, line[j] - base);
            line[j] = e;
            total += e;
        }
        JOIN_LANES(total, PLUS)
        if (mine && lane == 0) {
            tops[2 * (slot + r)] = top;
            tops[2 * (slot + r) + 1] = total;
        }
    }

    for (int from = 0; from < QUADS; from += ACROSS)
        for (int row = 0; row < ROWS; row += EACH) {
            const int quad = from + item % ACROSS, set = item / ACROSS;
            const int mine = quad < QUADS && set < SETS;
            float4 all[EACH];
            for (int i = 0; i < EACH; ++i) all[i] = 0;
            MEET;
            for (int j = mine ? set : count; j < count; j += SETS) {
                const float4 value = READ4(v + j * VALUES + 4 * quad);
                for (int i = 0; i < EACH; ++i)
                    all[i] += value * weights[min(row + i, ROWS - 1) * CHUNK + j];
            }
            for (int i = 0; i < EACH; ++i) spare[i * LOCAL + item] = all[i];
            MEET;
            for (int i = mine ? set : EACH; i < EACH; i += SETS) {
                float4 sum = 0;
                for (int n = 0; n < SETS; ++n) sum += spare[i * LOCAL + n * ACROSS + item % ACROSS];
                if (row + i < ROWS)
                    *(__global float4 *)(sums + (slot + row + i) * VALUES + 4 * quad) = sum;
            }
        }
}

__kernel void join_groups(__global const float *sums, __global const float *tops, __global T *y,
                          const int chunks, const int lines)
{
    const int line = (int)get_global_id(0) / QUADS, quad = (int)get_global_id(0) % QUADS;
    if (line >= lines) return;
    const int from = line / ROWS * chunks * ROWS + line % ROWS;
    float top = -INFINITY, total = 0;
    for (int c = 0; c < chunks; ++c) top = fmax(top, tops[2 * (from + c * ROWS)]);
    const float base = top == -INFINITY ? 0.0f : top;
    float4 all = 0;
    for (int c = 0; c < chunks; ++c) {
        const int at = from + c * ROWS;
        const float share = exp(tops[2 * at] - base);
        total += share * tops[2 * at + 1];
        all += share * *(__global const float4 *)(sums + at * VALUES + 4 * quad);
    }
    WRITE4(y + line * VALUES + 4 * quad, all * (total > 0 ? 1 / total : 0));
}
