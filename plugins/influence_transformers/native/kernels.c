/* What a processor computes of a pass: products with weights, attention from tables, and whole layers of decoders.
 *
 * Compiled when first needed (compiling.py), for one width of a head (WIDTH, a multiple of VECTOR) and for the sizes that
 * tables are made with (MANY, WORD; passes.py). All numbers are float32; weights may be kept as bfloat16 where that loses
 * nothing, which halves what has to be read. Threads are those of the caller's OpenMP, reached through `team`, so that no
 * others compete with them.
 *
 * Invariant: what a row comes to has the same bits whatever rows are computed with it, however many threads there are and
 * wherever what it reads was cut: each sum is made of the same parts in the same order. Weights of attention are relative to
 * a power of two, by which a sum can be multiplied without rounding, so that it does not matter when it is.
 *
 * Sources: products by tiles that stay in registers: Goto and van de Geijn, Anatomy of High-Performance Matrix
 * Multiplication, 2008; softmax in one pass over the keys: Dao et al., FlashAttention, 2022 (arXiv 2205.14135).
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define VECTOR 16
#define LANES 8
#elif defined(__AVX__)
#define VECTOR 8
#define LANES 6
#else
#define VECTOR 4
#define LANES 8
#endif
#define PANEL (2 * VECTOR) /* columns of a weight that lie together, row after row */
#define KEYS 64            /* positions that attention takes at once */
#define DEPTH 2048         /* rows of a panel that are widened at once */
#define BLOCK 128          /* rows that a task of a product takes */
#define UNSEEN -2e6f       /* the score of what a row does not see; no other comes near it */
#define LOG2_E 1.44269504f

typedef float vector __attribute__((vector_size(4 * VECTOR), aligned(4)));
typedef uint32_t words __attribute__((vector_size(4 * VECTOR)));
typedef int32_t integers __attribute__((vector_size(4 * VECTOR)));
typedef uint16_t halves __attribute__((vector_size(2 * VECTOR), aligned(2)));
typedef float eight __attribute__((vector_size(32)));
typedef float four __attribute__((vector_size(16)));
typedef void (*work)(void *);
typedef void (*team)(work, void *, unsigned, unsigned);

static inline vector spread(float x) { return x - (vector){0}; }
static inline vector load(const float *from) { return *(const vector *)from; }
static inline void store(float *to, vector x) { *(vector *)to = x; }

static inline vector widen(const uint16_t *from) {
    return (vector)(__builtin_convertvector(*(const halves *)from, words) << 16);
}

static inline vector larger(vector a, vector b) {
    const integers first = a > b;
    return (vector)(((integers)a & first) | ((integers)b & ~first));
}

#define LOW(x, n) __builtin_shufflevector(x, x, FIRST_##n)
#define HIGH(x, n) __builtin_shufflevector(x, x, SECOND_##n)
#define FIRST_4 0, 1, 2, 3
#define SECOND_4 4, 5, 6, 7
#define FIRST_8 0, 1, 2, 3, 4, 5, 6, 7
#define SECOND_8 8, 9, 10, 11, 12, 13, 14, 15

static inline float total(vector x) {
#if VECTOR == 16
    const eight half = LOW(x, 8) + HIGH(x, 8);
    const four rest = LOW(half, 4) + HIGH(half, 4);
#elif VECTOR == 8
    const four rest = LOW(x, 4) + HIGH(x, 4);
#else
    const four rest = x;
#endif
    return (rest[0] + rest[2]) + (rest[1] + rest[3]);
}

static inline four larger_of_four(four a, four b) {
    const int32_t __attribute__((vector_size(16))) first = a > b;
    return (four)(((__typeof__(first))a & first) | ((__typeof__(first))b & ~first));
}

static inline float highest(vector x) {
#if VECTOR == 16
    const four low = larger_of_four(LOW(LOW(x, 8), 4), HIGH(LOW(x, 8), 4));
    const four rest = larger_of_four(low, larger_of_four(LOW(HIGH(x, 8), 4), HIGH(HIGH(x, 8), 4)));
#elif VECTOR == 8
    const four rest = larger_of_four(LOW(x, 4), HIGH(x, 4));
#else
    const four rest = x;
#endif
    const float a = rest[0] > rest[1] ? rest[0] : rest[1], b = rest[2] > rest[3] ? rest[2] : rest[3];
    return a > b ? a : b;
}

#define WHOLE 12582912.0f /* 1.5 * 2^23: a sum with it has no places after the point */

static inline vector rounded(vector x) { return (x + WHOLE) - WHOLE; }

