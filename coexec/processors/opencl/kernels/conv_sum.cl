/* The parts of sums of conv_tiled.cl, conv_tiled_weight.cl and depthwise_items.cl, added up and
 * finished (epilogue.cl).
 * Layout: sums (parts, total), y (total); element i has bias[i / plane % channels].
 * Geometry: one work-item per element, neighbours read neighbouring elements of each part. */

#define V 2 /* of alone.cl, whose vectors are not used */
#include "alone.cl"
#include "epilogue.cl"

__kernel void conv_sum(__global const ACC *sums, __global const T *bias, __global T *y,
                       const int has_bias, const int total, const int parts, const int plane,
                       const int channels FINISH_PARAMETERS)
{
    const int i = get_global_id(0);
    if (i >= total) return;
    ACC sum = has_bias ? (ACC)bias[i / plane % channels] : (ACC)0;
    for (int part = 0; part < parts; ++part) sum += sums[(size_t)part * total + i];
    y[i] = (T)FINISH_ONE(sum, i);
}
