/* Quantisation and its inverse.
 * Layout: the tensor is outer x axis x inner, dense; element (o, a, i) has the scale and zero
 * point number o * s_outer + (a / block) * s_axis + i * s_inner.
 *
 * quantize, dequantize:             one work-item per element.
 * quantize_lines, dequantize_lines: s_inner is 0 (one scale a line) or 1; geometry
 *          (inner / W, axis, outer), W elements of a line per work-item, the last one of a line
 *          does the rest one by one.
 * span, quantize_alone:             one work-item in all. */

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
#ifndef W
#define W 16 /* elements of a work-item: 1, 2, 4, 8 or 16 */
#endif
/* ZEROS: defined where zero points are given. */

#include "vectors.cl"

typedef VEC(T) TV __attribute__((aligned(sizeof(T))));
typedef VEC(U) UV __attribute__((aligned(sizeof(U))));
typedef VEC(S) SV __attribute__((aligned(sizeof(S))));
typedef VEC(Z) ZV __attribute__((aligned(sizeof(Z))));
#define HINT __attribute__((vec_type_hint(VEC(float))))

/* Integers of 16 bits are exact in float; what is not exact is out of range anyway. */
#define LIMIT(V, q) ((q) < (V)LOW ? (V)LOW : ((q) > (V)HIGH ? (V)HIGH : (q)))

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
    y[n] = (U)LIMIT(float, q);
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

#define PLACE                                                      \
    const int start = (int)get_global_id(0) * W;                   \
    const int a = get_global_id(1);                                \
    const int o = get_global_id(2);                                \
    if (start >= inner || a >= axis) return;                       \
    const int line = (o * axis + a) * inner;                       \
    const int at = o * s_outer + (a / block) * s_axis;

__kernel HINT void quantize_lines(__global const T *x, __global const S *scales,
                                  __global const Z *zeros, __global U *y, const int axis,
                                  const int inner, const int block, const int s_outer,
                                  const int s_axis, const int s_inner)
{
    PLACE
    if (start + W <= inner) {
        VEC(C) scale = (VEC(C))(C)scales[at];
        if (s_inner) scale = CONVERT(C, *(__global const SV *)(scales + at + start));
        const VEC(C) v = CONVERT(C, *(__global const TV *)(x + line + start));
        VEC(float) q = CONVERT(float, rint(v / scale));
#ifdef ZEROS
        VEC(float) zero = (VEC(float))(float)zeros[at];
        if (s_inner) zero = CONVERT(float, *(__global const ZV *)(zeros + at + start));
        q += zero;
#endif
        *(__global UV *)(y + line + start) = CONVERT(U, LIMIT(VEC(float), q));
        return;
    }
    for (int i = start; i < inner; i++) {
        float q = (float)rint((C)x[line + i] / (C)scales[at + i * s_inner]);
#ifdef ZEROS
        q += (float)zeros[at + i * s_inner];
#endif
        y[line + i] = (U)LIMIT(float, q);
    }
}

__kernel HINT void dequantize_lines(__global const T *x, __global const S *scales,
                                    __global const T *zeros, __global U *y, const int axis,
                                    const int inner, const int block, const int s_outer,
                                    const int s_axis, const int s_inner)
{
    PLACE
    if (start + W <= inner) {
        VEC(C) scale = (VEC(C))(C)scales[at];
        if (s_inner) scale = CONVERT(C, *(__global const SV *)(scales + at + start));
        VEC(I) value = CONVERT(I, *(__global const TV *)(x + line + start));
#ifdef ZEROS
        VEC(I) zero = (VEC(I))(I)zeros[at];
        if (s_inner) zero = CONVERT(I, *(__global const TV *)(zeros + at + start));
        value -= zero;
#endif
        *(__global UV *)(y + line + start) = CONVERT(U, CONVERT(C, value) * scale);
        return;
    }
    for (int i = start; i < inner; i++) {
        I value = (I)x[line + i];
#ifdef ZEROS
        value -= (I)zeros[at + i * s_inner];
#endif
        y[line + i] = (U)((C)value * (C)scales[at + i * s_inner]);
    }
}

/* The step and the zero point that map [min(low, 0), max(high, 0)] to 0 .. 255. */
inline C span_of(const C low, const C high, __global uchar *zero)
{
    const C bottom = low < 0 ? low : (C)0;
    const C top = high > 0 ? high : (C)0;
    const C step = (top > bottom ? top - bottom : (C)1) / (C)255;
    const C at = rint(-bottom / step);
    zero[0] = (uchar)(at < 0 ? (C)0 : (at > 255 ? (C)255 : at));
    return step;
}

/* One work-item. */
__kernel void span(__global const C *low, __global const C *high, __global S *scale,
                   __global C *exact_scale, __global uchar *zero)
{
    if (get_global_id(0) != 0) return;
    exact_scale[0] = span_of(low[0], high[0], zero);
    scale[0] = (S)exact_scale[0];
}

/* All of a dynamic quantisation: extremes, scale and zero point, values. One work-item. */
__kernel HINT void quantize_alone(__global const T *x, __global S *scale, __global uchar *zero,
                                  __global U *y, const int size)
{
    if (get_global_id(0) != 0) return;
    VEC(C) lows = 0, highs = 0;
    int i = 0;
    for (; i + W <= size; i += W) {
        const VEC(C) v = CONVERT(C, *(__global const TV *)(x + i));
        lows = fmin(lows, v), highs = fmax(highs, v);
    }
    C low = 0, high = 0;
    for (int l = 0; l < W; ++l) low = fmin(low, ((C *)&lows)[l]), high = fmax(high, ((C *)&highs)[l]);
    for (int j = i; j < size; ++j) low = fmin(low, (C)x[j]), high = fmax(high, (C)x[j]);
    const C step = span_of(low, high, zero);
    scale[0] = (S)step;
    const float middle = (float)zero[0];
    for (i = 0; i + W <= size; i += W) {
        const VEC(C) v = CONVERT(C, *(__global const TV *)(x + i));
        const VEC(float) q = CONVERT(float, rint(v / (VEC(C))step)) + (VEC(float))middle;
        *(__global UV *)(y + i) = CONVERT(U, LIMIT(VEC(float), q));
    }
    for (; i < size; ++i) {
        const float q = (float)rint((C)x[i] / step) + middle;
        y[i] = (U)LIMIT(float, q);
    }
}
