/* Steps of recurrent layers and their gradients by lone work-items in vectors of float; layouts and
 * what cells are stand in recurrent_cell.cl.
 *
 * A task is a block of samples of one direction, and takes all steps: samples do not wait for each
 * other. Where there are fewer tasks than cores, a team takes each task: its members divide the
 * panels of a step among themselves, and wait for each other between steps (team.cl). What a step multiplies with stands in panels that stay in cache: for the
 * steps [units / W][units][G][W], all gates of W units; for the gradient
 * [units / (WIDE W)][G units][WIDE][W], WIDE W columns. A tile is ROWS samples times a panel; its
 * sums stand in registers. Rows past a block's end repeat its last one and are not stored; lanes
 * past the last unit are zero.
 * Geometry: directions times blocks of `share` samples times TEAM; pack_panels: directions times
 * panels. */

#include "recurrent_cell.cl"
#include "vectors.cl"
#include "exponential.cl"
#include "team.cl"

#ifndef ROWS
#define ROWS 4 /* samples of a tile */
#endif
#ifndef WIDE
#define WIDE 4 /* vectors of a panel: G forwards */
#endif
#ifndef BACK
#define BACK 0 /* whether panels are for the gradient */
#endif

typedef VEC(float) vec;
typedef VEC(float) loose __attribute__((aligned(4))); /* anywhere in a tensor */
#define LONE __attribute__((reqd_work_group_size(1, 1, 1), vec_type_hint(vec)))
#define INLINE static inline __attribute__((always_inline))

/* `count` elements at p, from W on all lanes. */
INLINE vec get(__global const float *p, const int count)
{
    if (count >= W) return *(__global const loose *)p;
    float lanes[W];
    for (int i = 0; i < W; ++i) lanes[i] = i < count ? p[i] : 0;
    return *(const loose *)lanes;
}

INLINE void put(__global float *p, const vec v, const int count)
{
    if (count >= W) {
        *(__global loose *)p = v;
        return;
    }
    float lanes[W];
    *(loose *)lanes = v;
    for (int i = 0; i < count; ++i) p[i] = lanes[i];
}

INLINE vec sigmoid(const vec x) { return (vec)1.0f / ((vec)1.0f + EXP(VEC(float), -x)); }
/* By its own exponential, which is exact to float's step at 1, not near 0. */
INLINE vec squash(const vec x)
{
    return (vec)1.0f - (vec)2.0f / (EXP(VEC(float), x + x) + (vec)1.0f);
}

/* Numbers of teams, `numbers` of them, are 0 before their first kernel. */
__kernel LONE void pack_panels(__global const float *recurrent, __global float *panels,
                               __global int *words, const int units, const int count,
                               const int numbers)
{
    if (get_global_id(0) == 0)
        for (int i = 0; i < numbers; ++i) words[i] = 0;
    const int d = get_global_id(0) / count, panel = get_global_id(0) % count;
    const int depth = BACK ? G * units : units;
    __global float *to = panels + (size_t)get_global_id(0) * depth * WIDE * W;
    recurrent += (size_t)d * G * units * units;
    for (int k = 0; k < depth; ++k)
        for (int w = 0; w < WIDE; ++w)
            for (int i = 0; i < W; ++i) {
                const int j = BACK ? (panel * WIDE + w) * W + i : panel * W + i;
                const int row = BACK ? k : w * units + j, column = BACK ? j : k;
                to[(k * WIDE + w) * W + i] = j < units ? recurrent[row * units + column] : 0;
            }
}

/* Sums side by side of each element: with few of them, each waits for the one before. */
#define CHAINS (ROWS * WIDE == 1 ? 4 : ROWS * WIDE < 4 ? 2 : 1)
/* to[r][w] += a[r][k] * panel[k][w]. */
#define ADD_PRODUCT(to, k)                                                                         \
    {                                                                                              \
        vec b[WIDE];                                                                               \
        _Pragma("unroll") for (int w = 0; w < WIDE; ++w)                                           \
            b[w] = *(__global const loose *)(panel + ((k) * WIDE + w) * W);                        \
        _Pragma("unroll") for (int r = 0; r < ROWS; ++r) {                                         \
            const vec e = (vec)a[r][k];                                                            \
            _Pragma("unroll") for (int w = 0; w < WIDE; ++w) to[r][w] += e * b[w];                 \
        }                                                                                          \
    }
/* sums[r][w] = a[r][k] * panel[k][w] over all k. */
#define MULTIPLY(depth)                                                                            \
    {                                                                                              \
        int k = 0;                                                                                 \
        vec parts[CHAINS][ROWS][WIDE];                                                             \
        _Pragma("unroll") for (int c = 0; c < CHAINS; ++c)                                         \
            _Pragma("unroll") for (int r = 0; r < ROWS; ++r)                                       \
                _Pragma("unroll") for (int w = 0; w < WIDE; ++w) parts[c][r][w] = 0;               \
        for (; k + CHAINS <= (depth); k += CHAINS)                                                 \
            _Pragma("unroll") for (int c = 0; c < CHAINS; ++c) ADD_PRODUCT(parts[c], k + c)        \
        for (; k < (depth); ++k) ADD_PRODUCT(parts[0], k)                                          \
        _Pragma("unroll") for (int r = 0; r < ROWS; ++r)                                           \
            _Pragma("unroll") for (int w = 0; w < WIDE; ++w) {                                     \
            sums[r][w] = parts[0][r][w];                                                           \
            _Pragma("unroll") for (int c = 1; c < CHAINS; ++c) sums[r][w] += parts[c][r][w];       \
        }                                                                                          \
    }

