/* Values between the elements of images, at the positions of a grid, and the gradients.
 * Layout: images (batch, channels, d0, d1, d2), grid (batch, points, AXES), results (batch,
 * channels, points), all contiguous; missing axes in front have extent 1 and one tap. The last
 * coordinate of a position belongs to the first axis.
 *
 * sample:     one work-item per position and image; it finds the taps once for all channels.
 * input_grad: one work-item per channel of an image: it adds up what meets in an element in the
 *             order of positions, so that results are reproducible.
 * grid_grad:  one work-item per position and image. */

#ifndef T
#define T float /* element type of images and results */
#endif
#ifndef G
#define G float /* element type of the grid */
#endif
#ifndef ACC
#define ACC float /* type to compute in */
#endif
#ifndef AXES
#define AXES 2 /* spatial axes: 1, 2 or 3 */
#endif
#ifndef TAPS
#define TAPS 2 /* 1: nearest, 2: linear, 4: cubic */
#endif
#ifndef PADDING
#define PADDING 0 /* 0: zeros, 1: border, 2: reflection */
#endif
#ifndef ALIGN
#define ALIGN 0 /* 1: borders lie in the middle of elements, 0: at their edges */
#endif

#define CUBIC ((ACC)-0.75)
#define TAPS_0 (AXES > 2 ? TAPS : 1)
#define TAPS_1 (AXES > 1 ? TAPS : 1)

/* What a position reads along one axis: elements, weights and their slopes by the coordinate. */
typedef struct {
    int index[TAPS];
    ACC weight[TAPS];
    ACC slope[TAPS];
} taps;

/* A place mirrored at two borders until it lies between them; turned: whether it runs backward. */
inline ACC reflect(const ACC at, const ACC low, const ACC high, bool *turned)
{
    const ACC span = high - low;
    *turned = false;
    if (at >= low && at <= high) return at;
    if (span <= 0) return low;
    const ACC twice = 2 * span;
    const ACC phase = at - low - floor((at - low) / twice) * twice;
    *turned = phase > span;
    return *turned ? high - (phase - span) : low + phase;
}

inline ACC outer(const ACC d)
{
    return ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC;
}

inline ACC inner(const ACC d)
{
    return ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1;
}

inline ACC outer_slope(const ACC d)
{
    return (3 * CUBIC * d - 10 * CUBIC) * d + 8 * CUBIC;
}

inline ACC inner_slope(const ACC d)
{
    return (3 * (CUBIC + 2) * d - 2 * (CUBIC + 3)) * d;
}

inline taps find(const ACC normal, const int size)
{
    taps found;
    const ACC low = ALIGN ? (ACC)0 : (ACC)-0.5, high = low + (ALIGN ? size - 1 : size);
    ACC at = ALIGN ? (normal + 1) / 2 * (size - 1) : ((normal + 1) * size - 1) / 2;
    ACC slope = ALIGN ? (ACC)(size - 1) / 2 : (ACC)size / 2;
    bool turned;
    if (TAPS == 1) at = rint(at);
    if (PADDING == 1 && TAPS != 4 && (at < low || at > high)) {
        at = clamp(at, (ACC)0, (ACC)(size - 1));
        slope = 0;
    }
    if (PADDING == 2) {
        at = reflect(at, low, high, &turned);
        slope = turned ? -slope : slope;
    }
    /* Far beyond the image nothing is read, and an integer could not hold the place. */
    at = clamp(at, (ACC)-8, (ACC)size + 8);
    const ACC base = floor(at), t = at - base;
    const int first = (int)base - (TAPS == 4);
    if (TAPS == 1) {
        found.weight[0] = 1, found.slope[0] = 0;
    } else if (TAPS == 2) {
        found.weight[0] = 1 - t, found.weight[TAPS > 1] = t;
        found.slope[0] = -1, found.slope[TAPS > 1] = 1;
    } else {
        found.weight[0] = outer(t + 1), found.weight[TAPS / 4] = inner(t);
        found.weight[TAPS / 2] = inner(1 - t), found.weight[TAPS - 1] = outer(2 - t);
        found.slope[0] = outer_slope(t + 1), found.slope[TAPS / 4] = inner_slope(t);
        found.slope[TAPS / 2] = -inner_slope(1 - t), found.slope[TAPS - 1] = -outer_slope(2 - t);
    }
    for (int i = 0; i < TAPS; ++i) {
        int index = first + i;
        found.slope[i] *= slope;
        if (PADDING == 0 && (index < 0 || index >= size)) found.weight[i] = found.slope[i] = 0;
        if (PADDING == 2) index = (int)rint(reflect((ACC)index, low, high, &turned));
        found.index[i] = clamp(index, 0, size - 1);
    }
    return found;
}

