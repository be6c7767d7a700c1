/* Sums of magnitudes of several tensors, in two kernels: finite exactly where all elements are.
 * Layout: flat. Geometry of partial_sums: the tensors are cut into chunks of CHUNK elements, a
 * work-group for each; its items take vectors of W elements in turn and write a sum each.
 * join_sums: one work-group of LANES items. Results are deterministic. */

#ifndef T
#define T float /* element type of the tensors */
#endif
#ifndef ACC
#define ACC float /* type of sums: float for half, T else; double where any tensor is */
#endif
#ifndef CHUNK
#define CHUNK 1024 /* elements of a work-group: a multiple of W */
#endif
#ifndef TENSORS
/* For each tensor its elements, how many there are, and the number of its first chunk. */
#define TENSORS __global const T *x0, const int size0, const int first0
/* Sets x, size, first to those of the tensor that holds a chunk. */
#define PICK(chunk) { x = x0; size = size0; first = first0; }
#endif
/* WIDEN: defined where ACC is not T. */

#include "vectors.cl"
#include "group.cl"

typedef VEC(T) TV __attribute__((aligned(sizeof(T))));
#define HINT __attribute__((vec_type_hint(VEC(ACC))))

#ifdef WIDEN
#define GET(p) CONVERT(ACC, *(__global const TV *)(p))
#else
#define GET(p) (*(__global const TV *)(p))
#endif

static inline ACC add_up(const VEC(ACC) v)
{
#if W == 1
    return v;
#else
    const VEC(ACC) lanes = v;
    ACC sum = 0;
    for (int i = 0; i < W; ++i) sum += ((const ACC *)&lanes)[i];
    return sum;
#endif
}

__kernel HINT void partial_sums(__global ACC *sums, const int first_sum, TENSORS)
{
    const int chunk = get_group_id(0);
    __global const T *x;
    int size, first;
    PICK(chunk)
    const int begin = (chunk - first) * CHUNK;
    const int stop = min(size - begin, CHUNK) + begin;
    const int stride = (int)get_local_size(0) * W;
    int i = begin + (int)get_local_id(0) * W;
    VEC(ACC) even = 0, odd = 0;
    for (; i + stride + W <= stop; i += 2 * stride) {
        even += fabs(GET(x + i));
        odd += fabs(GET(x + i + stride));
    }
    for (; i + W <= stop; i += stride) even += fabs(GET(x + i));
    ACC rest = 0;
    for (const int end = min(i + W, stop); i < end; i++) rest += fabs((ACC)x[i]);
    sums[first_sum + (int)get_global_id(0)] = add_up(even + odd) + rest;
}

__kernel void join_sums(__global const ACC *sums, __global float *y, const int count)
{
    __local ACC partial[LANES * ROWS];
    ACC sum = 0;
    for (int i = get_local_id(0); i < count; i += LANES) sum += sums[i];
    sum = sum_group(sum, partial);
    if (get_local_id(0) == 0) y[0] = (float)sum;
}
