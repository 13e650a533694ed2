/* Attention of a pass's rows to the pieces of segments that passes.py names. */
#pragma once

#include "products.h"

#define KEYS 64      /* positions that are taken at once */
#define UNSEEN -2e6f /* the score of what a row does not see; no other comes near it */

typedef struct {
    const float *memory; /* of a segment: layers x 2 x heads x capacity x WIDTH */
    int64_t capacity, start, stop;
} piece;

typedef struct {
    int64_t row, rows;          /* rows of one sequence that follow each other */
    int64_t first, last;        /* their pieces, in the order of positions */
    int64_t limit, step;        /* of the last piece the first row sees what is below `limit`, each other `step` more */
    int64_t mask, words;        /* if words: what of it each row sees besides, so many numbers of WORD bits a row */
} item;

_Static_assert(WIDTH % VECTOR == 0 && KEYS % PANEL == 0, "widths are multiples of a vector");
_Static_assert(sizeof(item) == 8 * 8 && sizeof(piece) == 4 * 8, "tables are rows of so many 64-bit numbers");

typedef struct {
    const float *q, *k, *v;
    float *summed;
    const int64_t *places, *items, *pieces, *masks; /* places: a segment's memory, its capacity and a position, a row */
    int64_t rows, count, heads, repeat, layer;
    int64_t q_row, q_head, k_row, k_head, v_row, v_head, next;
    float scale; /* of scores to the base 2 */
} attention;

static void write_rows(void *data) {
    attention *p = data;
    for (int64_t row; (row = take(&p->next, 1)) < p->rows;) {
        const int64_t capacity = p->places[3 * row + 1], position = p->places[3 * row + 2];
        float *memory = (float *)p->places[3 * row];
        for (int64_t head = 0; head < p->heads; head++) {
            float *key = memory + ((p->layer * 2 * p->heads + head) * capacity + position) * WIDTH;
            memcpy(key, p->k + row * p->k_row + head * p->k_head, WIDTH * sizeof(float));
            memcpy(key + p->heads * capacity * WIDTH, p->v + row * p->v_row + head * p->v_head, WIDTH * sizeof(float));
        }
    }
}

/* Write 4 x 4 numbers, rows WIDTH apart, as columns KEYS apart. */
static inline void turn_four(float *to, const float *from) {
    four rows[4];
    for (int i = 0; i < 4; i++) memcpy(rows + i, from + i * WIDTH, sizeof(four));
    const four a = SHUFFLED(rows[0], rows[1], 0, 4, 1, 5);
    const four b = SHUFFLED(rows[0], rows[1], 2, 6, 3, 7);
    const four c = SHUFFLED(rows[2], rows[3], 0, 4, 1, 5);
    const four d = SHUFFLED(rows[2], rows[3], 2, 6, 3, 7);
    const four columns[4] = {
        SHUFFLED(a, c, 0, 1, 4, 5), SHUFFLED(a, c, 2, 3, 6, 7),
        SHUFFLED(b, d, 0, 1, 4, 5), SHUFFLED(b, d, 2, 3, 6, 7)};
    for (int i = 0; i < 4; i++) memcpy(to + i * KEYS, columns + i, sizeof(four));
}

/* Write keys as columns, from column `at` on; their values and the keys that follow are asked for meanwhile. */
static inline void turn(float *turned, const float *keys, const float *values, int at, int count) {
    const int fours = count / 4 * 4;
    for (int key = 0; key < fours; key += 4) {
        for (int d = 0; d < 4 * WIDTH; d += 16) {
            __builtin_prefetch(values + key * WIDTH + d, 0, 2);
            __builtin_prefetch(keys + (key + KEYS) * WIDTH + d, 0, 2);
        }
        for (int d = 0; d < WIDTH; d += 4) turn_four(turned + d * KEYS + at + key, keys + key * WIDTH + d);
    }
    for (int key = fours; key < count; key++)
        for (int d = 0; d < WIDTH; d++) turned[d * KEYS + at + key] = keys[key * WIDTH + d];
}

/* Return whether any of KEYS scores is no number. */
static inline int any_is_none(const float *scores) {
    vector sum = load(scores);
    for (int key = VECTOR; key < KEYS; key += VECTOR) sum += load(scores + key);
    const float all = total(sum);
    return all != all;
}

/* Turn a lane's scores of KEYS positions into weights relative to 2^most; return what earlier sums are multiplied with. */
static inline float weigh(float *scores, float *most, vector *whole) {
    vector high = load(scores);
    for (int key = VECTOR; key < KEYS; key += VECTOR) high = larger(high, load(scores + key));
    const float own = highest(high), higher = own > *most ? highest(rounded(spread(own))) : *most;
    if (own <= UNSEEN && !any_is_none(scores)) {
        memset(scores, 0, KEYS * sizeof(float));
        return 1;
    }
    const float fade = higher > *most ? power((vector){0}, *most - higher)[0] : 1;
    *whole *= fade;
    for (int key = 0; key < KEYS; key += VECTOR) {
        const vector weight = power(load(scores + key), -higher);
        store(scores + key, weight);
        *whole += weight;
    }
    *most = higher;
    return fade;
}

