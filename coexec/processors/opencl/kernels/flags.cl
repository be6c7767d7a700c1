/* Flags in memory of the host that two processors compute on: one raises, the other waits for it.
 * Layout: one number, which only grows (and may wrap around). Geometry: one work-item; the one that
 * waits keeps its compute unit busy, which must not be the one that the other computes on. */

#ifndef PATIENCE
#define PATIENCE (1UL << 37) /* reads of the number before giving up: a minute and more */
#endif

__kernel void raise_flag(__global int *flag, const int number)
{
    /* A full barrier: what was written before is there for whoever sees the number. */
    atomic_xchg((volatile __global int *)flag, number);
}

/* late[0] becomes 1 if the number did not come. */
__kernel void await_flag(__global int *flag, __global int *late, const int number)
{
    ulong left = PATIENCE;
    /* Plain reads while nothing has changed: they stay in the own cache. */
    while (*(volatile __global int *)flag - number < 0) {
        if (--left == 0) {
            late[0] = 1;
            break;
        }
    }
    atomic_or((volatile __global int *)flag, 0);
}
