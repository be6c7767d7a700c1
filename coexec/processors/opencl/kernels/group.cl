/* Sums over a work-group of LANES x ROWS items, included by norm.cl and norm_batch.cl. No kernel
 * stands here. */

#ifndef ACC
#define ACC float /* type of arithmetic */
#endif
#ifndef LANES
#define LANES 16 /* work-items along dimension 0, a power of two */
#endif
#ifndef ROWS
#define ROWS 4 /* work-items along dimension 1, a power of two */
#endif

/* For functions with barriers: PoCL 3.0 must see them inlined before anything else is optimised,
 * or it may drop stores that follow a second call. */
#define COLLECTIVE static __attribute__((always_inline))

/* Sum over the whole work-group of LANES x ROWS items, known to all of them. */
COLLECTIVE ACC sum_group(ACC value, __local ACC *partial)
{
#if LANES * ROWS == 1
    return value;
#else
    const int item = get_local_id(1) * LANES + get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    partial[item] = value;
    for (int half_items = LANES * ROWS / 2; half_items > 0; half_items /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item < half_items) partial[item] += partial[item + half_items];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    return partial[0];
#endif
}
