/* Products with weights of BITS bits on GPUs: the layout of few_bits.cl, read where it lies.
 *
 * LANES items of a group walk along one column of W: neighbours read neighbouring words of PER
 * weights, once for FEW rows of A, and unpack them in registers. The lanes' sums are added in local
 * memory. Bound by reading the packed weights once: 4 bytes for 2 * FEW * PER flop, 4 flop per byte
 * with one row and 4 bits; A and the scales come from cache. Results are finished as they are
 * stored (epilogue.cl).
 * Registers of an item: FEW sums and some 16 others. Local memory: FEW * LANES * MANY sums, 1 KiB.
 * Geometry: groups of LANES x MANY items: (blocks of MANY columns, blocks of FEW rows). */

#include "few_bits.cl"

#ifndef FEW
#define FEW 1 /* rows of a group: 1, 2 or 4 */
#endif
#include "few_lanes.cl"

#define FEW_AT(i) __global const T *row##i = a + (size_t)min(first + i, rows - 1) * depth;
#define FEW_ADD(i) sum##i += (ACC)row##i[k] * weight;
/* Each store has all of its condition: behind a common one PoCL 3.0 stores what it should not. */
#define FEW_LEAVE(i)                                                                               \
    if (lane == 0 && own < columns && first + i < rows)                                            \
        y[(first + i) * columns + own] =                                                           \
            (T)FINISH_ONE(LANE_SUM(i), (first + i) * columns + own);

__kernel GROUP_OF_LANES void few_bits_groups(
    __global const T *a, __global const uint *packed, __global const T *scales,
    __global const TZ *zeros, __global T *y, const int rows, const int columns, const int depth,
    const int blocks FINISH_PARAMETERS)
{
    LANE_SUMS;
    const int lane = get_local_id(0), j = get_local_id(1);
    const int own = get_group_id(0) * MANY + j, first = get_group_id(1) * FEW;
    const int column = min(own, columns - 1), words = blocks * (BLOCK / PER);
    __global const uint *from = packed + (size_t)column * words;
    EACH_FEW(FEW_AT)
    EACH_FEW(FEW_ZERO)
    for (int w = lane; w < words; w += LANES) {
        const uint word = from[w];
        const int block = w / (BLOCK / PER);
        const ACC scale = (ACC)scales[(size_t)column * blocks + block];
        const ACC zero = zero_of(zeros, column, block, blocks);
        const int end = min((w + 1) * PER, depth);
        for (int k = w * PER, at = 0; k < end; ++k, at += BITS) {
            const ACC weight = ((ACC)(word >> at & LARGEST) - zero) * scale;
            EACH_FEW(FEW_ADD)
        }
    }
    ADD_LANES
    EACH_FEW(FEW_LEAVE)
}
