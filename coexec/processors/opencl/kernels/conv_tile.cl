/* Tiles of work-groups for convolutions on GPUs: included by conv_tiled.cl, conv_tiled_weight.cl.
 * No kernel stands here.
 *
 * A work-group is WX x WY items; an item sums RM rows times 4 columns in registers, so that a group
 * has TM = WY * RM rows and TN = 4 * WX columns of the result. Steps of TK terms of the sum lie in
 * local memory, [term][row] and [term][column], read as vectors of 4: neighbours along x read
 * neighbouring vectors of columns, and one vector of rows together. A row of `left` ends with a
 * vector that is never read, so that items that write a row's terms meet different banks.
 *
 * Registers of an item: 4 * RM sums, 8 or 12 operands, some 16 for addresses: 40 to 60. */

#ifndef WX
#define WX 16 /* items along columns */
#endif
#ifndef WY
#define WY 8 /* items along rows */
#endif
#ifndef RM
#define RM 4 /* rows of an item: 4 or 8 */
#endif
#ifndef TK
#define TK 16 /* terms of a step */
#endif
#define V 4

#include "alone.cl"
#include "epilogue.cl"

typedef JOIN(ACC, 4) vec;
typedef JOIN(T, 4) whole; /* where a tensor's rows are whole vectors */

#define TM (WY * RM)
#define TN (WX * 4)
#define ITEMS (WX * WY)
#define GROUP_OF_ITEMS __attribute__((reqd_work_group_size(WX, WY, 1)))

#define TERM_OF_LEFT (TM + 4)
#define LOCAL_LEFT __local vec left[TK * TERM_OF_LEFT / 4]
#define LEFT_AT(k, m) ((__local ACC *)left)[(k) * TERM_OF_LEFT + (m)]

#define ROWS_4(F) F(0) F(1) F(2) F(3)
#define ROWS_8(F) ROWS_4(F) F(4) F(5) F(6) F(7)
#define ROWS(F) JOIN(ROWS_, RM)(F)
#define DECLARE(i) vec c##i = 0;

/* One term: the item's rows times its columns `b`. */
#define ADD_4(v, i, j, k, l)                                                                       \
    c##i += (v).s0 * right_term;                                                                   \
    c##j += (v).s1 * right_term;                                                                   \
    c##k += (v).s2 * right_term;                                                                   \
    c##l += (v).s3 * right_term;
#if RM == 8
#define ADD_TERM(at_rows, at_columns)                                                              \
    {                                                                                              \
        const vec right_term = at_columns, upper = (at_rows)[0], lower = (at_rows)[1];             \
        ADD_4(upper, 0, 1, 2, 3)                                                                   \
        ADD_4(lower, 4, 5, 6, 7)                                                                   \
    }
#else
#define ADD_TERM(at_rows, at_columns)                                                              \
    {                                                                                              \
        const vec right_term = at_columns, upper = (at_rows)[0];                                   \
        ADD_4(upper, 0, 1, 2, 3)                                                                   \
    }
#endif
