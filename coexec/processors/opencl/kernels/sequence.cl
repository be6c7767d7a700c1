/* A sequence of kernels in one launch: put behind their sources, which are functions by then. No
 * kernel stands here, as which there are depends on the sequence (sequence.py).
 *
 * Each core's work-item goes through all steps. Of a step it claims shares of the items until none
 * are left; then it waits for what others have claimed of it, as the next step may read all of it.
 * So nobody waits for a work-item that has not begun, and who comes late finds all done. Where that
 * which is waited for does not come for long, as another process has its core, who waits leaves:
 * who has claimed it goes on without others.
 * Layout: of each step in `table`, LENGTH words and so on, then arguments; of `counters`, a line of
 * the caches for each number: how many have left, then for each step the items claimed and those
 * done. All are 0 before a launch, and whoever leaves last sees to that. */

#ifndef CORES
#define CORES 1 /* work-items of a launch */
#endif

#ifndef PATIENCE
#define PATIENCE (1 << 20) /* looks at a number before leaving: a millisecond or so */
#endif

#define LENGTH 0 /* words of the step */
#define WHICH 1  /* number of the kernel */
#define EXTENT 2 /* items along three axes */
#define SHARE 5  /* items claimed at once */

#define LINE 16
#define LEFT(words) (words)
#define CLAIMED(words, step) ((words) + (1 + 2 * (step)) * LINE)
#define DONE(words, step) ((words) + (2 + 2 * (step)) * LINE)

typedef volatile __global int *counter;
typedef __global char *block; /* of memory */

/* Items from `first` on, before `last`, of a step. */
static void compute(const int first, const int last, __global const int *step,
                    block const *blocks);

/* Claim and compute shares of a step; whether all of it was done in time. Who does the last of it
 * finds it so: somebody always goes on. */
static inline int share_step(__global const int *table, const int items, const counter claimed,
                             const counter done, block const *blocks)
{
    const int share = table[SHARE];
    int own = 0, looks = 0;
    while (*claimed < items) {
        const int first = atomic_add(claimed, share);
        if (first >= items) break;
        const int last = min(first + share, items);
        compute(first, last, table, blocks);
        own += last - first;
    }
    /* Atomics are full barriers: what was written is there for whoever sees the number. */
    atomic_add(done, own);
    while (*done < items && looks < PATIENCE) ++looks;
    const int is_done = *done >= items;
    atomic_or(done, 0);
    return is_done;
}

static void go_through(__global const int *table, const int count, __global int *counters,
                       block const *blocks)
{
    for (int step = 0; step < count; ++step, table += table[LENGTH]) {
        const int items = table[EXTENT] * table[EXTENT + 1] * table[EXTENT + 2];
#if CORES == 1
        compute(0, items, table, blocks);
#else
        if (!share_step(table, items, CLAIMED(counters, step), DONE(counters, step), blocks))
            break;
#endif
    }
#if CORES > 1
    if (atomic_inc((counter)LEFT(counters)) < CORES - 1) return;
    for (int i = 0; i < 1 + 2 * count; ++i) atomic_xchg((counter)counters + i * LINE, 0);
#endif
}
