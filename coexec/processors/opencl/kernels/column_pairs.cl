/* Windows of two columns, V at once: included by pool_pairs.cl, pool_threes.cl and pool_taps.cl behind
 * alone.cl, which has the types. No kernel stands here. */

#define LOAD(p) WIDEN(*(__global const stored *)(p))
#define STORE(p, v) *(__global stored *)(p) = NARROW(v)
/* The columns of even and odd place of 2 V elements. */
#define LOAD_PAIRS(p, even_, odd_)                                                                 \
    fetched even_, odd_;                                                                           \
    {                                                                                              \
        const fetched a = LOAD(p), b = LOAD((p) + V);                                              \
        even_ = (fetched)(a.even, b.even);                                                         \
        odd_ = (fetched)(a.odd, b.odd);                                                            \
    }
#define STORE_PAIRS(p, even_, odd_)                                                                \
    {                                                                                              \
        fetched a, b;                                                                              \
        a.even = even_.lo;                                                                         \
        a.odd = odd_.lo;                                                                           \
        b.even = even_.hi;                                                                         \
        b.odd = odd_.hi;                                                                           \
        STORE(p, a);                                                                               \
        STORE((p) + V, b);                                                                         \
    }
