/* Quantisation and its inverse.
 * Layout: the tensor is outer x axis x inner, dense; element (o, a, i) has the scale and zero
 * point number o * s_outer + (a / block) * s_axis + i * s_inner. One work-item per element. */

#ifndef T
#define T float /* element type of x */
#endif
#ifndef U
#define U uchar /* element type of y */
#endif
#ifndef S
#define S float /* element type of the scales */
#endif
#ifndef Z
#define Z uchar /* element type of the zero points */
#endif
#ifndef C
#define C float /* type to compute in */
#endif
#ifndef I
#define I int /* integer that holds x - zero point */
#endif
#ifndef LOW
#define LOW 0 /* range of U */
#define HIGH 255
#endif
/* ZEROS: defined where zero points are given. */

#define SCALE_INDEX(n)                                                  \
    const int o = (n) / (axis * inner);                                 \
    const int a = ((n) / inner) % axis;                                 \
    const int at = o * s_outer + (a / block) * s_axis + ((n) % inner) * s_inner;

__kernel void quantize(__global const T *x, __global const S *scales, __global const Z *zeros,
                       __global U *y, const int size, const int axis, const int inner,
                       const int block, const int s_outer, const int s_axis, const int s_inner)
{
    const int n = get_global_id(0);
    if (n >= size) return;
    SCALE_INDEX(n)
    float q = (float)rint((C)x[n] / (C)scales[at]);
#ifdef ZEROS
    q += (float)zeros[at];
#endif
    /* Integers of 16 bits are exact in float; what is not exact is out of range anyway. */
    q = q < (float)LOW ? (float)LOW : (q > (float)HIGH ? (float)HIGH : q);
    y[n] = (U)q;
}

__kernel void dequantize(__global const T *x, __global const S *scales, __global const T *zeros,
                         __global U *y, const int size, const int axis, const int inner,
                         const int block, const int s_outer, const int s_axis, const int s_inner)
{
    const int n = get_global_id(0);
    if (n >= size) return;
    SCALE_INDEX(n)
    I value = (I)x[n];
#ifdef ZEROS
    value -= (I)zeros[at];
#endif
    y[n] = (U)((C)value * (C)scales[at]);
}

/* Scale and zero point that map [min(low, 0), max(high, 0)] to 0 .. 255. One work-item. */
__kernel void span(__global const C *low, __global const C *high, __global S *scale,
                   __global C *exact_scale, __global uchar *zero)
{
    if (get_global_id(0) != 0) return;
    const C bottom = low[0] < 0 ? low[0] : (C)0;
    const C top = high[0] > 0 ? high[0] : (C)0;
    const C step = (top > bottom ? top - bottom : (C)1) / (C)255;
    const C at = rint(-bottom / step);
    scale[0] = (S)step;
    exact_scale[0] = step;
    zero[0] = (uchar)(at < 0 ? (C)0 : (at > 255 ? (C)255 : at));
}