#if !BACK
__kernel LONE void panels_steps(
    __global const float *fed, __global const float *panels, __global const float *h0,
    __global const float *c0, __global const float *peepholes, __global const float *shift,
    __global const TL *lengths, __global float *y, __global float *h_last, __global float *c_last,
    __global float *gates, __global float *kept, __global int *words, const int steps,
    const int batch, const int directions, const int units, const int share)
{
    const int blocks = (batch + share - 1) / share, task = get_global_id(0) / TEAM;
    const int d = task / blocks, begin = task % blocks * share, end = min(begin + share, batch);
    const int count = (units + W - 1) / W;
    panels += (size_t)d * count * units * WIDE * W;
#if TEAM > 1
    words += task * (2 + TEAM) * LINE;
    const int rank = atomic_inc((counter)CAME(words));
    int call = 0, together = 1;
#else
    const int rank = 0;
#endif
    for (int s = 0; s < steps; ++s) {
        int members = 1;
#if TEAM > 1
        if (rank == 0) {
            if (together) members = call_up(words, s);
        } else {
            call = await_call(words, rank, call, steps);
            members = call & 255, s = (call >> 8) - 1;
            if (s >= steps) break;
        }
#endif
        const int t = TIME(s, d), starts = HAS_H0 ? 0 : s == 0, last = count * (rank + 1) / members;
        __global const float *h = s > 0 ? y + STATE(TIME(s - 1, d), 0, d, 0) : h0 + ONE(0, d, 0);
        for (int at = count * rank / members; at < last; ++at) {
            __global const float *panel = panels + (size_t)at * units * WIDE * W;
            const int j = at * W, rest = units - j;
#if CELL == 4
            __global const float *p = peepholes + d * 3 * units + j;
#endif
            for (int n = begin; n < end; n += ROWS) {
                __global const float *a[ROWS];
                vec sums[ROWS][WIDE];
#pragma unroll
                for (int r = 0; r < ROWS; ++r) a[r] = h + (size_t)min(n + r, end - 1) * units;
                MULTIPLY(starts ? 0 : units)
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const int m = n + r;
                    if (m >= end) continue;
                    const vec before = starts ? (vec)0 : get(h + (size_t)m * units + j, rest);
                    vec value[G], state;
#pragma unroll
                    for (int g = 0; g < G; ++g) value[g] = get(fed + GATE(t, m, d, g, j), rest);
#if CELL == 4
                    const vec c = s > 0 ? get(c_last + ONE(m, d, j), rest)
                                        : HAS_C0 ? get(c0 + ONE(m, d, j), rest) : (vec)0;
                    vec i = value[0] + sums[r][0], f = value[2] + sums[r][2];
                    if (PEEP) i += get(p, rest) * c, f += get(p + 2 * units, rest) * c;
                    value[0] = sigmoid(i), value[2] = sigmoid(f);
                    value[3] = squash(value[3] + sums[r][3]);
                    const vec cell = value[2] * c + value[0] * value[3];
                    vec o = value[1] + sums[r][1];
                    if (PEEP) o += get(p + units, rest) * cell;
                    value[1] = sigmoid(o);
                    state = value[1] * squash(cell);
                    const vec keep = INSIDE(t, m) ? cell : c;
                    put(c_last + ONE(m, d, j), keep, rest);
#elif CELL == 3
                    vec keep = sums[r][2];
                    if (SHIFT) keep += get(shift + d * units + j, rest);
                    value[0] = sigmoid(value[0] + sums[r][0]);
                    value[1] = sigmoid(value[1] + sums[r][1]);
                    value[2] = squash(value[2] + value[1] * keep);
                    state = value[2] + value[0] * (before - value[2]);
#else
                    value[0] += sums[r][0];
                    value[0] = RELU ? fmax(value[0], (vec)0) : squash(value[0]);
                    state = value[0];
#endif
                    put(y + STATE(t, m, d, j), INSIDE(t, m) ? state : before, rest);
                    if (!SAVE) continue;
#pragma unroll
                    for (int g = 0; g < G; ++g) put(gates + GATE(t, m, d, g, j), value[g], rest);
#if CELL > 1
                    put(kept + STATE(t, m, d, j), keep, rest);
#endif
                }
            }
        }
#if TEAM > 1
        if (rank > 0) {
            publish(DONE(words, rank), s + 1);
        } else if (!gather_members(words, members, s)) {
            together = 0;
            dismiss(words, steps);
        }
#endif
    }
#if TEAM > 1
    if (rank == 0) dismiss(words, steps);
    leave(words);
    if (rank > 0) return;
