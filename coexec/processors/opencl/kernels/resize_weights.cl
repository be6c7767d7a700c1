/* Places and weights of a filter along one axis: included by resize.cl and resize_lines.cl. Places are
 * fixed-point numbers with FRACTION fractional bits. No kernel stands here. */

#ifndef ACC
#define ACC float /* type of weights and sums */
#endif
#ifndef MODE
#define MODE 0 /* 0 nearest, 1 linear, 2 cubic */
#endif
#ifndef FRACTION
#define FRACTION 42 /* fractional bits of places */
#endif

#define ONE ((long)1 << FRACTION)
#define HALF_ONE ((long)1 << (FRACTION - 1))

/* Place of output o in x, snapped to multiples of 1/2. */
static long place_of(const int o, const long slope, const long offset, const long snap)
{
    const long x = slope * o + offset;
    const long near = ((x + HALF_ONE / 2) >> (FRACTION - 1)) << (FRACTION - 1);
    const long distance = x - near;
    return distance <= snap && -distance <= snap ? near : x;
}

static ACC fraction_of(const long x)
{
    return (ACC)(x & (ONE - 1)) * ((ACC)1 / (ACC)ONE);
}

/* Weight of an element at a distance from the place. */
static ACC weight_of(ACC distance, const ACC a)
{
    const ACC d = fabs(distance);
#if MODE == 1
    return d < 1 ? 1 - d : 0;
#else
    if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
#endif
}
