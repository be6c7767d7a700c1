/* Steps of recurrent layers and their gradients on GPUs: a work-group takes all steps of ROWS
 * samples of a direction, so that nothing waits for another group. Layouts and what cells are stand
 * in recurrent_cell.cl.
 *
 * In a step, items first divide the products: an item has a gate of a unit (a unit of what flows
 * back, for the rows of one gate), for all samples, so that neighbours read neighbouring weights,
 * each once for ROWS samples: ROWS / 2 flop per byte, from the cache that groups share. States lie
 * in the group's memory, [unit][sample]: an item reads those of a unit as one vector. Then items
 * divide units and samples, add up and apply the cell; running values stay with their items.
 * Samples behind the last one have states of 0 and are not stored.
 *
 * STAGED: the group's memory is local memory (forwards (G + 1) UNITS ROWS numbers, backwards twice
 * G UNITS ROWS), else a part of `places`: where local memory is too small, or plain memory.
 * Geometry: directions times blocks of ROWS samples; turn: (rows, directions times quarters of
 * units). */

#include "recurrent_cell.cl"
#include "recurrent_unit.cl"

#ifndef UNITS
#define UNITS 64 /* units of a direction */
#endif
#ifndef ROWS
#define ROWS 4 /* samples of a group */
#endif
#ifndef LOCAL
#define LOCAL 256 /* items of a group */
#endif
#ifndef STAGED
#define STAGED 1 /* whether groups keep what they share in local memory */
#endif
#ifndef NUMBERS
#define NUMBERS (2 * G * UNITS * ROWS) /* numbers that a group shares */
#endif

#define LINES (G * UNITS)
#define GROUP __attribute__((reqd_work_group_size(LOCAL, 1, 1)))
#define QUARTER 4 /* elements of a row that an item turns */

#if STAGED
#define SHARED __local
#define MEET barrier(CLK_LOCAL_MEM_FENCE)
#define DECLARE_SHARED __local ACC shared[NUMBERS];
#else
#define SHARED __global
#define MEET barrier(CLK_GLOBAL_MEM_FENCE)
#define DECLARE_SHARED __global ACC *shared = places + (size_t)get_group_id(0) * NUMBERS;
#endif

/* Where a group stands: `rows` samples of direction d from `first` on. */
#define STAND                                                                       \
    const int item = get_local_id(0), blocks = (batch + ROWS - 1) / ROWS;           \
    const int d = (int)get_group_id(0) / blocks, units = UNITS;                     \
    const int first = (int)get_group_id(0) % blocks * ROWS;                         \
    const int rows = min(ROWS, batch - first);
/* Elements e of the group's samples and units, each always the same item's. */
#define EACH(e, count) for (int e = item; e < (count) * UNITS; e += LOCAL)

/* Weights (D, G H, H) as (D, H, G H): neighbouring rows side by side. */
__kernel void turn(__global const T *recurrent, __global T *turned)
{
    const int row = get_global_id(0), quarters = (UNITS + QUARTER - 1) / QUARTER;
    const int d = (int)get_global_id(1) / quarters;
    const int k = (int)get_global_id(1) % quarters * QUARTER;
    if (row >= LINES) return;
    __global const T *from = recurrent + ((size_t)d * LINES + row) * UNITS;
    __global T *to = turned + (size_t)d * UNITS * LINES + row;
    for (int i = k; i < min(k + QUARTER, UNITS); ++i) to[(size_t)i * LINES] = from[i];
}

/* sums[line] of `each` sample = shared[k] of the sample times weights[k], over `depth` terms. */
#define MULTIPLY(each, weights, step, depth)                                        \
    ACC total[ROWS];                                                                \
    for (int r = 0; r < ROWS; ++r) total[r] = 0;                                    \
    _Pragma("unroll 4") for (int k = 0; k < (depth); ++k)                           \
    {                                                                               \
        const ACC weight = (weights)[(size_t)k * (step)];                           \
        for (int r = 0; r < ROWS; ++r) total[r] += weight * (each)[k * ROWS + r];   \
    }

