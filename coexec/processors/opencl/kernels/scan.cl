/* Accumulation along an axis: scan (CumSum, CumProd), prod_grad (coexec::CumProdGrad).
 * Layout: tensors are (outer, n, inner); a lane is one position in outer x inner, in which element
 * i of the accumulation is element i of the axis or, REVERSEd, n - 1 - i.
 * Geometry: (lanes, blocks of the axis); prod_grad (lanes). A lane in one block needs scan alone;
 * in several: totals of each block, starts (the scan of the totals), then scan from there. */

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
#ifndef EXCLUSIVE
#define EXCLUSIVE 0 /* whether an element is left out of its own result */
#endif
#ifndef REVERSE
#define REVERSE 0 /* whether accumulation starts at the end */
#endif
#ifndef STARTED
#define STARTED 0 /* scan: whether blocks start from `sums` (else there is one block) */
#endif

#define AT(i) (base + (REVERSE ? n - 1 - (i) : (i)) * inner)
#define LANE_START(lane) ((lane) / inner * n * inner + (lane) % inner)

/* sums (lanes, blocks): what each block adds up to. */
__kernel void totals(__global const T *x, __global A *sums, const int lanes, const int n,
                     const int inner, const int block)
{
    const int lane = get_global_id(0), number = get_global_id(1);
    if (lane >= lanes) return;
    const int base = LANE_START(lane), last = min((number + 1) * block, n);
    A sum = NEUTRAL;
    for (int i = number * block; i < last; ++i) sum = APPLY(sum, (A)x[AT(i)]);
    sums[lane * get_global_size(1) + number] = sum;
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

__kernel void scan(__global const T *x, __global const A *sums, __global T *y, const int lanes,
                   const int n, const int inner, const int block)
{
    const int lane = get_global_id(0), number = get_global_id(1);
    if (lane >= lanes) return;
    const int base = LANE_START(lane), last = min((number + 1) * block, n);
    A sum = NEUTRAL;
    if (STARTED) sum = sums[lane * get_global_size(1) + number];
    for (int i = number * block; i < last; ++i) {
        const A next = APPLY(sum, (A)x[AT(i)]);
        y[AT(i)] = (T)(EXCLUSIVE ? sum : next);
        sum = next;
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
    const int base = LANE_START(lane);
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
