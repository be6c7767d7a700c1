/* Packs the left operand of packed.cl: tiles of MR rows, [batch][tile][depth][MR], zero-padded.
 * Source element (batch, m, channel, t0, t1, t2) lies at base + batch * a_batch + m * a_row +
 * channel * a_channel + t0 * a_0 + t1 * a_1 + t2 * a_2; depth = channels * k0 * k1 * k2.
 * Geometry: (depth, tiles, batches), one work-item per MR elements; the first is padded. */

#ifndef T
#define T float /* element type of the source */
#endif
#ifndef ACC
#define ACC float /* element type of the packed tiles */
#endif
#ifndef MR
#define MR 8 /* rows of a tile */
#endif

__kernel void pack(__global const T *a, __global ACC *packed, const int base, const int a_batch,
                   const int a_row, const int a_channel, const int a_0, const int a_1,
                   const int a_2, const int rows, const int depth, const int k0, const int k1,
                   const int k2)
{
    const int k = get_global_id(0), tile = get_global_id(1), batch = get_global_id(2);
    if (k >= depth) return;
    const int channel = k / (k0 * k1 * k2);
    const int t0 = k / (k1 * k2) % k0, t1 = k / k2 % k1, t2 = k % k2;
    a += base + batch * a_batch + channel * a_channel + t0 * a_0 + t1 * a_1 + t2 * a_2;
    packed += ((batch * get_global_size(1) + tile) * depth + k) * MR;
    const int first = tile * MR;
    for (int i = 0; i < MR; ++i)
        packed[i] = first + i < rows ? (ACC)a[(first + i) * a_row] : (ACC)0;
}