/* Hide from a lane what it does not see of `count` positions from `at` on, whose scores are the columns from `column` on. */
static inline void hide(
    float *scores, const attention *p, const item *it, int64_t row, int64_t start, int64_t at, int column, int count, int ends) {
    const int64_t limit = ends ? it->limit + row * it->step - at : count;
    const int seen = limit < 0 ? 0 : limit < count ? (int)limit : count;
    for (int key = 0; key < column; key++) scores[key] = UNSEEN;
    for (int key = column + seen; key < KEYS; key++) scores[key] = UNSEEN;
    const int64_t *bits = p->masks + it->mask + row * it->words;
    for (int key = 0; ends && it->words && key < seen; key++) {
        const int64_t place = at + key - start;
        if (!((bits[place / WORD] >> (place % WORD)) & 1)) scores[column + key] = UNSEEN;
    }
}

static void read_item(const attention *p, const item *it, int64_t head) {
    float queries[MANY * WIDTH] __attribute__((aligned(64)));
    float turned[WIDTH * KEYS] __attribute__((aligned(64))) = {0};
    float scores[MANY * KEYS] __attribute__((aligned(64)));
    float sums[MANY * WIDTH] __attribute__((aligned(64)));
    float most[MANY];
    vector whole[MANY];
    const int lanes = (int)(it->rows * p->repeat);
    for (int l = 0; l < lanes; l++) {
        const float *from = p->q + (it->row + l / p->repeat) * p->q_row + (head * p->repeat + l % p->repeat) * p->q_head;
        for (int d = 0; d < WIDTH; d++) queries[l * WIDTH + d] = from[d] * p->scale;
        most[l] = UNSEEN;
        whole[l] = (vector){0};
    }
    memset(sums, 0, lanes * WIDTH * sizeof(float));
    int64_t position = 0; /* of the sequence: blocks begin at multiples of KEYS of it, wherever pieces do */
    for (int64_t n = it->first; n < it->last; n++) {
        const piece *from = (const piece *)p->pieces + n;
        const float *keys = from->memory + (p->layer * 2 * p->heads + head) * from->capacity * WIDTH;
        const float *values = keys + p->heads * from->capacity * WIDTH;
        const int ends = n == it->last - 1;
        const int64_t seen_by_last = it->limit + it->step * (it->rows - 1);
        const int64_t stop = ends && seen_by_last < from->stop ? seen_by_last : from->stop;
        for (int64_t at = from->start; at < stop;) {
            const int column = (int)(position % KEYS), room = KEYS - column;
            const int count = stop - at < room ? (int)(stop - at) : room;
            turn(turned, keys + at * WIDTH, values + at * WIDTH, column, count);
            for (int c = column / PANEL * PANEL; c < column + count; c += PANEL)
                tiles(scores + c, KEYS, queries, WIDTH, turned + c, KEYS * 4, WIDTH, lanes, 2, 0, 0);
            for (int l = 0; l < lanes; l++) {
                hide(scores + l * KEYS, p, it, l / p->repeat, from->start, at, column, count, ends);
                const float fade = weigh(scores + l * KEYS, most + l, whole + l);
                for (int d = 0; d < WIDTH && fade != 1; d += VECTOR)
                    store(sums + l * WIDTH + d, load(sums + l * WIDTH + d) * fade);
            }
            const float *seen = values + at * WIDTH;
            int d = 0;
            for (; d + PANEL <= WIDTH; d += PANEL)
                tiles(sums + d, WIDTH, scores + column, KEYS, seen + d, WIDTH * 4, count, lanes, 2, 0, 1);
            if (d < WIDTH) tiles(sums + d, WIDTH, scores + column, KEYS, seen + d, WIDTH * 4, count, lanes, 1, 0, 1);
            at += count;
            position += count;
        }
    }
    for (int l = 0; l < lanes; l++) {
        float *into = p->summed + (((it->row + l / p->repeat) * p->heads + head) * p->repeat + l % p->repeat) * WIDTH;
        for (int d = 0; d < WIDTH; d++) into[d] = sums[l * WIDTH + d] / total(whole[l]);
    }
}

static void read_items(void *data) {
    attention *p = data;
    for (int64_t t; (t = take(&p->next, 1)) < p->count * p->heads;)
        read_item(p, (const item *)p->items + t % p->count, t / p->count);
}

static void attend_all(attention *p, team all, unsigned threads) {
    share(write_rows, p, &p->next, all, p->rows > 2 * FEW ? threads : 1);
    share(read_items, p, &p->next, all, threads);
}
