/* What the steps of recurrent layers have in common: included by recurrent.cl and
 * recurrent_panels.cl.
 *
 * Layout: fed, gates and their gradients (T, N, D, G, H), recurrent weights (D, G, H, H), states
 * (T, D, N, H), those of one time (D, N, H), peepholes (D, 3, H), shift (D, H), lengths (N).
 * CELL says what G gates are: 1 (h), 3 (z, r, h), 4 (i, o, f, c). Direction 1, or the only one if
 * REVERSE, starts at the end. A sequence's state stays as it is where the sequence has ended.
 * Operands that are not there are another's and never touched. No kernel stands here. */

#ifndef T
#define T float /* element type of tensors */
#endif
#ifndef TL
#define TL int /* type of lengths */
#endif
#ifndef CELL
#define CELL 4 /* gates of a cell: 1 (RNN), 3 (GRU), 4 (LSTM) */
#endif
#ifndef RELU
#define RELU 0 /* an RNN's activation: 0 is Tanh, 1 Relu */
#endif
#ifndef REVERSE
#define REVERSE 0 /* whether the only direction starts at the end */
#endif
#ifndef HAS_H0
#define HAS_H0 1 /* whether states start from h0 */
#endif
#ifndef HAS_C0
#define HAS_C0 1 /* whether cells start from c0 */
#endif
#ifndef PEEP
#define PEEP 1 /* whether gates see cells */
#endif
#ifndef SHIFT
#define SHIFT 1 /* whether something is added to a GRU's product before it is reset */
#endif
#ifndef ENDS
#define ENDS 1 /* whether sequences have lengths of their own */
#endif
#ifndef SAVE
#define SAVE 1 /* whether steps save what their gradient needs */
#endif
#ifndef HAS_DY
#define HAS_DY 1 /* whether something flows back to all states */
#endif
#ifndef HAS_DH
#define HAS_DH 1 /* whether something flows back to the last state */
#endif
#ifndef HAS_DC
#define HAS_DC 1 /* whether something flows back to the last cell */
#endif

#define G CELL
/* Places: of gate g of unit j, of unit j of a state at time t and of one of no time. */
#define GATE(t, n, d, g, j) ((((size_t)(t) * batch + (n)) * directions + (d)) * G * units + \
                             (size_t)(g) * units + (j))
#define ONE(n, d, j) (((size_t)(d) * batch + (n)) * units + (j))
#define STATE(t, n, d, j) ((((size_t)(t) * directions + (d)) * batch + (n)) * units + (j))
#define BACKWARDS(d) (REVERSE || (d) == 1)
/* The time of step s of direction d. */
#define TIME(s, d) (BACKWARDS(d) ? steps - 1 - (s) : (s))
#define INSIDE(t, n) (!ENDS || (t) < (int)lengths[n])
