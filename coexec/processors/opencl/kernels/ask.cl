/* ASK_FOR(at): the line of memory at an address is on its way to the caches, where ASKS_AHEAD says
 * that the driver can do such a thing. Past the end of a buffer it does no harm. Included by products
 * whose weights a network reads once in a run, so that they come from memory. No kernel stands here. */

#ifdef ASKS_AHEAD
#define ASK_FOR(at) __builtin_prefetch((const void *)(size_t)(at), 0, 2);
#else
#define ASK_FOR(at)
#endif
