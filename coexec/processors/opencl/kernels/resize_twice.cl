/* Every element twice along rows, and every row once or twice: nearest neighbours of twice the size.
 * Layout: x (rows, i2), y (planes * o1, o2) with o2 = 2 i2 or 2 i2 - 1; a plane has i1 rows of x, and
 * o1 = i1 (TALL 0), 2 i1 or 2 i1 - 1 (TALL 1) of y. V elements of x are worked on at once; o2 >= 2 V,
 * and the last vector of a row overlaps its neighbour. Elements are only moved: T is an unsigned
 * integer of their size.
 * Geometry: one work-item per share of all rows of x (divided evenly, in order), groups of one. */

#ifndef T
#define T uint /* as large as an element */
#endif
#ifndef TALL
#define TALL 1 /* 1: rows are doubled as well */
#endif

#define ACC T
#define SAME 1
#include "alone.cl"
#include "column_pairs.cl"

__kernel ALONE void resize_twice(__global const T *x, __global T *y, const int rows, const int i1,
                                 const int i2, const int o1, const int o2)
{
    const int item = get_global_id(0), count = get_global_size(0), pairs = o2 / 2;
    const int end = (int)((long)rows * (item + 1) / count);
    for (int row = (int)((long)rows * item / count); row < end; ++row) {
        __global const T *from = x + row * i2;
#if TALL
        const int at = row % i1;
        __global T *to = y + (row / i1 * o1 + 2 * at) * o2;
        /* A plane of odd height has its last row once: it is written there twice. */
        __global T *below = 2 * at + 1 < o1 ? to + o2 : to;
#else
        __global T *to = y + row * o2;
#endif
        for (int col = 0;;) {
            const fetched v = LOAD(from + col);
            STORE_PAIRS(to + 2 * col, v, v)
#if TALL
            STORE_PAIRS(below + 2 * col, v, v)
#endif
            if (col == pairs - V) break;
            col = col + V < pairs - V ? col + V : pairs - V;
        }
        if (o2 % 2) {
            to[o2 - 1] = from[i2 - 1];
#if TALL
            below[o2 - 1] = from[i2 - 1];
#endif
        }
    }
}
