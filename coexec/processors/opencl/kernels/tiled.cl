/* Matrix products on GPUs: Y[b] = alpha * A[b] B[b] + beta * bias, in tiles of work-groups.
 *
 * Layout: element (m, k) of A lies at m * a_row + k * a_term, (k, n) of B at k * b_term + n *
 * b_column, (m, n) of bias at m * bias_row + n * bias_column, behind the offsets of their batch
 * (four levels of extents (extent_0), extent_1..3 with a stride each, 0 where broadcast). Y is
 * contiguous (batch, rows, columns). Results are finished as they are stored (epilogue.cl).
 *
 * STEP 0, tiled: groups of WX x WY items (conv_tile.cl); numbers of groups: tiles of columns, tiles
 * of rows, batches times parts of the sum. PARTS 1: the sum is cut into parts of `span` terms,
 * which STEP 2 adds up: few tiles of a long sum alone do not occupy a GPU.
 *   STAGED 1: a step of TK terms of both operands is brought to local memory. Neighbouring items
 *   read neighbouring addresses, vectors of VA and VB elements: along terms or, where LEFT_ALONG
 *   (RIGHT_ALONG) is 1, along rows of A (columns of B). With 64 x 64 a step reads 128 * TK floats
 *   for 8192 * TK flop: 16 flop per byte; with 32 x 64, 10.7. Local memory: TK * (TM + TN + 8)
 *   sums, 8.7 KiB with 64 x 64 and TK 16.
 *   STAGED 0: items read 4 columns and RM rows for each term where they lie: for GPUs whose local
 *   memory is plain memory, and for few rows. Four terms at a time (FOURS), of which an operand
 *   that runs along terms is read as vectors.
 * STEP 1, dots: a product with few rows (or columns), where the other operand, `many`, runs along
 * terms: each LANES items of a group walk along one row of it, neighbours read neighbouring vectors
 * of VK elements, once for FEW rows of `few`; the lanes' sums are added in local memory. Bound by
 * reading `many` once. Groups: (blocks of many rows, blocks of FEW, batches).
 * STEP 2, sum: one work-item per element of Y; neighbours read neighbouring sums of each part.
 *
 * Registers of an item: 4 * RM sums and some 24 others; barriers are in uniform control flow, and
 * nothing depends on the size of sub-groups. */

#ifndef STEP
#define STEP 0 /* the kernel of this program. 0: tiled; 1: dots; 2: sum */
#endif
#ifndef STAGED
#define STAGED 1 /* 1: steps of the sum in local memory */
#endif
#ifndef LEFT_ALONG
#define LEFT_ALONG 0 /* 1: A runs along rows; 0: along terms */
#endif
#ifndef RIGHT_ALONG
#define RIGHT_ALONG 1 /* 1: B runs along columns; 0: along terms */
#endif
#ifndef VA
#define VA 4 /* elements of A that are read at a time: 1 or 4 */
#endif
#ifndef VB
#define VB 4 /* elements of B that are read at a time: 1 or 4 */
#endif
#ifndef FOURS
#define FOURS 1 /* 1: sums and their parts are multiples of 4 terms */
#endif
#ifndef PARTS
#define PARTS 0 /* 1: parts of sums are stored as they are */
#endif
#ifndef HAS_BIAS
#define HAS_BIAS 0 /* 1: there is a bias */
#endif
#ifndef ALIGNED
#define ALIGNED 1 /* 1: rows of Y are whole vectors */
#endif

#include "conv_tile.cl"

#define BATCH_ARGUMENTS                                                                            \
    const int extent_1, const int extent_2, const int extent_3, const int a_0, const int a_1,      \
        const int a_2, const int a_3, const int b_0, const int b_1, const int b_2, const int b_3
