/* A step of one unit of a recurrent cell, and its gradient: included behind recurrent_cell.cl by
 * kernels that take units one by one. No kernel stands here. */

#ifndef ACC
#define ACC float /* type to compute in */
#endif

#define UNIT static inline __attribute__((always_inline))
#define SIGMOID(x) ((ACC)1 / ((ACC)1 + exp(-(x))))
#if CELL == 1 && RELU
#define SQUASH(x) fmax(x, (ACC)0)
#define SLOPE(y) ((y) > 0 ? (ACC)1 : (ACC)0)
#else
#define SQUASH(x) tanh(x)
#define SLOPE(y) ((ACC)1 - (y) * (y))
#endif

/* The new state. value: what the gates are fed, then their values; sum: their recurrent products;
 * kept: an LSTM's cell, the old one then the new one, or a GRU's product that is reset.
 * p: the unit's peepholes. */
UNIT ACC step_unit(ACC value[G], const ACC sum[G], const ACC before, ACC *kept, const ACC moved,
                   __global const T *p, const int units)
{
#if CELL == 4
    const ACC c = *kept;
    const ACC i = SIGMOID(value[0] + sum[0] + (PEEP ? (ACC)p[0] * c : 0));
    const ACC f = SIGMOID(value[2] + sum[2] + (PEEP ? (ACC)p[2 * units] * c : 0));
    const ACC new = tanh(value[3] + sum[3]), cell = f * c + i * new;
    const ACC o = SIGMOID(value[1] + sum[1] + (PEEP ? (ACC)p[units] * cell : 0));
    value[0] = i, value[1] = o, value[2] = f, value[3] = new;
    *kept = cell;
    return o * tanh(cell);
#elif CELL == 3
    const ACC product = sum[2] + moved;
    const ACC z = SIGMOID(value[0] + sum[0]), r = SIGMOID(value[1] + sum[1]);
    const ACC new = tanh(value[2] + r * product);
    value[0] = z, value[1] = r, value[2] = new;
    *kept = product;
    return new + z * (before - new);
#else
    value[0] = SQUASH(value[0] + sum[0]);
    return value[0];
#endif
}

/* What flows past the gates to the state before. value: the gates' values, then what flows to what
 * they were fed; product: of the last gate, what flows to its recurrent product; flow: what flows
 * to the state, cell_flow: to an LSTM's cell, then to the one before; old: the cell (LSTM) or state
 * (GRU) before; kept: as step_unit leaves it. */
UNIT ACC back_unit(ACC value[G], ACC *product, const ACC flow, ACC *cell_flow, const ACC old,
                   const ACC kept, __global const T *p, const int units)
{
#if CELL == 4
    const ACC i = value[0], o = value[1], f = value[2], new = value[3], shown = tanh(kept);
    const ACC od = flow * shown * o * (1 - o);
    const ACC cd =
        *cell_flow + flow * o * (1 - shown * shown) + (PEEP ? od * (ACC)p[units] : 0);
    const ACC id = cd * new * i * (1 - i), fd = cd * old * f * (1 - f);
    value[0] = id, value[1] = od, value[2] = fd, value[3] = cd * i * (1 - new * new);
    *cell_flow = cd * f + (PEEP ? id * (ACC)p[0] + fd * (ACC)p[2 * units] : 0);
#elif CELL == 3
    const ACC z = value[0], r = value[1], new = value[2];
    const ACC inner = flow * (1 - z) * (1 - new * new);
    value[0] = flow * (old - new) * z * (1 - z);
    value[1] = inner * kept * r * (1 - r);
    value[2] = inner;
    *product = inner * r;
    return flow * z;
#else
    value[0] = flow * SLOPE(value[0]);
#endif
#if CELL != 3
    *product = value[G - 1];
    return 0;
#endif
}
