/* Products of rows with weights that lie in panels, and with an adapter's beside them. */
#pragma once

#include "vectors.h"

#define BLOCK 128 /* rows that a task of a product takes */
#define AHEAD 64  /* rows of a panel between the one that is read and the one that is asked for */

/* lanes x (vectors * VECTOR) numbers at `out` = or += lanes x depth at `in`, times depth rows at `right`, of which each
 * lies `step` bytes after the one before it; `half`: they are kept as bfloat16, a whole panel's. */
static inline __attribute__((always_inline)) void tile(
    float *out, int64_t out_row, const float *in, int64_t in_row, const char *right, int64_t step, int64_t depth,
    const int lanes, const int vectors, const int half, const int add) {
    vector sums[LANES][2];
    for (int l = 0; l < lanes; l++)
        for (int c = 0; c < vectors; c++) sums[l][c] = add ? load(out + l * out_row + c * VECTOR) : (vector){0};
    /* Three lanes share an address that grows. Left to itself, a compiler keeps one a lane, more than there are registers. */
    const float *three[4];
    for (int g = 0; 3 * g < lanes; g++) three[g] = in + 3 * g * in_row;
    for (int64_t d = 0; d < depth; d++, right += step) {
        vector row[2];
        if (half) __builtin_prefetch(right + AHEAD * step); /* also beyond the page, where the processor's own end */
        if (half) widen(right, row);
        for (int c = 0; c < vectors && !half; c++) row[c] = load((const float *)right + c * VECTOR);
        for (int g = 0; 3 * g < lanes; g++) __asm__("" : "+r"(three[g])); /* nothing, and not seen through */
        for (int l = 0; l < lanes; l++) {
            const vector x = spread(three[l / 3][l % 3 * in_row]);
            for (int c = 0; c < vectors; c++) sums[l][c] += x * row[c];
        }
        for (int g = 0; 3 * g < lanes; g++) three[g]++;
    }
    for (int l = 0; l < lanes; l++)
        for (int c = 0; c < vectors; c++) store(out + l * out_row + c * VECTOR, sums[l][c]);
}

/* Rows in tiles that are as even as can be. */
static inline __attribute__((always_inline)) void tiles(
    float *out, int64_t out_row, const float *in, int64_t in_row, const void *right, int64_t step, int64_t depth,
    int64_t rows, const int vectors, const int half, const int add) {
#define TILE(lanes) \
    case lanes: \
        tile(out, out_row, in, in_row, right, step, depth, lanes, vectors, half, add); \
        break
    for (int64_t left = (rows + LANES - 1) / LANES; left > 0; left--) {
        const int64_t lanes = (rows + left - 1) / left;
        switch (lanes) {
            TILE(1);
            TILE(2);
            TILE(3);
            TILE(4);
            TILE(5);
            TILE(6);
#if LANES > 6
            TILE(7);
            TILE(8);
#endif
#if LANES > 8
            TILE(9);
            TILE(10);
            TILE(11);
            TILE(12);
#endif
        }
        rows -= lanes, out += lanes * out_row, in += lanes * in_row;
    }
#undef TILE
}

typedef struct linear {
    const void *panels; /* width / PANEL of them, each depth x PANEL */
    const float *bias;  /* or nothing */
    const struct linear *lower, *raise; /* an adapter's two weights, or nothing: their product is added */
    int64_t depth, width, half;
} linear;

typedef struct {
    const linear *layers; /* count of them, which read the same rows and write columns side by side */
    int64_t count;
    const float *in;
    float *out, *between; /* between: rows x the width of an adapter's first weight */
    int64_t rows, in_row, out_row, add, next;
} product;

static void product_task(const product *p, const linear *layer, int64_t panel, int64_t first, int64_t rows, float *out) {
    const float *in = p->in + first * p->in_row;
    const int64_t step = PANEL * (layer->half ? 2 : 4);
    const char *right = (const char *)layer->panels + panel * layer->depth * step;
    for (int64_t row = 0; row < rows && layer->bias; row++)
        for (int c = 0; c < PANEL; c++) {
            float *to = out + row * p->out_row + c;
            *to = (p->add ? *to : 0) + layer->bias[panel * PANEL + c];
        }
#define TAKE(half, add) tiles(out, p->out_row, in, p->in_row, right, step, layer->depth, rows, 2, half, add)
    const int add = p->add || layer->bias;
    if (layer->half && add) TAKE(1, 1);
    else if (layer->half) TAKE(1, 0);
    else if (add) TAKE(0, 1);
    else TAKE(0, 0);
#undef TAKE
}

static void product_work(void *data) {
    product *p = data;
    const int64_t blocks = (p->rows + BLOCK - 1) / BLOCK;
    int64_t panels = 0;
    for (int64_t i = 0; i < p->count; i++) panels += p->layers[i].width / PANEL;
    for (int64_t t; (t = take(&p->next, 1)) < panels * blocks;) {
        const int64_t first = t / panels * BLOCK, rows = p->rows - first < BLOCK ? p->rows - first : BLOCK;
        int64_t panel = t % panels;
        float *out = p->out + first * p->out_row + panel * PANEL;
        const linear *layer = p->layers;
        for (; panel >= layer->width / PANEL; layer++) panel -= layer->width / PANEL;
        product_task(p, layer, panel, first, rows, out);
    }
}

static void multiply_all(product *p, team all, unsigned threads) {
    share(product_work, p, &p->next, all, threads);
    float *out = p->out;
    for (const linear *layer = p->layers; layer < p->layers + p->count; out += layer++->width)
        if (layer->lower) {
            const int64_t rank = layer->lower->width;
            product lower = {layer->lower, 1, p->in, p->between, 0, p->rows, p->in_row, rank, 0, 0};
            product raise = {layer->raise, 1, p->between, out, 0, p->rows, rank, p->out_row, 1, 0};
            share(product_work, &lower, &lower.next, all, threads);
            share(product_work, &raise, &raise.next, all, threads);
        }
}
