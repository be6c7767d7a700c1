/* Tensors made out of numbers: fill (ConstantOfShape, Constant), integers (Shape, Size), range, eye,
 * one_hot.
 * Layout: flat, any shape. Geometry: one work-item per output element, padded to the work-group
 * size; integers: one work-item. */

#ifndef T
#define T float /* element type of the output; a word of its width in fill */
#endif
#ifndef A
#define A float /* type that range computes in */
#endif
#ifndef I
#define I long /* type of one_hot's indices */
#endif

__kernel void fill(__global T *y, const int size, const T value)
{
    const int i = get_global_id(0);
    if (i < size) y[i] = value;
}

/* Up to eight numbers (the dimensions of a shape). */
__kernel void integers(__global long *y, const int size, const long v0, const long v1,
                       const long v2, const long v3, const long v4, const long v5, const long v6,
                       const long v7)
{
    const long all[8] = {v0, v1, v2, v3, v4, v5, v6, v7};
    if (get_global_id(0) == 0)
        for (int i = 0; i < size; ++i) y[i] = all[i];
}

__kernel void range(__global T *y, const int size, const A start, const A delta)
{
    const int i = get_global_id(0);
    if (i < size) y[i] = (T)(start + (A)i * delta);
}

/* y is (rows, columns): ones where column - row = k. */
__kernel void eye(__global T *y, const int size, const int columns, const int k)
{
    const int i = get_global_id(0);
    if (i < size) y[i] = (T)(i % columns - i / columns == k);
}

/* y is (outer, depth, inner), indices (outer, inner), values (off, on); T is a word here.
 * Geometry: (depth * inner / SPAN, outer). INNER is the inner size, fixed where it is 1. */
#ifndef SPAN
#define SPAN 16 /* one_hot: neighbouring elements of a work-item */
#endif
#ifndef INNER
#define INNER inner
#endif
#ifndef WHOLE
#define WHOLE(x) (x) /* one_hot: fractions are cut off */
#endif
__kernel void one_hot(__global const I *indices, __global const T *values, __global T *y,
                      const int outer, const int depth, const int inner)
{
    const int i = get_global_id(0) * SPAN, row = get_global_id(1);
    if (i >= depth * inner || row >= outer) return;
    const int last = min(i + SPAN, depth * inner);
    const T off = values[0], on = values[1];
    __global T *to = y + row * depth * inner;
    for (int k = i; k < last; ++k) {
        const int at = k / INNER;
        const I index = WHOLE(indices[row * inner + k % INNER]);
        /* In the index type's own comparison: wide indices must not be cut. */
        to[k] = index == (I)at || (index < 0 && index + (I)depth == (I)at) ? on : off;
    }
}