/* Return 2 to the power of x + by, to within 2e-7 of it, where by is whole; 0 below 2^-126, and no more than 2^126.
 * Invariant: what it is for one `by` is what it is for another one, times a power of two. */
static inline vector power(vector x, float by) {
    const vector near = rounded(x), rest = x - near;
    vector sum = spread(1.54035304e-4f); /* the Taylor series of 2^rest, rest at most a half */
    sum = sum * rest + 1.33335581e-3f;
    sum = sum * rest + 9.61812911e-3f;
    sum = sum * rest + 5.55041087e-2f;
    sum = sum * rest + 2.40226507e-1f;
    sum = sum * rest + 6.93147181e-1f;
    sum = sum * rest + 1.0f;
    vector whole = near + by;
    const integers nothing = whole < -125.0f;
    whole = -larger(-larger(whole, spread(-125.0f)), spread(-126.0f));
    const integers exponent = ((integers)(whole + WHOLE) - (integers)spread(WHOLE)) << 23;
    return (vector)(((integers)sum + exponent) & ~nothing);
}

static void share(work todo, void *data, int64_t *next, team all, unsigned threads) {
    *next = 0;
    if (all && threads > 1) all(todo, data, threads, 0);
    else todo(data);
}

static inline int64_t take(int64_t *next, int64_t count) { return __atomic_fetch_add(next, count, __ATOMIC_RELAXED); }

/* ---- products ---- */

