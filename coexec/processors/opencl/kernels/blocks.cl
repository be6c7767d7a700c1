/* What codes of blocks are (their layout: compress.cl), included by kernels that make or read them.
 * No kernel stands here. */

#ifndef ACC
#define ACC float /* type to compute in */
#endif
#ifndef E
#define E float /* element type of ends */
#endif
#ifndef BITS
#define BITS 8 /* bits of a code: 4 or 8 */
#endif

#define BLOCK 64
#define PLACES (32 / BITS)
#define WORDS (BLOCK / PLACES)
#define LEVELS ((1 << BITS) - 1)
#define NARROWEST (ACC)1e-30f /* ends that are no further apart count as equal */

/* Codes per unit; 0: all values are the lower end. */
static inline __attribute__((always_inline)) ACC rate_of(const ACC low, const ACC high)
{
    const ACC span = high - low;
    return span > NARROWEST ? (ACC)LEVELS / span : (ACC)0;
}
