/* Copies of several small tensors at once: dst_i = src_i.
 * Layout: flat, in words. Geometry: the tensors are cut into chunks of CHUNK words, a work-group
 * for each; its items take vectors of W words in turn. */

#ifndef W
#define W 4 /* words of a vector: 1, 2, 4, 8 or 16 */
#endif
#ifndef CHUNK
#define CHUNK 1024 /* words of a work-group: a multiple of W */
#endif
#ifndef TENSORS
/* For each tensor where it is copied from and to, its words, and the number of its first chunk. */
#define TENSORS __global const uint *src0, __global uint *dst0, const int size0, const int first0
/* Sets src, dst, size, first to those of the tensor that holds a chunk. */
#define PICK(chunk) { src = src0; dst = dst0; size = size0; first = first0; }
#endif

#include "vectors.cl"

typedef VEC(uint) WORDS __attribute__((aligned(4)));

__kernel __attribute__((vec_type_hint(VEC(uint)))) void copies(TENSORS)
{
    const int chunk = get_group_id(0);
    __global const uint *src;
    __global uint *dst;
    int size, first;
    PICK(chunk)
    const int begin = (chunk - first) * CHUNK;
    const int stop = min(size - begin, CHUNK) + begin;
    const int stride = (int)get_local_size(0) * W;
    int i = begin + (int)get_local_id(0) * W;
    for (; i + W <= stop; i += stride)
        *(__global WORDS *)(dst + i) = *(__global const WORDS *)(src + i);
    for (const int end = min(i + W, stop); i < end; i++) dst[i] = src[i];
}
