/* ASK_FOR(at): the line of memory at an address is on its way to the caches, if compilers have such
 * a thing. Past the end of a buffer it does no harm. Included by products whose weights a network
 * reads once in a run, so that they come from memory. No kernel stands here. */

#ifdef __has_builtin
#if __has_builtin(__builtin_prefetch)
#define ASK_FOR(at) __builtin_prefetch((const void *)(size_t)(at), 0, 2);
#endif
#endif
#ifndef ASK_FOR
#define ASK_FOR(at)
#endif
