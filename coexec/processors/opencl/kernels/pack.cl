/* Packs the left operand of packed.cl: tiles of MR rows, [batch][tile][depth][MR], zero-padded.
 * Source element (batch, m, channel, t0, t1, t2) lies at base + batch * a_batch + m * a_row +
 * channel * a_channel + t0 * a_0 + t1 * a_1 + t2 * a_2; depth = channels * k0 * k1 * k2.
 * Geometry: (tiles, blocks of SPAN channels, batches), one work-item each: neighbours read the same
 * lines of a source whose rows are contiguous, of which each takes vectors. */

#ifndef T
#define T float /* element type of the source */
#endif
#ifndef ACC
#define ACC float /* element type of the packed tiles */
#endif
#ifndef MR
#define MR 8 /* rows of a tile */
#endif
#ifndef SPAN
#define SPAN 16 /* channels of a work-item */
#endif

#ifndef SAME
#define SAME 1 /* 1: T and ACC are one type; 0: convert */
#endif

#include "pack_tile.cl"

/* Without the hint, compilers that vectorise across work-items gather elements of several tiles. */
__kernel __attribute__((vec_type_hint(JOIN(ACC, 8))))
void pack(__global const T *a, __global ACC *packed, const int base, const int a_batch,
          const int a_row, const int a_channel, const int a_0, const int a_1, const int a_2,
          const int rows, const int channels, const int k0, const int k1, const int k2)
{
    const int first = get_global_id(1) * SPAN, tile = get_global_id(0), batch = get_global_id(2);
    const int last = min(first + SPAN, channels), height = min(MR, rows - tile * MR);
    __global ACC *to =
        packed + ((batch * get_global_size(0) + tile) * channels + first) * (k0 * k1 * k2) * MR;
    a += base + batch * a_batch + tile * MR * a_row + first * a_channel;
    pack_tile(a, to, a_row, a_channel, a_0, a_1, a_2, height, last - first, k0, k1, k2);
}
