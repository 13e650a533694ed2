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

#include "attention.h"

#define LOG2_E 1.44269504f

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
    const int64_t *wanted; /* the rows, in their order, of which more than keys and values is wanted in the end */
    int64_t wanted_count;
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
            /* Beyond these limits it is 0 and x itself. What is no number stays none: `larger` returns its second then. */
            const vector x = larger(spread(-87.3f), load(gate + i)), within = -larger(spread(-88.0f), -x);
            store(gate + i, x / (power(within * -LOG2_E, 0) + 1.0f) * load(gate + p->inner + i));
        }
    }
}

/* Move the wanted rows up, of what attention gave and of what it is added to; return how many there are. */
static int64_t leave_the_rest(decoder *p, int64_t queries) {
    for (int64_t i = 0; i < p->wanted_count; i++) {
        memmove(p->attention->summed + i * queries, p->attention->summed + p->wanted[i] * queries, queries * sizeof(float));
        memmove(p->x + i * p->hidden, p->x + p->wanted[i] * p->hidden, p->hidden * sizeof(float));
    }
    return p->attention->rows = p->wanted_count;
}

int64_t panel_width(void) { return PANEL; }

/* Return how large what calls are made with is, all in one sum, so that library.py can tell that it means the same. */
int64_t sizes(void) {
    return sizeof(linear) + 1000 * (sizeof(product) + 1000 * (sizeof(attention) + 1000 * (sizeof(layer) + 1000 * sizeof(decoder))));
}

void multiply(product *p, team all, unsigned threads) { multiply_all(p, all, threads); }

void attend(attention *p, team all, unsigned threads) { attend_all(p, all, threads); }

void decode(decoder *p, team all, unsigned threads) {
    attention *a = p->attention;
    const int64_t queries = a->heads * a->repeat * WIDTH, all_heads = queries + 2 * a->heads * WIDTH;
    int64_t rows = a->rows;
    const unsigned some = rows > FEW ? threads : 1;
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
        if (n == p->count - 1) rows = leave_the_rest(p, queries);
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
