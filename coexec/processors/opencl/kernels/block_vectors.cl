/* Blocks to codes and back in vectors of K words, included behind blocks.cl and alone.cl by kernels
 * of lone work-items. ACC is float; where K is not V, so is T. No kernel stands here. */

#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define MOST(a, b) ((a) > (b) ? (a) : (b))

#ifndef K
#if V == 16 && BITS == 4
#define K 8 /* all words of a block */
#else
#define K V
#endif
#endif

typedef JOIN(uint, K) words_of_lanes;
typedef words_of_lanes packed_words __attribute__((aligned(4))); /* anywhere in words */
#if K == V
typedef fetched values_of_lanes;
typedef stored packed_values;
#define VALUES(v) WIDEN(v)
#define OF_VALUES(v) NARROW(v)
#else
typedef JOIN(ACC, K) values_of_lanes;
typedef values_of_lanes packed_values __attribute__((aligned(4)));
#define VALUES(v) (v)
#define OF_VALUES(v) (v)
#endif

/* Halves are folded onto each other until one lane is left. */
#define FOLD(name, BEST)                                                       \
    static inline __attribute__((always_inline)) ACC name(const values_of_lanes v) \
    {                                                                          \
        FOLD_16(BEST)                                                          \
        FOLD_8(BEST)                                                           \
        const JOIN(ACC, 2) pair = BEST(four.lo, four.hi);                      \
        return BEST(pair.x, pair.y);                                           \
    }
#if K == 16
#define FOLD_16(BEST) const JOIN(ACC, 8) eight = BEST(v.lo, v.hi);
#else
#define FOLD_16(BEST) const values_of_lanes eight = v;
#endif
#if K >= 8
#define FOLD_8(BEST) const JOIN(ACC, 4) four = BEST(eight.lo, eight.hi);
#else
#define FOLD_8(BEST) const values_of_lanes four = eight;
#endif
FOLD(LEAST_LANE, LEAST)
FOLD(MOST_LANE, MOST)

#define BLOCK_AT(i) VALUES(*(__global const packed_values *)(from + (i)))

/* A float below 2^23 that has 1.5 * 2^23 added holds its rounded value in its lowest bits. */
#define SHIFTED 12582912.0f

/* The 64 values from `from` on as WORDS words and two ends. */
static inline __attribute__((always_inline)) void
compress_block(__global const T *from, __global uint *words, __global E *ends)
{
    values_of_lanes lows = BLOCK_AT(0), highs = lows;
    for (int i = K; i < BLOCK; i += K) {
        const values_of_lanes v = BLOCK_AT(i);
        lows = v < lows ? v : lows;
        highs = v > highs ? v : highs;
    }
    const ACC least = LEAST_LANE(lows), most = MOST_LANE(highs);
    ends[0] = (E)least;
    ends[1] = (E)most;
    const ACC step = rate_of(least, most);
    const values_of_lanes low = least, high = most, rate = step;
    for (int w = 0; w < WORDS; w += K) {
        words_of_lanes word = 0;
        for (int place = 0; place < PLACES; ++place) {
            const values_of_lanes v = BLOCK_AT(place * WORDS + w);
            values_of_lanes code = (v - low) * rate;
            code = LEAST(MOST(code, (values_of_lanes)1), (values_of_lanes)(LEVELS - 1));
            code = v == high ? (values_of_lanes)LEVELS : code;
            code = v == low ? (values_of_lanes)0 : code;
            word |= (JOIN(as_uint, K)(code + SHIFTED) & (uint)LEVELS) << (uint)(place * BITS);
        }
        if (!(step > 0)) word = 0;
        *(__global packed_words *)(words + w) = word;
    }
}

/* Codes in the lowest bits of lanes as shares of the way from the lower to the upper end: the
 * lowest bits of 2^23 and above count ones. */
#define SHARES_OF(N, codes)                                                                     \
    ((JOIN(as_float, N)((codes) | 0x4B000000u) - 8388608.0f) * (1.0f / LEVELS))

static inline __attribute__((always_inline)) void
expand_block(__global const uint *words, __global const E *ends, __global T *to)
{
    const values_of_lanes low = (ACC)ends[0], high = (ACC)ends[1];
    for (int w = 0; w < WORDS; w += K) {
        const words_of_lanes word = *(__global const packed_words *)(words + w);
        for (int place = 0; place < PLACES; ++place) {
            const words_of_lanes code = word >> (uint)(place * BITS) & (uint)LEVELS;
            const values_of_lanes share = SHARES_OF(K, code);
            *(__global packed_values *)(to + place * WORDS + w) =
                OF_VALUES(low * (1.0f - share) + high * share);
        }
    }
}

/* Expands the blocks that `n` elements from `from` on lie in; at to[from % BLOCK] those begin. */
static inline __attribute__((always_inline)) void
expand_run(__global const uint *words, __global const E *ends, __global T *to, const int from,
           const int n)
{
    const int first = from / BLOCK, last = (from + n - 1) / BLOCK;
    for (int block = first; block <= last; ++block, to += BLOCK)
        expand_block(words + block * WORDS, ends + 2 * block, to);
}

/* Values i to i + V of a tensor in blocks, where i is a multiple of V. */
static inline __attribute__((always_inline)) fetched
expand_at(__global const uint *words, __global const E *ends, const uint i)
{
    const uint block = i / BLOCK, at = i % BLOCK;
    const fetched low = (ACC)ends[2 * block], high = (ACC)ends[2 * block + 1];
    const uint place = at / WORDS * BITS;
    words += block * WORDS + at % WORDS;
#if V <= WORDS
    typedef JOIN(uint, V) found __attribute__((aligned(4)));
    const JOIN(uint, V) code = *(__global const found *)words >> place & (uint)LEVELS;
#else
    const words_of_lanes word = *(__global const packed_words *)words;
    const JOIN(uint, V) both = (JOIN(uint, V))(word >> place, word >> (place + BITS));
    const JOIN(uint, V) code = both & (uint)LEVELS;
#endif
    const fetched share = SHARES_OF(V, code);
    return low * (1.0f - share) + high * share;
}
