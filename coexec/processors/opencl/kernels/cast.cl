/* Conversion between element types: y[i] = (U)x[i], or x[i] != 0 for boolean y.
 * Layout: flat, any shape. Geometry: one work-item per W elements, padded to the work-group size;
 * the last item does the rest one by one. */

#ifndef T
#define T float /* element type of x */
#endif
#ifndef U
#define U int /* element type of y */
#endif
#ifndef W
#define W 16 /* elements of a work-item: 1, 2, 4, 8 or 16 */
#endif
/* TO_BOOL: defined where y is boolean (stored as uchar). */

#include "vectors.cl"

typedef VEC(T) TV __attribute__((aligned(sizeof(T))));
typedef VEC(U) UV __attribute__((aligned(sizeof(U))));

#ifdef TO_BOOL
#define ONE(v) ((U)((v) != (T)0))
#else
#define ONE(v) ((U)(v))
#endif
#if W == 1
#define MANY(v) ONE(v)
#elif defined(TO_BOOL)
#define MANY(v) CAT(convert_, VEC(U))(-((v) != (VEC(T))0))
#else
#define MANY(v) CAT(convert_, VEC(U))(v)
#endif

__kernel __attribute__((vec_type_hint(VEC(U))))
void cast(__global const T *x, __global U *y, const int size)
{
    const int start = (int)get_global_id(0) * W;
    if (start + W <= size) {
        const VEC(T) v = *(__global const TV *)(x + start);
        *(__global UV *)(y + start) = MANY(v);
        return;
    }
    for (int i = start; i < size; i++) y[i] = ONE(x[i]);
}
