/* Vectors of W elements of any type, included by kernels whose work-items do several elements.
 * VEC(t) is the vector of t (t itself where W is 1), CONVERT(t, v) turns v into it. No kernel
 * stands here. */

#ifndef W
#define W 16 /* elements of a vector: 1, 2, 4, 8 or 16 */
#endif

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#if W == 1
#define VEC(t) t
#define CONVERT(t, v) ((t)(v))
#else
#define VEC(t) CAT(t, W)
#define CONVERT(t, v) CAT(convert_, VEC(t))(v)
#endif
