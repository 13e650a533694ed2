/* Vectors of float32 as wide as the processor's own, and what threads share. */
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define VECTOR 16
#define LANES 12
#elif defined(__AVX__)
#define VECTOR 8
#define LANES 6
#else
#define VECTOR 4
#define LANES 8
#endif
#define PANEL (2 * VECTOR) /* columns of a weight that lie together, row after row */
#define FEW 8 /* rows of which a small step takes less time than a team of threads takes to begin */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "of two bfloat16 in a word the first is the lower half");

typedef float vector __attribute__((vector_size(4 * VECTOR), aligned(4)));
typedef uint32_t words __attribute__((vector_size(4 * VECTOR), aligned(4)));
typedef int32_t integers __attribute__((vector_size(4 * VECTOR)));
typedef float four __attribute__((vector_size(16)));
typedef int32_t four_integers __attribute__((vector_size(16)));
typedef void (*work)(void *);
typedef void (*team)(work, void *, unsigned, unsigned);

static inline vector spread(float x) { return x - (vector){0}; }
static inline vector load(const float *from) { return *(const vector *)from; }
static inline void store(float *to, vector x) { *(vector *)to = x; }

/* Widen a panel's row that is kept as bfloat16: its first half are the low halves of words, its second the high ones. */
static inline void widen(const void *from, vector *row) {
    const words both = *(const words *)from;
    row[0] = (vector)(both << 16);
    row[1] = (vector)(both & 0xffff0000u);
}

static inline vector larger(vector a, vector b) {
    const integers first = a > b;
    return (vector)(((integers)a & first) | ((integers)b & ~first));
}

#ifdef __clang__
#define SHUFFLED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLED(a, b, ...) __builtin_shuffle(a, b, (four_integers){__VA_ARGS__})
#endif

/* Return the four numbers of x that follow the first 4 * n. */
static inline four fourth(vector x, int n) {
    four found;
    memcpy(&found, (const char *)&x + n * sizeof(four), sizeof(four));
    return found;
}

static inline float total(vector x) {
    four sum = fourth(x, 0);
    for (int n = 1; n < VECTOR / 4; n++) sum += fourth(x, n);
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

static inline float highest(vector x) {
    four high = fourth(x, 0);
    for (int n = 1; n < VECTOR / 4; n++) {
        const four other = fourth(x, n);
        const four_integers first = high > other;
        high = (four)(((four_integers)high & first) | ((four_integers)other & ~first));
    }
    const float a = high[0] > high[1] ? high[0] : high[1], b = high[2] > high[3] ? high[2] : high[3];
    return a > b ? a : b;
}

#define WHOLE 12582912.0f /* 1.5 * 2^23: a sum with it has no places after the point */

static inline vector rounded(vector x) { return (x + WHOLE) - WHOLE; }

/* Return 2 to the power of x + by, to within 2e-7 of it, where by is whole and x + by at most 126; no number where x is none
 * or infinite. Invariant: what it is for one `by` is what it is for another one, times a power of two; not so below 2^-126,
 * where there are fewer digits, and zeros from 2^-126.5 on. */
static inline vector power(vector x, float by) {
    const vector near = rounded(x), rest = x - near;
    vector sum = spread(1.54035304e-4f); /* the Taylor series of 2^rest, rest at most a half */
    sum = sum * rest + 1.33335581e-3f;
    sum = sum * rest + 9.61812911e-3f;
    sum = sum * rest + 5.55041087e-2f;
    sum = sum * rest + 2.40226507e-1f;
    sum = sum * rest + 6.93147181e-1f;
    sum = sum * rest + 1.0f;
    const vector whole = larger(spread(-127.0f), near + by); /* of which the exponent is made, 0 for -127 */
    return sum * (vector)((words)(whole + (WHOLE + 127.0f)) << 23);
}

static void share(work todo, void *data, int64_t *next, team all, unsigned threads) {
    *next = 0;
    if (all && threads > 1) all(todo, data, threads, 0);
    else todo(data);
}

static inline int64_t take(int64_t *next, int64_t count) { return __atomic_fetch_add(next, count, __ATOMIC_RELAXED); }
