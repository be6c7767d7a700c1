/* What a device can do at most: arithmetic, streaming, and nothing at all. Not a kernel family: no
 * operator is computed here; measure.py builds and times these.
 *
 * peak: every work-item runs 10 independent chains of x = x * b + c on vectors of WIDTH elements,
 *   `rounds` times (2 * 10 * WIDTH flop each), and writes one element so that nothing can be left
 *   out. Ten chains cover the latency of the multiply-add pipelines of CPUs and GPUs. The chains
 *   converge to c / (1 - b): no overflow, no denormals.
 *   Geometry: any global size, 1-D.
 * stream_lines: a = b + c, a vector of 4 floats each: neighbours read neighbouring vectors, as GPUs
 *   want it. Geometry: one work-item per 16 bytes of an array, 1-D.
 * stream_runs: the same, 16 vectors of 16 floats in a row each, as CPUs want it. Geometry: one
 *   work-item per 1024 bytes of an array, 1-D.
 * empty: nothing. */

#ifndef T
#define T float /* element type */
#endif
#ifndef WIDTH
#define WIDTH 16 /* elements of a vector: 1, 4, 8 or 16 */
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#if WIDTH == 1
#define V T
#define FIRST(x) (x)
#else
#define V JOIN(T, WIDTH)
#define FIRST(x) ((x).s0)
#endif

__kernel void peak(__global T *out, const int rounds) {
  const T start = (T)(get_global_id(0) & 7);
  const V b = (V)((T)0.5f);
  const V c = (V)((T)1.0f);
  V x0 = (V)(start), x1 = x0 + c, x2 = x1 + c, x3 = x2 + c, x4 = x3 + c;
  V x5 = x4 + c, x6 = x5 + c, x7 = x6 + c, x8 = x7 + c, x9 = x8 + c;
  for (int i = 0; i < rounds; i++) {
    x0 = x0 * b + c;
    x1 = x1 * b + c;
    x2 = x2 * b + c;
    x3 = x3 * b + c;
    x4 = x4 * b + c;
    x5 = x5 * b + c;
    x6 = x6 * b + c;
    x7 = x7 * b + c;
    x8 = x8 * b + c;
    x9 = x9 * b + c;
  }
  const V sum = x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9;
  out[get_global_id(0)] = FIRST(sum);
}

__kernel void stream_lines(__global float4 *a, __global const float4 *b,
                           __global const float4 *c) {
  const int i = get_global_id(0);
  a[i] = b[i] + c[i];
}

__kernel void stream_runs(__global float16 *a, __global const float16 *b,
                          __global const float16 *c) {
  const int first = get_global_id(0) * 16;
  for (int i = first; i < first + 16; i++) a[i] = b[i] + c[i];
}

__kernel void empty(void) {}
