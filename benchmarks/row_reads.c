/* Reads rows and does nothing else: what an event-driven product takes at least. */
#include <stddef.h>
#include <stdint.h>

typedef uint64_t line __attribute__((vector_size(64), aligned(64)));

typedef struct {
    ptrdiff_t row, line;
} place;

static inline __attribute__((always_inline)) void fetch(const uint8_t *weight, ptrdiff_t stride,
                                                        ptrdiff_t lines, const int32_t *index,
                                                        ptrdiff_t n, place *at)
{
    if (at->row >= n) return;
    __builtin_prefetch(weight + index[at->row] * stride + 64 * at->line, 0, 2);
    if (++at->line < lines) return;
    at->line = 0;
    at->row++;
}

/* The rows index[0 .. n), `lines` cache lines each, one after another; each line is asked for
 * `ahead` lines before it is read and again `again` lines before, if these are not 0. Rows lie
 * `stride` bytes apart, on cache lines. Returns a sum that hangs on every byte. */
uint64_t read_rows(const uint8_t *weight, ptrdiff_t stride, ptrdiff_t lines, const int32_t *index,
                   ptrdiff_t n, ptrdiff_t ahead, ptrdiff_t again)
{
    line sum = {0};
    place far = {0, 0}, near = {0, 0};
    for (ptrdiff_t i = 0; i < ahead; i++) fetch(weight, stride, lines, index, n, &far);
    for (ptrdiff_t i = 0; i < again; i++) fetch(weight, stride, lines, index, n, &near);
    for (ptrdiff_t r = 0; r < n; r++) {
        const line *row = (const line *)(weight + index[r] * stride);
        for (ptrdiff_t l = 0; l < lines; l++) {
            if (ahead) fetch(weight, stride, lines, index, n, &far);
            if (again) fetch(weight, stride, lines, index, n, &near);
            sum += row[l];
        }
    }
    uint64_t total = 0;
    for (int k = 0; k < 8; k++) total += sum[k];
    return total;
}

/* Reads all `rows` rows, `streams` of them side by side as a product that adds so many does: the
 * first line of each, then the second, and so on. Where `ahead` is not 0, the line so many bytes
 * after the first of them that is not read yet is asked for, in the order of addresses. */
uint64_t read_streams(const uint8_t *weight, ptrdiff_t stride, ptrdiff_t lines, ptrdiff_t rows,
                      ptrdiff_t streams, ptrdiff_t ahead)
{
    line sum = {0};
    for (ptrdiff_t r = 0; r + streams <= rows; r += streams) {
        const uint8_t *first = weight + r * stride, *far = first + ahead;
        for (ptrdiff_t l = 0; l < lines; l++)
            for (ptrdiff_t s = 0; s < streams; s++, far += 64) {
                if (ahead) __builtin_prefetch(far, 0, 2);
                sum += *(const line *)(first + s * stride + 64 * l);
            }
    }
    uint64_t total = 0;
    for (int k = 0; k < 8; k++) total += sum[k];
    return total;
}