__kernel GROUP void group_steps(
    __global const T *fed, __global const T *turned, __global const T *h0, __global const T *c0,
    __global const T *peepholes, __global const T *shift, __global const TL *lengths,
    __global T *y, __global T *h_last, __global T *c_last, __global T *gates, __global T *kept,
    __global ACC *places, const int steps, const int batch, const int directions)
{
    DECLARE_SHARED
    STAND
    SHARED ACC *h = shared, *sums = shared + UNITS * ROWS;
    turned += (size_t)d * UNITS * LINES;
    EACH(e, ROWS) {
        const int r = e / UNITS, j = e % UNITS;
        h[j * ROWS + r] = HAS_H0 && r < rows ? (ACC)h0[ONE(first + min(r, rows - 1), d, j)] : 0;
    }
    for (int s = 0; s < steps; ++s) {
        const int t = TIME(s, d);
        MEET;
        for (int line = item; line < LINES; line += LOCAL) {
            MULTIPLY(h, turned + line, LINES, UNITS)
            for (int r = 0; r < ROWS; ++r) sums[r * LINES + line] = total[r];
        }
        MEET;
        EACH(e, rows) {
            const int r = e / UNITS, j = e % UNITS, n = first + r, inside = INSIDE(t, n);
            const ACC before = h[j * ROWS + r], moved = SHIFT ? (ACC)shift[d * units + j] : 0;
            ACC value[G], sum[G], now = 0;
            for (int g = 0; g < G; ++g) {
                value[g] = fed[GATE(t, n, d, g, j)];
                sum[g] = sums[r * LINES + g * UNITS + j];
            }
#if CELL == 4
            const ACC c = s > 0 ? (ACC)c_last[ONE(n, d, j)] : HAS_C0 ? (ACC)c0[ONE(n, d, j)] : 0;
            now = c;
#endif
            const ACC state =
                step_unit(value, sum, before, &now, moved, peepholes + d * 3 * units + j, units);
#if CELL == 4
            if (!inside) now = c;
            c_last[ONE(n, d, j)] = (T)now;
#endif
            const T rounded = (T)(inside ? state : before);
            h[j * ROWS + r] = (ACC)rounded;
            y[STATE(t, n, d, j)] = rounded;
            if (SAVE) {
                for (int g = 0; g < G; ++g) gates[GATE(t, n, d, g, j)] = (T)value[g];
#if CELL > 1
                kept[STATE(t, n, d, j)] = (T)now;
#endif
            }
        }
    }
    EACH(e, rows) {
        const int r = e / UNITS, j = e % UNITS;
        h_last[ONE(first + r, d, j)] = (T)h[j * ROWS + r];
    }
}

/* d_fed may be where gates are. d_products is d_fed but for a GRU. What flows to a state by its
 * products waits in `sums`, by gates; the rest of it in d_first. */
__kernel GROUP void group_grad(
    __global const T *gates, __global const T *recurrent, __global const T *h0,
    __global const T *c0, __global const T *peepholes, __global const TL *lengths,
    __global const T *kept, __global const T *y, __global const T *dy, __global const T *dh,
    __global const T *dc, __global T *d_fed, __global T *d_products, __global T *d_first,
    __global T *dc_first, __global ACC *places, const int steps, const int batch,
    const int directions)
{
    DECLARE_SHARED
    STAND
    SHARED ACC *products = shared, *sums = shared + LINES * ROWS;
    recurrent += (size_t)d * LINES * UNITS;
    for (int e = item; e < LINES * ROWS; e += LOCAL) products[e] = sums[e] = 0;
    EACH(e, rows) {
        const size_t one = ONE(first + e / UNITS, d, e % UNITS);
        d_first[one] = HAS_DH ? dh[one] : (T)0;
        if (CELL == 4) dc_first[one] = HAS_DC ? dc[one] : (T)0;
    }
    MEET;
    for (int s = steps - 1; s >= 0; --s) {
        const int t = TIME(s, d), before = TIME(s - 1, d);
        EACH(e, rows) {
            const int r = e / UNITS, j = e % UNITS, n = first + r, inside = INSIDE(t, n);
            const size_t one = ONE(n, d, j);
            ACC flow = d_first[one];
            for (int g = 0; g < G; ++g) flow += sums[r * LINES + g * UNITS + j];
            if (HAS_DY) flow += (ACC)dy[STATE(t, n, d, j)];
            ACC value[G], product, cell_flow = 0, old = 0, own = 0;
            for (int g = 0; g < G; ++g) value[g] = gates[GATE(t, n, d, g, j)];
#if CELL == 4
            cell_flow = dc_first[one];
            old = s > 0 ? (ACC)kept[STATE(before, n, d, j)] : HAS_C0 ? (ACC)c0[one] : 0;
#elif CELL == 3
            old = s > 0 ? (ACC)y[STATE(before, n, d, j)] : HAS_H0 ? (ACC)h0[one] : 0;
#endif
            if (CELL > 1) own = kept[STATE(t, n, d, j)];
            const ACC past = back_unit(value, &product, flow, &cell_flow, old, own,
                                       peepholes + d * 3 * units + j, units);
            if (CELL == 4 && inside) dc_first[one] = (T)cell_flow;
            for (int g = 0; g < G; ++g) {
                const ACC flows = inside ? (g == G - 1 ? product : value[g]) : 0;
                d_fed[GATE(t, n, d, g, j)] = (T)(inside ? value[g] : 0);
                if (CELL == 3) d_products[GATE(t, n, d, g, j)] = (T)flows;
                products[(g * UNITS + j) * ROWS + r] = flows;
            }
            d_first[one] = (T)(inside ? past : flow);
        }
        MEET;
        for (int line = item; line < LINES; line += LOCAL) {
            const int g = line / UNITS, j = line % UNITS;
            SHARED const ACC *of_gate = products + g * UNITS * ROWS;
            MULTIPLY(of_gate, recurrent + (size_t)g * UNITS * UNITS + j, UNITS, UNITS)
            for (int r = 0; r < ROWS; ++r) sums[r * LINES + line] = total[r];
        }
        MEET;
    }
    EACH(e, rows) {
        const int r = e / UNITS, j = e % UNITS;
        ACC flow = d_first[ONE(first + r, d, j)];
        for (int g = 0; g < G; ++g) flow += sums[r * LINES + g * UNITS + j];
        d_first[ONE(first + r, d, j)] = (T)flow;
    }
}
