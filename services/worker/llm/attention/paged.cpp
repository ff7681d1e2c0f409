// Paged attention for CPUs: causal, grouped heads, sliding window, soft cap, over a cache of blocks of 16 tokens.
//
// Layout of the cache of one layer, T being float or bfloat16:
//   keys   [block][kv head][head size][16]: the 16 tokens of a block side by side, one vector register for each element
//          of the head, so that scores are sums of products without a horizontal sum;
//   values [block][kv head][16][head size].
//
// Work is cut into (chunk, kv head, up to MAX_ROWS query rows); a row is one query head of one token, and the rows that
// share a kv head share every load of a key. Keys are taken in tiles at fixed positions with the running maximum and sum
// of online softmax (Milakov and Gimelshein 2018; FlashAttention, Dao et al. 2022). What a row computes depends on its
// own position and context only: never on the chunk it is in or on other sequences.
//
// The vectors are GCC's and Clang's own (`vector_size`), which any target lowers to what it has.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

constexpr int LANES = 16;        // tokens of a block, floats of a vector
constexpr int TILE_BLOCKS = 8;   // blocks of a tile of keys
constexpr int MAX_ROWS = 64;     // query rows of one piece of work; native.py refuses more heads than this for a kv head
#ifdef __AVX512F__
constexpr int GROUP = 6;         // rows in registers at a time: 6 x 4 sums and 4 values fit in 32 registers
#else
constexpr int GROUP = 2;
#endif
constexpr float NONE = -std::numeric_limits<float>::infinity();

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

struct BFloat16 { uint16_t bits; };

inline Floats load(const float* from) { Floats v; std::memcpy(&v, from, sizeof v); return v; }
inline Floats load(const BFloat16* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    Ints wide = __builtin_convertvector(halves, Ints) << 16;
    Floats v;
    std::memcpy(&v, &wide, sizeof v);
    return v;
}
inline void keep(float* to, Floats v) { std::memcpy(to, &v, sizeof v); }

