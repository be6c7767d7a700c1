/* Sums of a few rows by the lanes of a group: included by tiled.cl (STEP 1), few_bits_groups.cl.
 * No kernel stands here.
 *
 * Groups of LANES x MANY items: item `lane`, of number `j` along the other axis, has sum0, sum1...
 * of FEW rows, of which each lane took every LANES-th term. They are added in local memory. */

#ifndef LANES
#define LANES 32 /* items along the sum, a power of two */
#endif
#ifndef MANY
#define MANY 2 /* rows of the other operand that a group has */
#endif
#ifndef FEW
#define FEW 4 /* rows of a group: 1, 2 or 4 */
#endif
#if FEW == 4
#define EACH_FEW(F) F(0) F(1) F(2) F(3)
#elif FEW == 2
#define EACH_FEW(F) F(0) F(1)
#else
#define EACH_FEW(F) F(0)
#endif

#define GROUP_OF_LANES __attribute__((reqd_work_group_size(LANES, MANY, 1)))
#define LANE_SUMS __local ACC partial[FEW * MANY * LANES]
#define LANE_SUM(i) partial[(i * MANY + j) * LANES + lane]
#define FEW_ZERO(i) ACC sum##i = 0;
#define FEW_KEEP(i) LANE_SUM(i) = sum##i;
#define FEW_HALVE(i) LANE_SUM(i) += partial[(i * MANY + j) * LANES + lane + half_lanes];
/* After it lane 0 has the sums of all lanes as LANE_SUM(0), LANE_SUM(1)... */
#define ADD_LANES                                                                                  \
    EACH_FEW(FEW_KEEP)                                                                             \
    for (int half_lanes = LANES / 2; half_lanes > 0; half_lanes /= 2) {                            \
        barrier(CLK_LOCAL_MEM_FENCE);                                                              \
        if (lane < half_lanes) {                                                                   \
            EACH_FEW(FEW_HALVE)                                                                    \
        }                                                                                          \
    }                                                                                              \
    barrier(CLK_LOCAL_MEM_FENCE);