#endif
    __global const float *h = y + STATE(TIME(steps - 1, d), 0, d, 0);
    for (int n = begin; n < end; ++n)
        for (int j = 0; j < units; ++j) h_last[ONE(n, d, j)] = h[(size_t)n * units + j];
}
#else
/* d_fed may be where gates are. d_products is d_fed but for a GRU. */
__kernel LONE void panels_grad(
    __global const float *gates, __global const float *panels, __global const float *h0,
    __global const float *c0, __global const float *peepholes, __global const TL *lengths,
    __global const float *kept, __global const float *y, __global const float *dy,
    __global const float *dh, __global const float *dc, __global float *d_fed,
    __global float *d_products, __global float *d_first, __global float *dc_first,
    const int steps, const int batch, const int directions, const int units, const int share)
{
    const int blocks = (batch + share - 1) / share, task = get_global_id(0);
    const int d = task / blocks, begin = task % blocks * share, end = min(begin + share, batch);
    const int width = WIDE * W, count = (units + width - 1) / width, depth = G * units;
    panels += (size_t)d * count * depth * width;
    for (int n = begin; n < end; ++n)
        for (int j = 0; j < units; ++j) {
            d_first[ONE(n, d, j)] = HAS_DH ? dh[ONE(n, d, j)] : 0;
            if (CELL == 4) dc_first[ONE(n, d, j)] = HAS_DC ? dc[ONE(n, d, j)] : 0;
        }
    for (int s = steps - 1; s >= 0; --s) {
        const int t = TIME(s, d), before = TIME(s - 1, d);
        for (int n = begin; n < end; ++n) {
            const int inside = INSIDE(t, n);
            for (int j = 0; j < units; j += W) {
                const int rest = units - j;
                const size_t one = ONE(n, d, j), own = STATE(t, n, d, j);
                const size_t old = STATE(before, n, d, j);
                vec flow = get(d_first + one, rest), value[G], past = 0;
                if (HAS_DY) flow += get(dy + own, rest);
#pragma unroll
                for (int g = 0; g < G; ++g) value[g] = get(gates + GATE(t, n, d, g, j), rest);
#if CELL == 4
                __global const float *p = peepholes + d * 3 * units + j;
                const vec i = value[0], o = value[1], f = value[2], new = value[3];
                const vec c = s > 0 ? get(kept + old, rest) : HAS_C0 ? get(c0 + one, rest) : 0;
                const vec shown = squash(get(kept + own, rest));
                const vec last = get(dc_first + one, rest);
                value[1] = flow * shown * o * ((vec)1 - o);
                vec cd = last + flow * o * ((vec)1 - shown * shown);
                if (PEEP) cd += value[1] * get(p + units, rest);
                value[0] = cd * new * i * ((vec)1 - i);
                value[2] = cd * c * f * ((vec)1 - f);
                value[3] = cd * i * ((vec)1 - new * new);
                cd *= f;
                if (PEEP) cd += value[0] * get(p, rest) + value[2] * get(p + 2 * units, rest);
                put(dc_first + one, inside ? cd : last, rest);
#elif CELL == 3
                const vec z = value[0], r = value[1], new = value[2];
                const vec h = s > 0 ? get(y + old, rest) : HAS_H0 ? get(h0 + one, rest) : 0;
                const vec inner = flow * ((vec)1 - z) * ((vec)1 - new * new);
                value[0] = flow * (h - new) * z * ((vec)1 - z);
                value[1] = inner * get(kept + own, rest) * r * ((vec)1 - r);
                value[2] = inner;
                past = flow * z;
#else
                value[0] = RELU ? (value[0] > (vec)0 ? flow : (vec)0)
                                : flow * ((vec)1 - value[0] * value[0]);
#endif
                put(d_first + one, inside ? past : flow, rest);
#pragma unroll
                for (int g = 0; g < G; ++g) {
                    const vec from = inside ? value[g] : (vec)0;
                    put(d_fed + GATE(t, n, d, g, j), from, rest);
#if CELL == 3
                    put(d_products + GATE(t, n, d, g, j), g == 2 ? from * r : from, rest);
#endif
                }
            }
        }
        for (int at = 0; at < count; ++at) {
            __global const float *panel = panels + (size_t)at * depth * width;
            for (int n = begin; n < end; n += ROWS) {
                __global const float *a[ROWS];
                vec sums[ROWS][WIDE];
#pragma unroll
                for (int r = 0; r < ROWS; ++r)
                    a[r] = d_products + GATE(t, min(n + r, end - 1), d, 0, 0);
                MULTIPLY(depth)
#pragma unroll
                for (int r = 0; r < ROWS; ++r)
#pragma unroll
                    for (int w = 0; w < WIDE; ++w) {
                        const int j = at * width + w * W, rest = units - j;
                        if (n + r >= end || rest <= 0) continue;
                        __global float *to = d_first + ONE(n + r, d, j);
                        put(to, get(to, rest) + sums[r][w], rest);
                    }
            }
        }
    }
}
#endif
