/* Several tensors copied, or converted to another element type: y[i] = (U)x[i].
 * Layout: flat. Geometry: the tensors are cut into chunks of CHUNK elements, a work-group for each;
 * its items take vectors of W elements in turn. */

#ifndef T
#define T float /* element type of x */
#endif
#ifdef U /* element type of y, if that is another */
#define AS_U(v) CONVERT(U, v)
#else
#define U T
#define AS_U(v) (v)
#endif
#ifndef CHUNK
#define CHUNK 1024 /* elements of a work-group: a multiple of W */
#endif
#ifndef TENSORS
/* For each tensor x, y, its elements, and the number of its first chunk. */
#define TENSORS __global const T *x0, __global U *y0, const int size0, const int first0
/* Sets x, y, size, first to those of the tensor that holds a chunk. */
#define PICK(chunk) { x = x0; y = y0; size = size0; first = first0; }
#endif

#include "vectors.cl"

typedef VEC(T) TV __attribute__((aligned(sizeof(T))));
typedef VEC(U) UV __attribute__((aligned(sizeof(U))));

__kernel __attribute__((vec_type_hint(VEC(U)))) void casts(TENSORS)
{
    const int chunk = get_group_id(0);
    __global const T *x;
    __global U *y;
    int size, first;
    PICK(chunk)
    const int begin = (chunk - first) * CHUNK;
    const int stop = min(size - begin, CHUNK) + begin;
    const int stride = (int)get_local_size(0) * W;
    int i = begin + (int)get_local_id(0) * W;
    for (; i + W <= stop; i += stride)
        *(__global UV *)(y + i) = AS_U(*(__global const TV *)(x + i));
    for (const int end = min(i + W, stop); i < end; i++) y[i] = (U)x[i];
}
