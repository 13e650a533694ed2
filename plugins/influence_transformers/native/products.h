/* Products of rows with weights that lie in panels, and with an adapter's beside them. */
#pragma once

#include "vectors.h"

#define DEPTH 512 /* rows of a panel that are widened at once */
#define BLOCK 128 /* rows that a task of a product takes */
#define AHEAD 64  /* rows of a panel, a page of them, between the one that is read and the one that is asked for */

/* lanes x (vectors * VECTOR) numbers at `out` = or += lanes x depth at `in`, times depth rows at `right` */
static inline __attribute__((always_inline)) void tile(
    float *out, int64_t out_row, const float *in, int64_t in_row, const void *right, int64_t right_row, int64_t depth,
    const int lanes, const int vectors, const int half, const int add) {
    vector sums[LANES][2];
    for (int l = 0; l < lanes; l++)
        for (int c = 0; c < vectors; c++) sums[l][c] = add ? load(out + l * out_row + c * VECTOR) : (vector){0};
    for (int64_t d = 0; d < depth; d++) {
        vector row[2];
        if (half) __builtin_prefetch((const uint16_t *)right + (d + AHEAD) * right_row); /* also beyond the page */
        for (int c = 0; c < vectors; c++)
            row[c] = half ? widen((const uint16_t *)right + d * right_row + c * VECTOR)
                          : load((const float *)right + d * right_row + c * VECTOR);
        for (int l = 0; l < lanes; l++) {
            const vector x = spread(in[l * in_row + d]);
            for (int c = 0; c < vectors; c++) sums[l][c] += x * row[c];
        }
    }
    for (int l = 0; l < lanes; l++)
        for (int c = 0; c < vectors; c++) store(out + l * out_row + c * VECTOR, sums[l][c]);
}

static inline __attribute__((always_inline)) void tiles(
    float *out, int64_t out_row, const float *in, int64_t in_row, const void *right, int64_t right_row, int64_t depth,
    int64_t rows, const int vectors, const int half, const int add) {
#define TILE(lanes) tile(out, out_row, in, in_row, right, right_row, depth, lanes, vectors, half, add)
    for (; rows > 0; rows -= LANES, out += LANES * out_row, in += LANES * in_row) switch (rows) {
        case 1: TILE(1); break;
        case 2: TILE(2); break;
        case 3: TILE(3); break;
        case 4: TILE(4); break;
        case 5: TILE(5); break;
#if LANES > 6
        case 6: TILE(6); break;
        case 7: TILE(7); break;
#endif
        default: TILE(LANES);
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
    const char *right = (const char *)layer->panels + panel * layer->depth * PANEL * (layer->half ? 2 : 4);
    for (int64_t row = 0; row < rows; row++)
        for (int c = 0; c < PANEL; c++) {
            float *to = out + row * p->out_row + c;
            *to = (p->add ? *to : 0) + (layer->bias ? layer->bias[panel * PANEL + c] : 0);
        }
    if (!layer->half)
        tiles(out, p->out_row, in, p->in_row, right, PANEL, layer->depth, rows, 2, 0, 1);
    else if (rows <= 2 * LANES)
        tiles(out, p->out_row, in, p->in_row, right, PANEL, layer->depth, rows, 2, 1, 1);
    else
        for (int64_t at = 0; at < layer->depth; at += DEPTH) {
            float wide[DEPTH * PANEL] __attribute__((aligned(64)));
            const int64_t depth = layer->depth - at < DEPTH ? layer->depth - at : DEPTH;
            const uint16_t *from = (const uint16_t *)right + at * PANEL;
            for (int64_t i = 0; i < depth * PANEL; i += VECTOR) store(wide + i, widen(from + i));
            tiles(out, p->out_row, in + at, p->in_row, wide, PANEL, depth, rows, 2, 0, 1);
        }
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
