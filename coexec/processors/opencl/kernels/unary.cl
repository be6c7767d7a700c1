/* Elementwise operators of one operand: y[i] = F(x[i]).
 * Layout: flat, any shape. Geometry: one work-item per element, padded to the work-group size. */

#ifndef T
#define T float /* element type of x and y */
#endif
#ifndef F
#define F(x) (x) /* the operator */
#endif

__kernel void unary(__global const T *x, __global T *y, const int size)
{
    const int i = get_global_id(0);
    if (i < size) y[i] = F(x[i]);
}