/* Taps of position p along all axes. */
#define FIND(p)                                                                              \
    __global const G *where = grid + (p) * AXES;                                             \
    taps along[3];                                                                           \
    along[2] = find((ACC)where[0], d2);                                                      \
    along[1].index[0] = along[0].index[0] = 0;                                               \
    along[1].weight[0] = along[0].weight[0] = 1;                                             \
    if (AXES > 1) along[1] = find((ACC)where[AXES > 1], d1);                                 \
    if (AXES > 2) along[0] = find((ACC)where[AXES - 1], d0);

#define FOR_TAPS                                                                             \
    for (int i = 0; i < TAPS_0; ++i)                                                         \
        for (int j = 0; j < TAPS_1; ++j)                                                     \
            for (int k = 0; k < TAPS; ++k)

#define PLACE ((along[0].index[i] * d1 + along[1].index[j]) * d2 + along[2].index[k])
#define WEIGHT (along[0].weight[i] * along[1].weight[j] * along[2].weight[k])

__kernel void sample(__global const T *x, __global const G *grid, __global T *y,
                     const int channels, const int points, const int d0, const int d1,
                     const int d2)
{
    const int p = get_global_id(0), image = get_global_id(1), pixels = d0 * d1 * d2;
    if (p >= points) return;
    FIND(image * points + p)
    x += image * channels * pixels;
    y += image * channels * points + p;
    for (int c = 0; c < channels; ++c, x += pixels, y += points) {
        ACC sum = 0;
        FOR_TAPS sum += WEIGHT * (ACC)x[PLACE];
        *y = (T)sum;
    }
}

__kernel void input_grad(__global const T *dy, __global const G *grid, __global T *dx,
                         __global ACC *sums, const int planes, const int channels,
                         const int points, const int d0, const int d1, const int d2)
{
    const int plane = get_global_id(0), pixels = d0 * d1 * d2;
    if (plane >= planes) return;
    sums += plane * pixels;
    dy += plane * points;
    for (int i = 0; i < pixels; ++i) sums[i] = 0;
    for (int p = 0; p < points; ++p) {
        FIND(plane / channels * points + p)
        FOR_TAPS sums[PLACE] += WEIGHT * (ACC)dy[p];
    }
    for (int i = 0; i < pixels; ++i) dx[plane * pixels + i] = (T)sums[i];
}

__kernel void grid_grad(__global const T *dy, __global const T *x, __global const G *grid,
                        __global G *result, const int channels, const int points, const int d0,
                        const int d1, const int d2)
{
    const int p = get_global_id(0), image = get_global_id(1), pixels = d0 * d1 * d2;
    if (p >= points) return;
    FIND(image * points + p)
    x += image * channels * pixels;
    dy += image * channels * points + p;
    ACC total[3] = {0, 0, 0};
    FOR_TAPS
    {
        ACC read = 0;
        for (int c = 0; c < channels; ++c) read += (ACC)dy[c * points] * (ACC)x[c * pixels + PLACE];
        total[0] += read * along[0].weight[i] * along[1].weight[j] * along[2].slope[k];
        if (AXES > 1) total[1] += read * along[0].weight[i] * along[1].slope[j] * along[2].weight[k];
        if (AXES > 2) total[2] += read * along[0].slope[i] * along[1].weight[j] * along[2].weight[k];
    }
    result += (image * points + p) * AXES;
    for (int axis = 0; axis < AXES; ++axis) result[axis] = (G)total[axis];
}