/* lanes x (vectors * VECTOR) numbers at `out` = or += lanes x depth at `in`, times depth rows at `right` */
static inline __attribute__((always_inline)) void tile(
    float *out, int64_t out_row, const float *in, int64_t in_row, const void *right, int64_t right_row, int64_t depth,
    const int lanes, const int vectors, const int half, const int add) {
    vector sums[LANES][2];
    for (int l = 0; l < lanes; l++)
        for (int c = 0; c < vectors; c++) sums[l][c] = add ? load(out + l * out_row + c * VECTOR) : (vector){0};
    for (int64_t d = 0; d < depth; d++) {
        vector row[2];
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

/* ---- attention ---- */

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
    const four a = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
    const four b = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
    const four c = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
    const four d = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
    const four columns[4] = {
        __builtin_shufflevector(a, c, 0, 1, 4, 5), __builtin_shufflevector(a, c, 2, 3, 6, 7),
        __builtin_shufflevector(b, d, 0, 1, 4, 5), __builtin_shufflevector(b, d, 2, 3, 6, 7)};
    for (int i = 0; i < 4; i++) memcpy(to + i * KEYS, columns + i, sizeof(four));
}

/* Write keys as columns, from column `at` on. */
static inline void turn(float *turned, const float *keys, int at, int count) {
    const int fours = count / 4 * 4;
    for (int key = 0; key < fours; key += 4)
        for (int d = 0; d < WIDTH; d += 4) turn_four(turned + d * KEYS + at + key, keys + key * WIDTH + d);
    for (int key = fours; key < count; key++)
        for (int d = 0; d < WIDTH; d++) turned[d * KEYS + at + key] = keys[key * WIDTH + d];
}

/* Turn a lane's scores of KEYS positions into weights relative to 2^most; return what earlier sums are multiplied with. */
static inline float weigh(float *scores, float *most, vector *whole) {
    vector high = load(scores);
    for (int key = VECTOR; key < KEYS; key += VECTOR) high = larger(high, load(scores + key));
    const float own = highest(high), higher = own > *most ? highest(rounded(spread(own))) : *most;
    if (own <= UNSEEN) {
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
            turn(turned, keys + at * WIDTH, column, count);
            for (int c = column / PANEL * PANEL; c < column + count; c += PANEL)
                tiles(scores + c, KEYS, queries, WIDTH, turned + c, KEYS, WIDTH, lanes, 2, 0, 0);
            for (int l = 0; l < lanes; l++) {
                hide(scores + l * KEYS, p, it, l / p->repeat, from->start, at, column, count, ends);
                const float fade = weigh(scores + l * KEYS, most + l, whole + l);
                for (int d = 0; d < WIDTH && fade != 1; d += VECTOR)
                    store(sums + l * WIDTH + d, load(sums + l * WIDTH + d) * fade);
            }
            const float *seen = values + at * WIDTH;
            int d = 0;
            for (; d + PANEL <= WIDTH; d += PANEL)
                tiles(sums + d, WIDTH, scores + column, KEYS, seen + d, WIDTH, count, lanes, 2, 0, 1);
            if (d < WIDTH) tiles(sums + d, WIDTH, scores + column, KEYS, seen + d, WIDTH, count, lanes, 1, 0, 1);
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
    share(write_rows, p, &p->next, all, p->rows > 2 * LANES ? threads : 1); /* few are copied before a team has begun */
    share(read_items, p, &p->next, all, threads);
}

/* ---- whole layers ---- */

typedef struct {
    const float *before, *after; /* weights of the norms before attention and before what follows it */
    const linear *qkv, *output, *gate_up, *down; /* three, one, two, one */
} layer;

typedef struct {
    const layer *layers;
    int64_t count, hidden, inner;
    float eps, scale;
    float *x, *h, *t, *between;   /* rows x hidden, twice, rows x the widest of what is in between, and for adapters */
    const float *cosines, *sines; /* rows x WIDTH */
    attention *attention;
    const float *last;   /* weight of the norm that follows the layers */
    const float *weight; /* of the norm in hand */
    int64_t next;
} decoder;

static void norm_rows(void *data) {
    decoder *p = data;
    for (int64_t row; (row = take(&p->next, 1)) < p->attention->rows;) {
        const float *x = p->x + row * p->hidden;
        float *h = p->h + row * p->hidden;
        vector sum = {0};
        for (int64_t i = 0; i < p->hidden; i += VECTOR) sum += load(x + i) * load(x + i);
        const float by = 1 / sqrtf(total(sum) / (float)p->hidden + p->eps);
        for (int64_t i = 0; i < p->hidden; i += VECTOR) store(h + i, load(x + i) * by * load(p->weight + i));
    }
}

/* Rotate each query's and key's first half against its second one (Su et al., RoFormer, 2021, arXiv 2104.09864). */
static void rotate_rows(void *data) {
    decoder *p = data;
    const attention *a = p->attention;
    for (int64_t row; (row = take(&p->next, 1)) < a->rows;) {
        const float *cosine = p->cosines + row * WIDTH, *sine = p->sines + row * WIDTH;
        for (int64_t head = 0; head < a->heads * (a->repeat + 1); head++) {
            float *low = p->t + row * a->q_row + head * WIDTH, *high = low + WIDTH / 2;
            for (int d = 0; d < WIDTH / 2; d++) {
                const float x = low[d], y = high[d];
                low[d] = x * cosine[d] - y * sine[d];
                high[d] = y * cosine[d + WIDTH / 2] + x * sine[d + WIDTH / 2];
            }
        }
    }
}

static void gate_rows(void *data) {
    decoder *p = data;
    for (int64_t row; (row = take(&p->next, 1)) < p->attention->rows;) {
        float *gate = p->t + row * 2 * p->inner;
        for (int64_t i = 0; i < p->inner; i += VECTOR) {
            const vector x = load(gate + i);
            store(gate + i, x / (power(x * -LOG2_E, 0) + 1.0f) * load(gate + p->inner + i));
        }
    }
}

/* ---- what is called from outside ---- */

int64_t panel_width(void) { return PANEL; }

void multiply(product *p, team all, unsigned threads) { multiply_all(p, all, threads); }

void attend(attention *p, team all, unsigned threads) { attend_all(p, all, threads); }

void decode(decoder *p, team all, unsigned threads) {
    attention *a = p->attention;
    const int64_t rows = a->rows, queries = a->heads * a->repeat * WIDTH, all_heads = queries + 2 * a->heads * WIDTH;
    const unsigned some = rows > LANES ? threads : 1;
    a->q = p->t, a->k = p->t + queries, a->v = a->k + a->heads * WIDTH;
    a->q_row = a->k_row = a->v_row = all_heads;
    a->q_head = a->k_head = a->v_head = WIDTH;
    a->scale = p->scale;
    for (int64_t n = 0; n < p->count; n++) {
        const layer *l = p->layers + n;
        a->layer = n;
        p->weight = l->before;
        share(norm_rows, p, &p->next, all, some);
        multiply_all(&(product){l->qkv, 3, p->h, p->t, p->between, rows, p->hidden, all_heads, 0, 0}, all, threads);
        share(rotate_rows, p, &p->next, all, some);
        attend_all(a, all, threads);
        multiply_all(&(product){l->output, 1, a->summed, p->x, p->between, rows, queries, p->hidden, 1, 0}, all, threads);
        p->weight = l->after;
        share(norm_rows, p, &p->next, all, some);
        multiply_all(&(product){l->gate_up, 2, p->h, p->t, p->between, rows, p->hidden, 2 * p->inner, 0, 0}, all, threads);
        share(gate_rows, p, &p->next, all, some);
        multiply_all(&(product){l->down, 1, p->t, p->x, p->between, rows, 2 * p->inner, p->hidden, 1, 0}, all, threads);
    }
    p->weight = p->last;
    share(norm_rows, p, &p->next, all, some);
}
