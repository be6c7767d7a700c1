/* Accumulation along an axis: scan (CumSum, CumProd), prod_grad (coexec::CumProdGrad).
 * Layout: tensors are (outer, n, inner); a lane is one position in outer x inner, in which element
 * i of the accumulation is element i of the axis or, REVERSEd, n - 1 - i.
 * Geometry: (groups of up to WIDTH neighbouring lanes, blocks of the axis); starts and prod_grad
 * (lanes). A lane in one block needs scan alone; in several: totals of each block, starts (the scan
 * of the totals), then scan from there. */

#ifndef T
#define T float /* element type */
#endif
#ifndef A
#define A float /* type of the accumulator */
#endif
#ifndef APPLY
#define APPLY(a, b) ((a) + (b)) /* the accumulation */
#endif
#ifndef NEUTRAL
#define NEUTRAL 0 /* its neutral element */
#endif
#ifndef WIDTH
#define WIDTH 16 /* neighbouring lanes of a work-item, so that it reads whole lines */
#endif
#ifndef EXCLUSIVE
#define EXCLUSIVE 0 /* whether an element is left out of its own result */
#endif
#ifndef REVERSE
#define REVERSE 0 /* whether accumulation starts at the end */
#endif
#ifndef STARTED
#define STARTED 0 /* scan: whether blocks start from `sums` (else there is one block) */
#endif

/* Where a work-item stands: `width` lanes from `column` of the inner dimension on. */
#define STAND                                                                     \
    const int columns = (inner + WIDTH - 1) / WIDTH;                              \
    const int group = get_global_id(0), number = get_global_id(1);                \
    const int column = group % columns * WIDTH, width = min(WIDTH, inner - column); \
    const int first_lane = group / columns * inner + column;                      \
    const int base = group / columns * n * inner + column;
#define AT(i) (base + (REVERSE ? n - 1 - (i) : (i)) * inner)
#define FOR_LANES for (int k = 0; k < WIDTH; ++k) if (k < width)

/* sums (lanes, blocks): what each block adds up to. */
__kernel void totals(__global const T *restrict x, __global A *restrict sums, const int groups,
                     const int n, const int inner, const int block)
{
    if ((int)get_global_id(0) >= groups) return;
    STAND
    const int blocks = get_global_size(1), last = min((number + 1) * block, n);
    A sum[WIDTH];
    for (int k = 0; k < WIDTH; ++k) sum[k] = NEUTRAL;
    for (int i = number * block; i < last; ++i) {
        __global const T *restrict s = x + AT(i);
        FOR_LANES sum[k] = APPLY(sum[k], (A)s[k]);
    }
    FOR_LANES sums[(first_lane + k) * blocks + number] = sum[k];
}

/* Each total becomes the accumulation of those before it. */
__kernel void starts(__global A *sums, const int lanes, const int blocks)
{
    const int lane = get_global_id(0);
    if (lane >= lanes) return;
    A sum = NEUTRAL;
    for (int k = lane * blocks; k < (lane + 1) * blocks; ++k) {
        const A own = sums[k];
        sums[k] = sum;
        sum = APPLY(sum, own);
    }
}

__kernel void scan(__global const T *restrict x, __global const A *restrict sums,
                   __global T *restrict y, const int groups, const int n, const int inner,
                   const int block)
{
    if ((int)get_global_id(0) >= groups) return;
    STAND
    const int blocks = get_global_size(1), last = min((number + 1) * block, n);
    A sum[WIDTH];
    for (int k = 0; k < WIDTH; ++k) sum[k] = NEUTRAL;
    if (STARTED) FOR_LANES sum[k] = sums[(first_lane + k) * blocks + number];
    for (int i = number * block; i < last; ++i) {
        __global const T *restrict s = x + AT(i);
        __global T *restrict t = y + AT(i);
        FOR_LANES {
            const A next = APPLY(sum[k], (A)s[k]);
            t[k] = (T)(EXCLUSIVE ? sum[k] : next);
            sum[k] = next;
        }
    }
}

/* dx[i] = (product of x before i) * s[i], s[i] = dy[i] + x[i + 1] * s[i + 1] (EXCLUSIVE:
 * dy[i + 1] + ...). The products wait in dx, which has the accumulator's precision only for
 * accumulators of the element type; half types lose what a half holds. */
__kernel void prod_grad(__global const T *x, __global const T *dy, __global T *dx,
                        const int lanes, const int n, const int inner)
{
    const int lane = get_global_id(0);
    if (lane >= lanes) return;
    const int base = lane / inner * n * inner + lane % inner;
    A product = 1, behind = 0;
    for (int i = 0; i < n; ++i) {
        dx[AT(i)] = (T)product;
        product *= (A)x[AT(i)];
    }
    for (int i = n - 1; i >= 0; --i) {
        if (!EXCLUSIVE) behind += (A)dy[AT(i)];
        dx[AT(i)] = (T)((A)dx[AT(i)] * behind);
        behind *= (A)x[AT(i)];
        if (EXCLUSIVE) behind += (A)dy[AT(i)];
    }
}
