/* Teams of work-items that share each step of a kernel: included by recurrent_panels.cl. No kernel
 * stands here.
 *
 * Nobody waits for a work-item that has not begun, as a device may begin it late, or only when
 * others have ended: the first one to come leads. Before each step it calls up whoever else has
 * come, and waits for those after it; the others wait to be called up, or for the end. So whoever
 * is waited for runs. Where it was kept from that for long, as another process has its core, the
 * first one sends all others away and goes on alone: else each step might wait so.
 * Layout: LINE numbers apart, so that each has a line of the caches to itself: how many have come,
 * how many have left, the call ((step + 1) << 8 | members), then for each member the steps that it
 * has done. All are 0 before a kernel begins, and whoever leaves last sees to that. */

#ifndef TEAM
#define TEAM 1 /* work-items of a team: at most 255 */
#endif

#ifndef PATIENCE
#define PATIENCE (1 << 20) /* looks at a number before a team ends: half a millisecond or so */
#endif

#define LINE 16
#define CAME(words) (words)
#define LEFT(words) ((words) + LINE)
#define CALL(words) ((words) + 2 * LINE)
#define DONE(words, rank) ((words) + (2 + (rank)) * LINE)

typedef volatile __global int *counter;

/* What was written before is there for whoever sees the number: atomics are full barriers. */
static inline void publish(const counter number, const int value) { atomic_xchg(number, value); }
/* What is read from now on is at least as new as numbers that were read before. */
static inline void catch_up(const counter own) { atomic_or(own, 0); }

/* For who leads: how many take part in a step, which they begin now. */
static inline int call_up(__global int *words, const int step)
{
    const int members = min(*(counter)CAME(words), TEAM);
    publish(CALL(words), (step + 1) << 8 | members);
    return members;
}

/* For who leads: the team ends, after so many steps as all of them. */
static inline void dismiss(__global int *words, const int steps)
{
    publish(CALL(words), (steps + 1) << 8);
}

/* For who leads: until the others have done a step. Whether they did so in time. */
static inline int gather_members(__global int *words, const int members, const int step)
{
    int looks = 0;
    for (int rank = 1; rank < members; ++rank)
        while (*(counter)DONE(words, rank) <= step) looks += looks < PATIENCE;
    catch_up(LEFT(words));
    return looks < PATIENCE;
}

/* For the others: the call that comes after `seen` and calls up `rank`, or the one of the end. */
static inline int await_call(__global int *words, const int rank, const int seen, const int steps)
{
    int call;
    do {
        call = *(counter)CALL(words);
    } while (call == seen || ((call & 255) <= rank && call >> 8 <= steps));
    catch_up(DONE(words, rank));
    return call;
}

static inline void leave(__global int *words)
{
    if (atomic_inc((counter)LEFT(words)) < TEAM - 1) return;
    for (int i = 0; i < 2 + TEAM; ++i) publish(words + i * LINE, 0);
}
