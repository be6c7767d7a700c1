/* Steps of recurrent layers (coexec::LSTMSteps, GRUSteps, RNNSteps) and their gradients; layouts
 * and what cells are stand in recurrent_cell.cl. Running cells stand in c_last, running gradients
 * in d_first and dc_first.
 * Geometry: one work-item per sample and direction, which takes all steps. */

#include "recurrent_cell.cl"
#include "recurrent_unit.cl"

__kernel void steps(__global const T *fed, __global const T *recurrent, __global const T *h0,
                    __global const T *c0, __global const T *peepholes, __global const T *shift,
                    __global const TL *lengths, __global T *y, __global T *h_last,
                    __global T *c_last, __global T *gates, __global T *kept, const int steps,
                    const int batch, const int directions, const int units)
{
    const int n = get_global_id(0), d = get_global_id(1);
    if (n >= batch) return;
    __global const T *h = h0 + ONE(n, d, 0);
    for (int s = 0; s < steps; ++s) {
        const int t = TIME(s, d), inside = INSIDE(t, n), starts = HAS_H0 ? 0 : s == 0;
        for (int j = 0; j < units; ++j) {
            ACC sum[G];
            for (int g = 0; g < G; ++g) {
                __global const T *row = recurrent + (((size_t)d * G + g) * units + j) * units;
                ACC total = 0;
                if (!starts)
                    for (int k = 0; k < units; ++k) total += (ACC)row[k] * (ACC)h[k];
                sum[g] = total;
            }
            const ACC before = starts ? (ACC)0 : (ACC)h[j];
            ACC value[G], kept_now = 0;
            for (int g = 0; g < G; ++g) value[g] = fed[GATE(t, n, d, g, j)];
#if CELL == 4
            const ACC c = s > 0 ? (ACC)c_last[ONE(n, d, j)] : HAS_C0 ? (ACC)c0[ONE(n, d, j)] : 0;
            kept_now = c;
#endif
            const ACC moved = SHIFT ? (ACC)shift[d * units + j] : 0;
            const ACC state = step_unit(value, sum, before, &kept_now, moved,
                                        peepholes + d * 3 * units + j, units);
#if CELL == 4
            if (!inside) kept_now = c;
            c_last[ONE(n, d, j)] = (T)kept_now;
#endif
            y[STATE(t, n, d, j)] = (T)(inside ? state : before);
            if (SAVE) {
                for (int g = 0; g < G; ++g) gates[GATE(t, n, d, g, j)] = (T)value[g];
#if CELL > 1
                kept[STATE(t, n, d, j)] = (T)kept_now;
#endif
            }
        }
        h = y + STATE(t, n, d, 0);
    }
    for (int j = 0; j < units; ++j)
        h_last[ONE(n, d, j)] = HAS_H0 || steps > 0 ? h[j] : (T)0;
}

/* d_fed may be where gates are. d_products is d_fed but for a GRU. */
__kernel void steps_grad(__global const T *gates, __global const T *recurrent,
                         __global const T *h0, __global const T *c0,
                         __global const T *peepholes, __global const TL *lengths,
                         __global const T *kept, __global const T *y, __global const T *dy,
                         __global const T *dh, __global const T *dc, __global T *d_fed,
                         __global T *d_products, __global T *d_first, __global T *dc_first,
                         const int steps, const int batch, const int directions, const int units)
{
    const int n = get_global_id(0), d = get_global_id(1);
    if (n >= batch) return;
    for (int j = 0; j < units; ++j) {
        d_first[ONE(n, d, j)] = HAS_DH ? dh[ONE(n, d, j)] : (T)0;
        if (CELL == 4) dc_first[ONE(n, d, j)] = HAS_DC ? dc[ONE(n, d, j)] : (T)0;
    }
    for (int s = steps - 1; s >= 0; --s) {
        const int t = TIME(s, d), before = TIME(s - 1, d), inside = INSIDE(t, n);
        for (int j = 0; j < units; ++j) {
            const size_t one = ONE(n, d, j);
            const ACC flow = (ACC)d_first[one] + (HAS_DY ? (ACC)dy[STATE(t, n, d, j)] : 0);
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
                d_fed[GATE(t, n, d, g, j)] = (T)(inside ? value[g] : 0);
                if (CELL == 3)
                    d_products[GATE(t, n, d, g, j)] =
                        (T)(inside ? (g == G - 1 ? product : value[g]) : 0);
            }
            d_first[one] = (T)(inside ? past : flow);
        }
        if (!inside) continue;
        for (int k = 0; k < units; ++k) {
            ACC sum = d_first[ONE(n, d, k)];
            for (int row = 0; row < G * units; ++row)
                sum += (ACC)d_products[GATE(t, n, d, 0, row)] *
                       (ACC)recurrent[((size_t)d * G * units + row) * units + k];
            d_first[ONE(n, d, k)] = (T)sum;
        }
    }
}
