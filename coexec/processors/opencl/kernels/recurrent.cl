/* Steps of recurrent layers (coexec::LSTMSteps, GRUSteps, RNNSteps) and their gradients; layouts
 * and what cells are stand in recurrent_cell.cl. Running cells stand in c_last, running gradients
 * in d_first and dc_first.
 * Geometry: one work-item per sample and direction, which takes all steps. */

#include "recurrent_cell.cl"

#ifndef ACC
#define ACC float /* type to compute in */
#endif

#define SIGMOID(x) ((ACC)1 / ((ACC)1 + exp(-(x))))
#if CELL == 1 && RELU
#define SQUASH(x) fmax(x, (ACC)0)
#define SLOPE(y) ((y) > 0 ? (ACC)1 : (ACC)0)
#else
#define SQUASH(x) tanh(x)
#define SLOPE(y) ((ACC)1 - (y) * (y))
#endif

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
            ACC in[G], state;
            for (int g = 0; g < G; ++g) in[g] = fed[GATE(t, n, d, g, j)];
#if CELL == 4
            const ACC c = s > 0 ? (ACC)c_last[ONE(n, d, j)] : HAS_C0 ? (ACC)c0[ONE(n, d, j)] : 0;
            __global const T *p = peepholes + d * 3 * units + j;
            const ACC i = SIGMOID(in[0] + sum[0] + (PEEP ? (ACC)p[0] * c : 0));
            const ACC f = SIGMOID(in[2] + sum[2] + (PEEP ? (ACC)p[2 * units] * c : 0));
            const ACC new = tanh(in[3] + sum[3]), cell = f * c + i * new;
            const ACC o = SIGMOID(in[1] + sum[1] + (PEEP ? (ACC)p[units] * cell : 0));
            const ACC values[] = {i, o, f, new}, keep = inside ? cell : c;
            state = o * tanh(cell);
            c_last[ONE(n, d, j)] = (T)keep;
#elif CELL == 3
            const ACC keep = sum[2] + (SHIFT ? (ACC)shift[d * units + j] : 0);
            const ACC z = SIGMOID(in[0] + sum[0]), r = SIGMOID(in[1] + sum[1]);
            const ACC new = tanh(in[2] + r * keep), values[] = {z, r, new};
            state = new + z * (before - new);
#else
            state = SQUASH(in[0] + sum[0]);
            const ACC values[] = {state};
#endif
            y[STATE(t, n, d, j)] = (T)(inside ? state : before);
            if (SAVE) {
                for (int g = 0; g < G; ++g) gates[GATE(t, n, d, g, j)] = (T)values[g];
#if CELL > 1
                kept[STATE(t, n, d, j)] = (T)keep;
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
            ACC value[G], past = 0;
            for (int g = 0; g < G; ++g) value[g] = gates[GATE(t, n, d, g, j)];
#if CELL == 4
            const ACC i = value[0], o = value[1], f = value[2], new = value[3];
            const ACC c = s > 0 ? (ACC)kept[STATE(before, n, d, j)] : HAS_C0 ? (ACC)c0[one] : 0;
            __global const T *p = peepholes + d * 3 * units + j;
            const ACC shown = tanh((ACC)kept[STATE(t, n, d, j)]), od = flow * shown * o * (1 - o);
            const ACC cd = (ACC)dc_first[one] + flow * o * (1 - shown * shown) +
                           (PEEP ? od * (ACC)p[units] : 0);
            const ACC id = cd * new * i * (1 - i), fd = cd * c * f * (1 - f);
            const ACC from[] = {id, od, fd, cd * i * (1 - new * new)};
            if (inside)
                dc_first[one] =
                    (T)(cd * f + (PEEP ? id * (ACC)p[0] + fd * (ACC)p[2 * units] : 0));
#elif CELL == 3
            const ACC z = value[0], r = value[1], new = value[2];
            const ACC old = s > 0 ? (ACC)y[STATE(before, n, d, j)] : HAS_H0 ? (ACC)h0[one] : 0;
            const ACC inner = flow * (1 - z) * (1 - new * new);
            const ACC rd = inner * (ACC)kept[STATE(t, n, d, j)] * r * (1 - r);
            const ACC from[] = {flow * (old - new) * z * (1 - z), rd, inner};
            past = flow * z;
#else
            const ACC from[] = {flow * SLOPE(value[0])};
#endif
            for (int g = 0; g < G; ++g) {
                d_fed[GATE(t, n, d, g, j)] = (T)(inside ? from[g] : 0);
#if CELL == 3
                const ACC product = g == 2 ? inner * r : from[g];
                d_products[GATE(t, n, d, g, j)] = (T)(inside ? product : 0);
#endif
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
