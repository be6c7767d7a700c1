/* The k first of n elements in order (TopK), per lane.
 * Layout: x is (outer, n, inner), values and indices are (outer, k, inner); a lane is one position
 * in outer x inner. Equal elements stand in order of index; NaN stands above all numbers.
 *   rank   every element counts those before it: n^2 comparisons, no memory.
 *   select a list of k is kept per part of a lane, then one list of those lists: for small k.
 *   runs, merge, emit: merge sort of indices, every element finds its place by binary search.
 * Geometry: rank, runs, merge (n padded, lanes); select (lanes, parts), or with APART, where parts
 * are every so many-th element, so that neighbours read neighbours, (parts padded, lanes);
 * emit (k, lanes). */

#ifndef T
#define T float /* element type */
#endif
#ifndef LARGEST
#define LARGEST 1 /* whether larger elements stand first */
#endif
#ifndef VALUES
#define VALUES 1 /* whether the values are wanted */
#endif
#ifndef INDICES
#define INDICES 1 /* whether the indices are wanted */
#endif
#ifndef RUN
#define RUN 32 /* elements that runs sorts by counting */
#endif

inline bool above(const T a, const T b)
{
    return LARGEST ? a > b || (a != a && b == b) : a < b || (b != b && a == a);
}

/* Whether element i stands before element j of a lane. */
inline bool before(__global const T *x, const int inner, const int i, const int j)
{
    const T a = x[i * inner], b = x[j * inner];
    return above(a, b) || (!above(b, a) && i < j);
}

inline int lane_start(const int lane, const int n, const int inner)
{
    return lane / inner * n * inner + lane % inner;
}

inline void put(__global T *values, __global long *indices, const int at, const T value,
                const int index)
{
    if (VALUES) values[at] = value;
    if (INDICES) indices[at] = index;
}

__kernel void rank(__global const T *x, __global T *values, __global long *indices, const int n,
                   const int k, const int inner)
{
    const int i = get_global_id(0), lane = get_global_id(1);
    if (i >= n) return;
    x += lane_start(lane, n, inner);
    int place = 0;
    for (int j = 0; j < n; ++j) place += before(x, inner, j, i);
    if (place < k)
        put(values, indices, lane_start(lane, k, inner) + place * inner, x[i * inner], i);
}

/* lists (lanes, parts, k): the k first of the candidates of each part, -1 where there are fewer.
 * Candidates are elements of the lane or, from another select, `given` of them. */
#ifndef GIVEN
#define GIVEN 0 /* select: whether candidates come from `given` (lanes, count) */
#endif
#ifndef APART
#define APART 0 /* select: 1: a part takes every `parts`-th element, 0: elements side by side */
#endif
__kernel void select_first(__global const T *x, __global const int *given, __global int *lists,
                           const int n, const int k, const int inner, const int count,
                           const int part, const int parts, const int lanes)
{
    const int lane = get_global_id(APART ? 1 : 0), number = get_global_id(APART ? 0 : 1);
    if (lane >= lanes || number >= parts) return;
    x += lane_start(lane, n, inner);
    __global int *list = lists + (lane * parts + number) * k;
    const int last = APART ? count : min((number + 1) * part, count);
    int held = 0;
    for (int c = APART ? number : number * part; c < last; c += APART ? parts : 1) {
        const int i = GIVEN ? given[lane * count + c] : c;
        if (i < 0 || (held == k && !before(x, inner, i, list[k - 1]))) continue;
        int at = held < k ? held++ : k - 1;
        for (; at > 0 && before(x, inner, i, list[at - 1]); --at) list[at] = list[at - 1];
        list[at] = i;
    }
    for (; held < k; ++held) list[held] = -1;
}

/* order (lanes, n): indices, sorted within blocks of RUN. */
__kernel void runs(__global const T *x, __global int *order, const int n, const int inner)
{
    const int i = get_global_id(0), lane = get_global_id(1);
    if (i >= n) return;
    x += lane_start(lane, n, inner);
    const int first = i / RUN * RUN, last = min(first + RUN, n);
    int place = first;
    for (int j = first; j < last; ++j) place += before(x, inner, j, i);
    order[lane * n + place] = i;
}

/* Pairs of sorted runs of `length` become sorted runs of twice that. */
__kernel void merge(__global const T *x, __global const int *order, __global int *merged,
                    const int n, const int inner, const int length)
{
    const int p = get_global_id(0), lane = get_global_id(1);
    if (p >= n) return;
    x += lane_start(lane, n, inner);
    order += lane * n;
    const int own = p / length, start = own / 2 * 2 * length;
    const int sibling = own % 2 ? start : min(start + length, n);
    const int i = order[p];
    int low = sibling, high = min(sibling + length, n);
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (before(x, inner, order[middle], i))
            low = middle + 1;
        else
            high = middle;
    }
    merged[lane * n + start + (p - own * length) + (low - sibling)] = i;
}

/* The first k of lists (lanes, width) as values and indices. */
__kernel void emit(__global const T *x, __global const int *lists, __global T *values,
                   __global long *indices, const int n, const int k, const int inner,
                   const int width)
{
    const int r = get_global_id(0), lane = get_global_id(1);
    if (r >= k) return;
    const int i = lists[lane * width + r];
    put(values, indices, lane_start(lane, k, inner) + r * inner,
        x[lane_start(lane, n, inner) + i * inner], i);
}