/* Where a batch lies in an operand. */
#define OFFSET(batch, s)                                                                           \
    ((batch) % extent_3 * s##_3 + (batch) / extent_3 % extent_2 * s##_2 +                          \
     (batch) / (extent_3 * extent_2) % extent_1 * s##_1 +                                          \
     (batch) / (extent_3 * extent_2 * extent_1) * s##_0)

#if STEP == 0
#if PARTS
#define R ACC
#define WHOLE_R vec
#define RESULT_VECTOR(v, m, n, at) (v)
#define RESULT_ONE(v, m, n, at) (v)
#else
#define R T
#define WHOLE_R whole
#if HAS_BIAS
#define BIAS_ONE(m, n) (beta * (ACC)bias[(m) * bias_row + (n) * bias_column])
#define BIAS_VECTOR(m, n)                                                                          \
    (vec)(BIAS_ONE(m, n), BIAS_ONE(m, n + 1), BIAS_ONE(m, n + 2), BIAS_ONE(m, n + 3))
#else
#define BIAS_ONE(m, n) ((ACC)0)
#define BIAS_VECTOR(m, n) ((vec)(ACC)0)
#endif
#define RESULT_VECTOR(v, m, n, at) NARROW(FINISH(alpha * (v) + BIAS_VECTOR(m, n), at))
#define RESULT_ONE(v, m, n, at) ((T)FINISH_ONE(alpha * (v) + BIAS_ONE(m, n), at))
#endif

#define RIGHT_VECTORS (WX + 1) /* of a term of B in local memory: the last one is never read */
#define RIGHT_AT(k, n) ((__local ACC *)right)[(k) * RIGHT_VECTORS * 4 + (n)]

/* Each store has all of its condition: behind a common one PoCL 3.0 stores what it should not. */
#if ALIGNED
#define LEAVE(i)                                                                                   \
    if (row + i < rows && column < columns)                                                        \
        *(__global WHOLE_R *)(y + (row + i) * columns + column) =                                  \
            RESULT_VECTOR(c##i, row + i, column, base + (row + i) * columns + column);
#else
#define LEAVE_ONE(i, j)                                                                            \
    if (row + i < rows && column + j < columns)                                                    \
        y[(row + i) * columns + column + j] =                                                      \
            RESULT_ONE(c##i.s##j, row + i, column + j, base + (row + i) * columns + column + j);
#define LEAVE(i) LEAVE_ONE(i, 0) LEAVE_ONE(i, 1) LEAVE_ONE(i, 2) LEAVE_ONE(i, 3)
#endif

__kernel GROUP_OF_ITEMS void tiled(
    __global const T *a, __global const T *b, __global const T *bias, __global R *y,
    const ACC alpha, const ACC beta, const int bias_row, const int bias_column, const int rows,
    const int columns, const int depth, const int parts, const int span, const int part_size,
    const int a_row, const int a_term, const int b_term, const int b_column,
    BATCH_ARGUMENTS FINISH_PARAMETERS)
{
    const int lx = get_local_id(0), ly = get_local_id(1), id = ly * WX + lx;
    const int part = get_group_id(2) % parts, batch = get_group_id(2) / parts;
    const int first_row = get_group_id(1) * TM, first_column = get_group_id(0) * TN;
    const int row = first_row + ly * RM, column = first_column + 4 * lx;
    const int begin = part * span, end = min(begin + span, depth);
    a += OFFSET(batch, a);
    b += OFFSET(batch, b);
    ROWS(DECLARE)
#if STAGED
    LOCAL_LEFT;
    __local vec right[TK * RIGHT_VECTORS];
    for (int k = begin; k < end; k += TK) {
        for (int i = id; i < TM * TK / VA; i += ITEMS) {
#if LEFT_ALONG
            const int m = i % (TM / VA) * VA, t = i / (TM / VA);
#else
            const int t = i % (TK / VA) * VA, m = i / (TK / VA);
#endif
            const int inside = first_row + m < rows && k + t < end;
            __global const T *from = a + (first_row + m) * a_row + (k + t) * a_term;
#if VA == 4
            vec value = 0;
            if (inside) value = WIDEN(*(__global const whole *)from);
#if LEFT_ALONG
            left[(t * TERM_OF_LEFT + m) / 4] = value;
#else
            LEFT_AT(t, m) = value.s0;
            LEFT_AT(t + 1, m) = value.s1;
            LEFT_AT(t + 2, m) = value.s2;
            LEFT_AT(t + 3, m) = value.s3;
#endif
#else
            LEFT_AT(t, m) = inside ? (ACC)*from : (ACC)0;
#endif
        }
        for (int i = id; i < TN * TK / VB; i += ITEMS) {
#if RIGHT_ALONG
            const int n = i % (TN / VB) * VB, t = i / (TN / VB);
#else
            const int t = i % (TK / VB) * VB, n = i / (TK / VB);
#endif
            const int inside = first_column + n < columns && k + t < end;
            __global const T *from = b + (k + t) * b_term + (first_column + n) * b_column;
#if VB == 4
            vec value = 0;
            if (inside) value = WIDEN(*(__global const whole *)from);
#if RIGHT_ALONG
            right[t * RIGHT_VECTORS + n / 4] = value;
#else
            RIGHT_AT(t, n) = value.s0;
            RIGHT_AT(t + 1, n) = value.s1;
            RIGHT_AT(t + 2, n) = value.s2;
            RIGHT_AT(t + 3, n) = value.s3;
#endif
#else
            RIGHT_AT(t, n) = inside ? (ACC)*from : (ACC)0;
#endif
        }
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 4
        for (int t = 0; t < TK; ++t)
            ADD_TERM(left + t * (TERM_OF_LEFT / 4) + ly * (RM / 4), right[t * RIGHT_VECTORS + lx])
        barrier(CLK_LOCAL_MEM_FENCE);
    }
#else
#define POINT(i) __global const T *a##i = a + min(row + i, rows - 1) * a_row;
#define COLUMN(j) __global const T *b##j = b + min(column + j, columns - 1) * b_column;
#define VALUE(k) (vec)((ACC)b0[k], (ACC)b1[k], (ACC)b2[k], (ACC)b3[k])
    ROWS(POINT)
#if RIGHT_ALONG && VB == 4
    b += min(column, columns - 4);
#define RIGHT_TERM(k, i) WIDEN(*(__global const whole *)(b + ((k) + i) * b_term))
#define RIGHT_FOURS(k)
#elif !RIGHT_ALONG && VB == 4
    COLUMN(0) COLUMN(1) COLUMN(2) COLUMN(3)
#define RIGHT_FOUR(j, k) const vec f##j = WIDEN(*(__global const whole *)(b##j + (k)));
#define RIGHT_FOURS(k) RIGHT_FOUR(0, k) RIGHT_FOUR(1, k) RIGHT_FOUR(2, k) RIGHT_FOUR(3, k)
#define RIGHT_TERM(k, i) (vec)(f0.s##i, f1.s##i, f2.s##i, f3.s##i)
#else
    COLUMN(0) COLUMN(1) COLUMN(2) COLUMN(3)
#define RIGHT_TERM(k, i) VALUE(((k) + i) * b_term)
#define RIGHT_FOURS(k)
#endif
#if !LEFT_ALONG && VA == 4
#define LEFT_FOUR(i) const vec e##i = WIDEN(*(__global const whole *)(a##i + k));
#define LEFT_TERM(i, j) e##i.s##j
#else
#define LEFT_FOUR(i)
#define LEFT_TERM(i, j) (ACC)a##i[(k + j) * a_term]
#endif
#define MULTIPLY_0(i) c##i += LEFT_TERM(i, 0) * value;
#define MULTIPLY_1(i) c##i += LEFT_TERM(i, 1) * value;
#define MULTIPLY_2(i) c##i += LEFT_TERM(i, 2) * value;
#define MULTIPLY_3(i) c##i += LEFT_TERM(i, 3) * value;
#define ONE_TERM(j)                                                                                \
    {                                                                                              \
        const vec value = RIGHT_TERM(k, j);                                                        \
        ROWS(MULTIPLY_##j)                                                                         \
    }
#if FOURS
    for (int k = begin; k < end; k += 4) {
        ROWS(LEFT_FOUR)
        RIGHT_FOURS(k)
        ONE_TERM(0) ONE_TERM(1) ONE_TERM(2) ONE_TERM(3)
    }
#else
    for (int k = begin; k < end; ++k) ONE_TERM(0)
#endif
#endif
    const int base = batch * rows * columns;
#if PARTS
    y += (size_t)part * part_size;
#endif
    y += base;
    ROWS(LEAVE)
}
#endif

#if STEP == 1
#ifndef VK
#define VK 4 /* terms that an item reads at a time: 1 or 4 */
#endif
#include "few_lanes.cl"

#define FEW_AT(i) __global const T *few##i = a + min(first + i, few_rows - 1) * few_row;
#if VK == 4
#define FEW_ADD(i) sum##i += dot(value, WIDEN(*(__global const whole *)(few##i + k)));
#else
#define FEW_ADD(i) sum##i += value * (ACC)few##i[k * few_term];
#endif
/* Each store has all of its condition. */
#define FEW_LEAVE(i)                                                                               \
    if (lane == 0 && own < many_rows && first + i < few_rows) {                                    \
        const int at = batch * few_rows * many_rows + (first + i) * y_few + own * y_many;          \
        ACC sum = alpha * LANE_SUM(i);                                                             \
        if (HAS_BIAS) sum += beta * (ACC)bias[(first + i) * bias_few + own * bias_many];           \
        y[at] = (T)FINISH_ONE(sum, at);                                                            \
    }

__kernel GROUP_OF_LANES void dots_of_groups(
    __global const T *a, __global const T *b, __global const T *bias, __global T *y,
    const ACC alpha, const ACC beta, const int bias_few, const int bias_many, const int few_rows,
    const int many_rows, const int depth, const int few_row, const int few_term,
    const int many_row, const int y_few, const int y_many, BATCH_ARGUMENTS FINISH_PARAMETERS)
{
    LANE_SUMS;
    const int lane = get_local_id(0), j = get_local_id(1), batch = get_group_id(2);
    const int own = get_group_id(0) * MANY + j, first = get_group_id(1) * FEW;
    a += OFFSET(batch, a);
    b += OFFSET(batch, b) + min(own, many_rows - 1) * many_row;
    EACH_FEW(FEW_AT)
    EACH_FEW(FEW_ZERO)
    for (int k = lane * VK; k < depth; k += LANES * VK) {
#if VK == 4
        const vec value = WIDEN(*(__global const whole *)(b + k));
#else
        const ACC value = (ACC)b[k];
#endif
        EACH_FEW(FEW_ADD)
    }
    ADD_LANES
    EACH_FEW(FEW_LEAVE)
}
#endif

#if STEP == 2
__kernel void tiled_sum(__global const ACC *sums, __global const T *bias, __global T *y,
                        const ACC alpha, const ACC beta, const int bias_row, const int bias_column,
                        const int rows, const int columns, const int total,
                        const int parts FINISH_PARAMETERS)
{
    const int i = get_global_id(0);
    if (i >= total) return;
    ACC sum = 0;
    for (int part = 0; part < parts; ++part) sum += sums[(size_t)part * total + i];
    sum *= alpha;
#if HAS_BIAS
    sum += beta * (ACC)bias[i / columns % rows * bias_row + i % columns * bias_column];
#endif
    y[i] = (T)FINISH_ONE(sum, i);
}
#endif