inline float widen(float x) { return x; }
inline float widen(BFloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}
inline void narrow(float x, float& to) { to = x; }
inline void narrow(float x, BFloat16& to) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    to.bits = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// e^x for x <= 0, within two units in the last place; 0 where the result would be denormal, -infinity included.
// After Cephes' expf: x = n ln 2 + r, a polynomial for e^r, n into the exponent.
inline Floats exponential(Floats x) {
    const Ints vanishes = x < -87.0f;
    const Floats safe = vanishes ? Floats{} : x;
    const Ints n = __builtin_convertvector(safe * 1.44269504f - 0.5f, Ints);
    const Floats whole = __builtin_convertvector(n, Floats);
    const Floats r = (safe - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Ints scale = (n + 127) << 23;
    Floats power;
    std::memcpy(&power, &scale, sizeof power);
    return vanishes ? Floats{} : p * power;
}

inline Floats hyperbolic_tangent(Floats x) {
    const Ints negative = x < 0.0f;
    const Floats e = exponential((negative ? x : -x) * 2.0f);
    const Floats t = (1.0f - e) / (1.0f + e);
    return negative ? -t : t;
}

inline float largest(Floats v) {
    float best = v[0];
    for (int i = 1; i < LANES; ++i) best = v[i] > best ? v[i] : best;
    return best;
}
inline float total(Floats v) {
    float sum = 0;
    for (int i = 0; i < LANES; ++i) sum += v[i];
    return sum;
}

const Floats COUNTING = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// How a step looks to every layer of it. All offsets are in elements. Mirrored in native.py.
struct Step {
    const int32_t* tables;   // [row][column]: block
    const int32_t* rows;     // [chunk]: row of the tables
    const int32_t* firsts;   // [chunk]: place of its first token among the step's tokens
    const int32_t* starts;   // [chunk]: position of its first token
    const int32_t* counts;   // [chunk]: tokens
    const int64_t* slots;    // [token]: block * 16 + offset where its key and value go
    int64_t columns;         // of the tables
    int32_t chunks, tokens;
    int32_t threads;
};

struct Layer {
    void *keys, *values;               // the cache
    const void *query, *key, *value;   // [token][head][head size], by the strides
    void* output;                      // [token][head][head size], dense
    int64_t query_token, query_head, key_token, key_head, value_token, value_head;
    int32_t heads, kv_heads, size, window;   // window 0: none
    float scale, cap;                        // cap 0: none
};

template <typename T>
void store(const Step& step, const Layer& layer) {
    const int size = layer.size, kv_heads = layer.kv_heads;
    T* const keys = static_cast<T*>(layer.keys);
    T* const values = static_cast<T*>(layer.values);
#pragma omp parallel for num_threads(step.threads) if (step.tokens > 64)
    for (int token = 0; token < step.tokens; ++token) {
        const int64_t block = step.slots[token] / LANES, offset = step.slots[token] % LANES;
        for (int head = 0; head < kv_heads; ++head) {
            const int64_t base = (block * kv_heads + head) * size * LANES;
            const T* key = static_cast<const T*>(layer.key) + token * layer.key_token + head * layer.key_head;
            const T* value = static_cast<const T*>(layer.value) + token * layer.value_token + head * layer.value_head;
            for (int i = 0; i < size; ++i) keys[base + i * LANES + offset] = key[i];
            std::memcpy(values + base + offset * size, value, size * sizeof(T));
        }
    }
}

// A piece of work: some query rows of one chunk that share a kv head, and their running softmax.
struct Piece {
    int rows = 0;
    int position[MAX_ROWS];        // of the row's token
    float maximum[MAX_ROWS], sum[MAX_ROWS];
    float* query;                  // [row][size], scaled
    float* accumulated;            // [row][size]
    int window;
    float cap;
};

// Scores of ROWS rows with AHEAD blocks of keys. AHEAD keeps enough sums under way where there are few rows.
template <typename T, int ROWS, int AHEAD>
inline void products(const float* query, int size, const T* const* blocks, Floats (*scores)[TILE_BLOCKS], int first) {
    Floats sums[ROWS][AHEAD] = {};
    for (int i = 0; i < size; ++i)
        for (int b = 0; b < AHEAD; ++b) {
            const Floats keys = load(blocks[first + b] + i * LANES);
            for (int r = 0; r < ROWS; ++r) sums[r][b] += query[r * size + i] * keys;
        }
    for (int r = 0; r < ROWS; ++r)
        for (int b = 0; b < AHEAD; ++b) scores[r][first + b] = sums[r][b];
}

// Adds the weighted values of `tokens` tokens. Slots behind them are not read: 0 x NaN, left by another, would be NaN.
template <typename T, int ROWS, int WIDTH>
inline void weigh(const Floats (*weights)[TILE_BLOCKS], int tokens, const T* const* values, int size, int from,
                  float* accumulated) {
    Floats sums[ROWS][WIDTH];
    for (int r = 0; r < ROWS; ++r)
        for (int w = 0; w < WIDTH; ++w) sums[r][w] = load(accumulated + r * size + from + w * LANES);
    for (int b = 0; b * LANES < tokens; ++b) {
        const T* block = values[b] + from;
        for (int token = 0; token < std::min(LANES, tokens - b * LANES); ++token) {
            Floats row[WIDTH];
            for (int w = 0; w < WIDTH; ++w) row[w] = load(block + token * size + w * LANES);
            for (int r = 0; r < ROWS; ++r)
                for (int w = 0; w < WIDTH; ++w) sums[r][w] += weights[r][b][token] * row[w];
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int w = 0; w < WIDTH; ++w) keep(accumulated + r * size + from + w * LANES, sums[r][w]);
}

// Takes ROWS rows of a piece through one tile of keys: `tokens` of them, the first at position `begin`.
template <typename T, int ROWS>
void attend_tile(Piece& piece, int row, int begin, int tokens, const T* const* keys, const T* const* values, int size) {
    const int count = (tokens + LANES - 1) / LANES;
    constexpr int AHEAD = ROWS == 1 ? 4 : ROWS <= 3 ? 2 : 1;
    Floats scores[ROWS][TILE_BLOCKS];
    const int padded = (count + AHEAD - 1) / AHEAD * AHEAD;  // the pointers behind `count` repeat the last block
    for (int b = 0; b < padded; b += AHEAD)
        products<T, ROWS, AHEAD>(piece.query + row * size, size, keys, scores, b);
    for (int r = 0; r < ROWS; ++r) {
        const int position = piece.position[row + r];
        const int oldest = piece.window ? position - piece.window + 1 : 0;
        Floats best = Floats{} + NONE;
        for (int b = 0; b < count; ++b) {
            Floats score = scores[r][b];
            if (piece.cap > 0) score = hyperbolic_tangent(score / piece.cap) * piece.cap;
            const int at = begin + b * LANES;
            if (at + LANES - 1 > position || at < oldest) {
                const Floats place = COUNTING + float(at);
                score = ((place <= float(position)) & (place >= float(oldest))) ? score : Floats{} + NONE;
            }
            best = score > best ? score : best;
            scores[r][b] = score;
        }
        const float maximum = std::fmax(piece.maximum[row + r], largest(best));
        float* accumulated = piece.accumulated + (row + r) * size;
        if (maximum == NONE) {  // nothing that this row may see, so far
            for (int b = 0; b < count; ++b) scores[r][b] = Floats{};
            continue;
        }
        if (maximum > piece.maximum[row + r]) {
            const float shrink = exponential(Floats{} + (piece.maximum[row + r] - maximum))[0];
            for (int i = 0; i < size; ++i) accumulated[i] *= shrink;
            piece.sum[row + r] *= shrink;
            piece.maximum[row + r] = maximum;
        }
        Floats sums = {};
        for (int b = 0; b < count; ++b) sums += scores[r][b] = exponential(scores[r][b] - maximum);
        piece.sum[row + r] += total(sums);
    }
    float* accumulated = piece.accumulated + row * size;
    int from = 0;
    for (; from + 4 * LANES <= size; from += 4 * LANES) weigh<T, ROWS, 4>(scores, tokens, values, size, from, accumulated);
    for (; from < size; from += LANES) weigh<T, ROWS, 1>(scores, tokens, values, size, from, accumulated);
}

template <typename T, int ROWS>
void attend_rows(Piece& piece, int row, int begin, int tokens, const T* const* keys, const T* const* values, int size) {
    if (piece.rows - row >= ROWS) attend_tile<T, ROWS>(piece, row, begin, tokens, keys, values, size);
    else if constexpr (ROWS > 1) attend_rows<T, ROWS - 1>(piece, row, begin, tokens, keys, values, size);
}

template <typename T>
void attend_piece(Piece& piece, const int32_t* table, int kv_heads, int kv_head, const Layer& layer) {
    const int size = layer.size, last = piece.position[piece.rows - 1];
    const int oldest = piece.window ? std::max(0, piece.position[0] - piece.window + 1) : 0;
    const T* keys[TILE_BLOCKS];
    const T* values[TILE_BLOCKS];
    constexpr int TILE = TILE_BLOCKS * LANES;
    for (int begin = oldest / TILE * TILE; begin <= last; begin += TILE) {
        // Blocks that the window has left are not read: they may hold anything.
        const int first = std::max(0, (oldest - begin) / LANES);
        const int tokens = std::min(TILE, last - begin + 1) - first * LANES;
        const int count = (tokens + LANES - 1) / LANES;
        for (int b = 0; b < TILE_BLOCKS; ++b) {
            const int64_t block = table[begin / LANES + first + std::min(b, count - 1)];
            const int64_t at = (block * kv_heads + kv_head) * size * LANES;
            keys[b] = static_cast<const T*>(layer.keys) + at;
            values[b] = static_cast<const T*>(layer.values) + at;
        }
        for (int row = 0; row < piece.rows; row += GROUP)
            attend_rows<T, GROUP>(piece, row, begin + first * LANES, tokens, keys, values, size);
    }
}

template <typename T>
void attend(const Step& step, const Layer& layer) {
    const int group = layer.heads / layer.kv_heads, size = layer.size;
    const int tokens_at_once = std::max(1, MAX_ROWS / group);
    struct Work { int chunk, kv_head, token, tokens; };
    std::vector<Work> work;
    for (int chunk = 0; chunk < step.chunks; ++chunk)
        for (int token = 0; token < step.counts[chunk]; token += tokens_at_once)
            for (int head = 0; head < layer.kv_heads; ++head)
                work.push_back({chunk, head, token, std::min(tokens_at_once, step.counts[chunk] - token)});
#pragma omp parallel num_threads(step.threads)
    {
        std::vector<float> scratch(2 * MAX_ROWS * size);
#pragma omp for schedule(dynamic)
        for (size_t w = 0; w < work.size(); ++w) {
            const Work& job = work[w];
            Piece piece;
            piece.query = scratch.data();
            piece.accumulated = scratch.data() + MAX_ROWS * size;
            piece.window = layer.window;
            piece.cap = layer.cap;
            for (int t = 0; t < job.tokens; ++t) {
                const int64_t token = step.firsts[job.chunk] + job.token + t;
                for (int g = 0; g < group; ++g, ++piece.rows) {
                    const T* query = static_cast<const T*>(layer.query) + token * layer.query_token
                                     + (job.kv_head * group + g) * layer.query_head;
                    piece.position[piece.rows] = step.starts[job.chunk] + job.token + t;
                    piece.maximum[piece.rows] = NONE;
                    piece.sum[piece.rows] = 0;
                    for (int i = 0; i < size; ++i) {
                        piece.query[piece.rows * size + i] = widen(query[i]) * layer.scale;
                        piece.accumulated[piece.rows * size + i] = 0;
                    }
                }
            }
            attend_piece<T>(piece, step.tables + step.rows[job.chunk] * step.columns, layer.kv_heads, job.kv_head, layer);
            for (int row = 0; row < piece.rows; ++row) {
                const int64_t token = step.firsts[job.chunk] + job.token + row / group;
                T* output = static_cast<T*>(layer.output)
                            + (token * layer.heads + job.kv_head * group + row % group) * size;
                for (int i = 0; i < size; ++i) narrow(piece.accumulated[row * size + i] / piece.sum[row], output[i]);
            }
        }
    }
}

}  // namespace

extern "C" void headrace_attend_float32(const Step* step, const Layer* layer) {
    store<float>(*step, *layer);
    attend<float>(*step, *layer);
}

extern "C" void headrace_attend_bfloat16(const Step* step, const Layer* layer) {
    store<BFloat16>(*step, *layer);
    attend<BFloat16>(*step, *layer);
}
