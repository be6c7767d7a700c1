/* Matrix products, one element at a time: Y[b] = alpha * A[b] B[b] + beta * C.
 * Layout: any; A[b, m, k] lies at off(b) + m * a_m + k * a_k, B and C likewise. The batch index b
 * has four levels of extents (extent_0), extent_1..3 with one stride per level, 0 where broadcast.
 * Y is contiguous (batch, M, N).
 * Geometry: one work-item per element of Y, padded to the work-group. */

#ifndef T
#define T float /* element type of A, B, C and Y */
#endif
#ifndef ACC
#define ACC float /* type of sums, alpha and beta */
#endif
#ifndef HAS_C
#define HAS_C 0 /* 1: there is an operand C */
#endif

__kernel void gemm_naive(__global const T *a, __global const T *b,
#if HAS_C
                         __global const T *c, const int c_m, const int c_n, const ACC beta,
#endif
                         __global T *y, const ACC alpha, const int total, const int rows,
                         const int columns, const int depth, const int a_m, const int a_k,
                         const int b_k, const int b_n, const int extent_1, const int extent_2,
                         const int extent_3, const int a_0, const int a_1, const int a_2,
                         const int a_3, const int b_0, const int b_1, const int b_2, const int b_3)
{
    const int i = get_global_id(0);
    if (i >= total) return;
    const int n = i % columns;
    const int m = i / columns % rows;
    int batch = i / columns / rows;
    a += m * a_m;
    b += n * b_n;
    a += batch % extent_3 * a_3, b += batch % extent_3 * b_3, batch /= extent_3;
    a += batch % extent_2 * a_2, b += batch % extent_2 * b_2, batch /= extent_2;
    a += batch % extent_1 * a_1, b += batch % extent_1 * b_1, batch /= extent_1;
    a += batch * a_0, b += batch * b_0;
    ACC sum = 0;
    for (int k = 0; k < depth; ++k) sum += (ACC)a[k * a_k] * (ACC)b[k * b_k];
    sum *= alpha;
#if HAS_C
    sum += beta * (ACC)c[m * c_m + n * c_n];
#endif
    y[i] = (T)sum;
}
