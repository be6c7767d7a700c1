/* Regions of images in one size (RoiAlign), and the gradient of the images.
 * Layout: images (batch, channels, height, width), results (regions, channels, bins_y, bins_x),
 * regions (count, 4) as x, y, x, y of two corners, all contiguous.
 *
 * align: one work-item per bin, block of BLOCK channels and region.
 * grad:  one work-item per channel of an image: it adds up what meets in an element in the order of
 *        regions and bins, so that results are reproducible. */

#ifndef T
#define T float /* element type */
#endif
#ifndef ACC
#define ACC float /* type to compute in */
#endif
#ifndef BLOCK
#define BLOCK 8 /* channels of a work-item */
#endif
#ifndef LARGEST
#define LARGEST 0 /* 1: the largest of all weighted elements, 0: the mean of samples */
#endif

/* A bin along one axis: its first sample, the distance between two, and how many there are. */
typedef struct {
    ACC first, step;
    int count;
} bin;

inline bin find(const ACC low, const ACC high, const int at, const int bins, const int grid,
                const ACC scale, const ACC shift)
{
    bin found;
    const ACC start = low * scale - shift;
    ACC extent = high * scale - shift - start;
    if (shift == 0) extent = max(extent, (ACC)1);
    const ACC width = extent / bins;
    found.count = grid > 0 ? grid : max((int)ceil(width), 0);
    found.step = width / max(found.count, 1);
    found.first = start + at * width + found.step / 2;
    return found;
}

/* Elements and weights of a sample along one axis. */
typedef struct {
    int index[2];
    ACC weight[2];
} taps;

inline taps sample(const ACC place, const int size)
{
    taps found;
    const bool inside = place >= -1 && place <= size;
    const ACC at = clamp(place, (ACC)0, (ACC)(size - 1));
    const int low = (int)at;
    found.index[0] = low;
    found.index[1] = min(low + 1, size - 1);
    found.weight[1] = inside ? at - low : (ACC)0;
    found.weight[0] = inside ? 1 - (at - low) : (ACC)0;
    return found;
}

#define BIN(roi, b)                                                                        \
    const bin down = find((ACC)(roi)[1], (ACC)(roi)[3], (b) / bins_x, bins_y, grid, scale, \
                          shift);                                                          \
    const bin across = find((ACC)(roi)[0], (ACC)(roi)[2], (b) % bins_x, bins_x, grid, scale, \
                            shift);

#define FOR_SAMPLES                                                                        \
    for (int iy = 0; iy < down.count; ++iy) {                                              \
        const taps y = sample(down.first + iy * down.step, height);                        \
        for (int ix = 0; ix < across.count; ++ix) {                                        \
            const taps x = sample(across.first + ix * across.step, width);
#define END_SAMPLES                                                                        \
        }                                                                                  \
    }
#define FOR_TAPS                                                                           \
    for (int i = 0; i < 2; ++i)                                                            \
        for (int j = 0; j < 2; ++j)
#define PLACE (y.index[i] * width + x.index[j])
#define WEIGHT (y.weight[i] * x.weight[j])

__kernel void align(__global const T *images, __global const T *rois,
                    __global const long *image_of, __global T *result, const int channels,
                    const int height, const int width, const int bins_y, const int bins_x,
                    const int grid, const ACC scale, const ACC shift)
{
    const int b = get_global_id(0), bins = bins_y * bins_x, pixels = height * width;
    const int from = get_global_id(1) * BLOCK, region = get_global_id(2);
    if (b >= bins) return;
    const int count = min(BLOCK, channels - from);
    BIN(rois + region * 4, b)
    images += ((int)image_of[region] * channels + from) * pixels;
    result += (region * channels + from) * bins + b;
    ACC sums[BLOCK];
    const int samples = down.count * across.count;
    for (int c = 0; c < BLOCK; ++c) sums[c] = LARGEST && samples ? -INFINITY : (ACC)0;
    FOR_SAMPLES
        FOR_TAPS {
            __global const T *element = images + PLACE;
            const ACC weight = WEIGHT;
            for (int c = 0; c < count; ++c) {
                const ACC value = weight * (ACC)element[c * pixels];
                sums[c] = LARGEST ? fmax(sums[c], value) : sums[c] + value;
            }
        }
    END_SAMPLES
    const ACC factor = LARGEST ? (ACC)1 : (ACC)1 / max(samples, 1);
    for (int c = 0; c < count; ++c) result[c * bins] = (T)(sums[c] * factor);
}

__kernel void grad(__global const T *dy, __global const T *rois, __global const long *image_of,
                   __global const T *images, __global T *dx, __global ACC *sums, const int planes,
                   const int regions, const int channels, const int height, const int width,
                   const int bins_y, const int bins_x, const int grid, const ACC scale,
                   const ACC shift)
{
    const int plane = get_global_id(0), pixels = height * width, bins = bins_y * bins_x;
    if (plane >= planes) return;
    sums += plane * pixels;
    images += plane * pixels;
    for (int i = 0; i < pixels; ++i) sums[i] = 0;
    for (int region = 0; region < regions; ++region) {
        if (image_of[region] != plane / channels) continue;
        __global const T *part = dy + (region * channels + plane % channels) * bins;
        for (int b = 0; b < bins; ++b) {
            BIN(rois + region * 4, b)
            const int samples = down.count * across.count;
            if (!samples) continue;
#if LARGEST
            ACC best = -INFINITY, factor = 0;
            int where = 0;
            FOR_SAMPLES
                FOR_TAPS {
                    const ACC value = WEIGHT * (ACC)images[PLACE];
                    if (value > best) best = value, factor = WEIGHT, where = PLACE;
                }
            END_SAMPLES
            sums[where] += factor * (ACC)part[b];
#else
            const ACC share = (ACC)part[b] / samples;
            FOR_SAMPLES
                FOR_TAPS sums[PLACE] += WEIGHT * share;
            END_SAMPLES
#endif
        }
    }
    for (int i = 0; i < pixels; ++i) dx[plane * pixels + i] = (T)sums[i];
}
