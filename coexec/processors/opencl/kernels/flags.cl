/* Flags in memory of the host that two processors compute on: one raises, the other waits for it.
 * Layout: one number, which only grows (and may wrap around). Geometry: one work-item; the one that
 * waits keeps its compute unit busy, which must not be the one that the other computes on. */

#ifndef PATIENCE
#define PATIENCE (1UL << 37) /* reads of the number before giving up: a minute and more */
#endif

static bool is_behind(const int seen, const int number)
{
    return (int)((uint)seen - (uint)number) < 0;
}

/* Never back: where a run failed, the host has raised the flag beyond all numbers, and who waits for
 * what was not handed over must go on. */
static void come_to(__global int *flag, const int number)
{
    int seen = *(volatile __global int *)flag;
    while (is_behind(seen, number)) {
        /* A full barrier: what was written before is there for whoever sees the number. */
        const int found = atomic_cmpxchg((volatile __global int *)flag, seen, number);
        if (found == seen)
            break;
        seen = found;
    }
}

/* late[0] becomes 1 if the number did not come. */
static void wait_for(__global int *flag, __global int *late, const int number)
{
    ulong left = PATIENCE;
    /* Plain reads while nothing has changed: they stay in the own cache. */
    while (is_behind(*(volatile __global int *)flag, number)) {
        if (--left == 0) {
            late[0] = 1;
            break;
        }
    }
    atomic_or((volatile __global int *)flag, 0);
}

__kernel void raise_flag(__global int *flag, const int number)
{
    come_to(flag, number);
}

__kernel void await_flag(__global int *flag, __global int *late, const int number)
{
    wait_for(flag, late, number);
}

__kernel void raise_and_await(__global int *own, __global int *flag, __global int *late,
                              const int number, const int other)
{
    come_to(own, number);
    wait_for(flag, late, other);
}
