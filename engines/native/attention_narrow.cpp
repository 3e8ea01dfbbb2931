// Attention for heads with few features. The lanes of a vector are different heads (of several
// mappings where one has few), so scores, softmax and mixtures need neither sums across lanes nor
// padding. Rows of q, k, v and the output hold feature e of head h at e * heads + h; the weights
// around the block are stored in that order, so that the heads of a feature come as vectors.
//
// HEAD_DIM is the features of a head, or 0 for any number of them below WIDE_HEAD_DIM, which is
// slower.
#include "attention.h"

namespace native {

namespace {

typedef std::uint16_t eight_draws __attribute__((vector_size(16)));

inline eight_draws interleave_low(eight_draws a, eight_draws b) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
    return __builtin_shuffle(a, b, (eight_draws){0, 8, 1, 9, 2, 10, 3, 11});
#endif
}

inline eight_draws interleave_high(eight_draws a, eight_draws b) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
    return __builtin_shuffle(a, b, (eight_draws){4, 12, 5, 13, 6, 14, 7, 15});
#endif
}

// to[j * WL + i] = from[i * ld + j] for rows i < `rows` <= WL and columns j.
inline void transpose_draws(int rows, int columns, const std::uint16_t* from, int ld,
                            std::uint16_t* to) {
    const int block_rows = columns < 8 ? 0 : rows / 8 * 8;
    for (int i = 0; i < block_rows; i += 8) {
        // The last block of columns may repeat some of the one before.
        for (int next = 0; next < columns; next += 8) {
            const int j = std::min(next, columns - 8);
            eight_draws x[8], y[8];
            for (int r = 0; r < 8; ++r) std::memcpy(&x[r], from + (i + r) * ld + j, 16);
            // The index of an element, (row, column) in 3 + 3 bits, is turned by one bit a round.
            for (int round = 0; round < 3; ++round) {
                for (int r = 0; r < 4; ++r) {
                    y[2 * r] = interleave_low(x[r], x[r + 4]);
                    y[2 * r + 1] = interleave_high(x[r], x[r + 4]);
                }
                for (int r = 0; r < 8; ++r) x[r] = y[r];
            }
            for (int r = 0; r < 8; ++r) std::memcpy(to + (j + r) * WL + i, &x[r], 16);
        }
    }
    for (int i = block_rows; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) to[j * WL + i] = from[i * ld + j];
    }
}

template <int HEAD_DIM>
class NarrowAttention final : public Attention {
  public:
    explicit NarrowAttention(const AttentionShape& shape)
        : s_(shape),
          group_(std::max(1, WL / shape.heads)),
          blocks_(round_up(group_ * shape.heads, WL) / WL),
          pairs_(shape.queries() * shape.seq_len),
          part_(std::ptrdiff_t(shape.seq_len) * shape.head_dim * WL),
          block_saved_(std::ptrdiff_t(shape.queries()) * (shape.seq_len + 1) * WL),
          parts_(PARTS * part_ * blocks_),
          unsaved_(block_saved_),
          d_scores_(std::ptrdiff_t(pairs_) * WL),
          draws_(std::ptrdiff_t(pairs_) * WL) {}

    std::ptrdiff_t saved_size(int mappings) const override {
        return (mappings + group_ - 1) / group_ * blocks_ * block_saved_;
    }

    void forward(int mappings, const Operands3& from, const Dropping& dropping, float* saved,
                 float* out, std::ptrdiff_t ld_out) override {
        const int of_head = s_.seq_len * s_.seq_len;
        const std::uint16_t* draws = dropping.draws;
        if (draws) draws += s_.first * s_.seq_len;
        for (int first = 0; first < mappings; first += group_) {
            const int count = std::min(group_, mappings - first), heads = count * s_.heads;
            gather(from.q, first, count, s_.temperature(), Q);
            gather(from.k, first, count, 1, K);
            gather(from.v, first, count, 1, V);
            for (int block = 0; block < blocks_; ++block) {
                float* const weights = saved ? saved : unsaved_.get();
                const int lanes = std::min(WL, heads - block * WL);
                if (draws) {
                    transpose_draws(lanes, pairs_, draws, of_head, draws_.get());
                    draws += lanes * of_head;
                    forward_lanes<true>(block, dropping, weights);
                } else {
                    forward_lanes<false>(block, dropping, weights);
                }
                if (saved) saved += block_saved_;
            }
            scatter(OUT, first, count, 1, {out, ld_out});
        }
    }

    void backward(int mappings, const Operands3& from, float mask_scale,
                  const AttentionOutput& output, const Operands3& gradients) override {
        const float* saved = output.saved;
        for (int first = 0; first < mappings; first += group_) {
            const int count = std::min(group_, mappings - first);
            gather(from.q, first, count, s_.temperature(), Q);
            gather(from.k, first, count, 1, K);
            gather(from.v, first, count, 1, V);
            gather({const_cast<float*>(output.out), output.ld}, first, count, 1, OUT);
            gather({const_cast<float*>(output.d_out), output.ld}, first, count, 1, D_OUT);
            for (int block = 0; block < blocks_; ++block) {
                backward_lanes(block, mask_scale, saved);
                saved += block_saved_;
            }
            scatter(D_Q, first, count, s_.temperature(), gradients.q);
            scatter(D_K, first, count, 1, gradients.k);
            scatter(D_V, first, count, 1, gradients.v);
        }
    }

  private:
    static constexpr int MAX_HEAD_DIM = HEAD_DIM ? HEAD_DIM : WIDE_HEAD_DIM - 1;

    // Matrices of a group of mappings, each (blocks of lanes, T, head_dim, WL), with fewer rows than
    // T where a position has no query.
    enum Part { Q, K, V, OUT, D_OUT, D_Q, D_K, D_V, PARTS };

    int rows_of(Part i) const {
        return i == K || i == V || i == D_K || i == D_V ? s_.seq_len : s_.queries();
    }

    int head_dim() const { return HEAD_DIM ? HEAD_DIM : s_.head_dim; }

    float* part(Part i, int block) const { return parts_.get() + (i * blocks_ + block) * part_; }

    // Calls copy(run in a row of x, the same heads in lanes) with pointers to runs of one type, as
    // long as the heads allow, for all of x's elements.
    template <class Copy>
    void each_run(const Operand& x, Part to, int first, int count, const Copy& copy) const {
        const int heads = s_.heads, dim = head_dim(), rows = rows_of(to);
        const std::ptrdiff_t first_row = std::ptrdiff_t(first) * rows;
        for (int r = 0, mapping = 0, position = 0; mapping < count; ++r) {
            float* const row = x.row(first_row + r);
            float* const lanes = part(to, 0) + position * dim * WL + mapping * heads;
            if (++position == rows) position = 0, ++mapping;
            if (heads % VL == 0) {
                for (int h = 0; h < heads; h += VL) {
                    float* const block = lanes + h / WL * part_ + h % WL;
                    for (int e = 0; e < dim; ++e) {
                        copy(as<loose_vec>(row + e * heads + h), as<loose_vec>(block + e * WL));
                    }
                }
            } else if (heads == 4) {
                for (int e = 0; e < dim; ++e) {
                    copy(as<loose_quad>(row + e * 4), as<loose_quad>(lanes + e * WL));
                }
            } else {
                for (int h = 0; h < heads; ++h) {
                    float* const lane = lanes + h / WL * (part_ - WL) + h;
                    for (int e = 0; e < dim; ++e) copy(row + e * heads + h, lane + e * WL);
                }
            }
        }
    }

    template <class Run>
    static Run* as(float* p) {
        return reinterpret_cast<Run*>(p);
    }

    void gather(const Operand& x, int first, int count, float factor, Part to) const {
        each_run(x, to, first, count, [=](auto* run, auto* lanes) { *lanes = *run * factor; });
    }

    // Rows without an index are overwritten, others added to.
    void scatter(Part from, int first, int count, float factor, const Operand& x) const {
        if (x.index) {
            each_run(x, from, first, count,
                     [=](auto* run, auto* lanes) { *run += *lanes * factor; });
        } else {
            each_run(x, from, first, count,
                     [=](auto* run, auto* lanes) { *run = *lanes * factor; });
        }
    }

    // `saved` gets the weights exp(score - highest) of query i, key j at (i * T + j) * WL, not
    // normalised, with their sign set if dropped; behind them 1 / their sum per query.
    template <bool DROPS>
    [[gnu::flatten]] void forward_lanes(int block, const Dropping& dropping, float* saved) const {
        const int T = s_.seq_len, queries = s_.queries(), dim = head_dim();
        const int dropped = dropping.dropped;
        const float *const k = part(K, block), *const v = part(V, block);
        for (int i = 0; i < queries; ++i) {
            const int visible = s_.visible(i);
            const float* const q = part(Q, block) + i * dim * WL;
            float* const out = part(OUT, block) + i * dim * WL;
            float* const weights = saved + i * T * WL;
            const std::uint16_t* const draws = draws_.get() + i * T * WL;
            wide highest{};
            for (int j = 0; j < visible; ++j) {
                wide score = load<wide>(q) * load<wide>(k + j * dim * WL);
                for (int e = 1; e < dim; ++e) {
                    score = fma(load<wide>(q + e * WL), load<wide>(k + (j * dim + e) * WL), score);
                }
                store(weights + j * WL, score);
                highest = j == 0 ? score : select(score > highest, score, highest);
            }
            wide sum{}, mixed[MAX_HEAD_DIM] = {};
            for (int j = 0; j < visible; ++j) {
                wide weight = exp(load<wide>(weights + j * WL) - highest);
                sum += weight;
                wide kept = weight;
                if (DROPS) {
                    const iwide keep = load_draws<wide>(draws + j * WL) >= dropped;
                    kept = from_bits<wide>(keep & bits(weight));
                    weight = from_bits<wide>(bits(weight) | (~keep & SIGN_BIT));
                }
                store(weights + j * WL, weight);
                for (int e = 0; e < dim; ++e) {
                    mixed[e] = fma(kept, load<wide>(v + (j * dim + e) * WL), mixed[e]);
                }
            }
            const wide inverse = 1.0f / sum;
            store(saved + (pairs_ + i) * WL, inverse);
            for (int e = 0; e < dim; ++e) {
                store(out + e * WL, mixed[e] * (inverse * dropping.scale));
            }
        }
    }

    [[gnu::flatten]] void backward_lanes(int block, float mask_scale, const float* saved) const {
        const int T = s_.seq_len, queries = s_.queries(), dim = head_dim();
        const float *const k = part(K, block), *const v = part(V, block), *const q = part(Q, block);
        float *const d_out = part(D_OUT, block), *const d_scores = d_scores_.get();
        for (int i = 0; i < queries; ++i) {
            // The gradient of a score is p (dp - sum of p dp over the keys), where p is the
            // normalised weight, and that sum is the output's product with its gradient.
            const wide inverse = load<wide>(saved + (pairs_ + i) * WL);
            wide d_query[MAX_HEAD_DIM] = {}, along{};
            for (int e = 0; e < dim; ++e) {
                const wide g = load<wide>(d_out + (i * dim + e) * WL);
                along = fma(g, load<wide>(part(OUT, block) + (i * dim + e) * WL), along);
                store(d_out + (i * dim + e) * WL, g * (inverse * mask_scale));
            }
            along *= inverse;
            for (int j = 0; j < s_.visible(i); ++j) {
                const iwide weight = bits(load<wide>(saved + (i * T + j) * WL));
                wide d_weight{};
                for (int e = 0; e < dim; ++e) {
                    d_weight = fma(load<wide>(d_out + (i * dim + e) * WL),
                                   load<wide>(v + (j * dim + e) * WL), d_weight);
                }
                d_weight = from_bits<wide>(~(weight >> 31) & bits(d_weight));
                const wide d_score = from_bits<wide>(weight & ~SIGN_BIT) * (d_weight - along);
                store(d_scores + (i * T + j) * WL, d_score);
                for (int e = 0; e < dim; ++e) {
                    d_query[e] = fma(d_score, load<wide>(k + (j * dim + e) * WL), d_query[e]);
                }
            }
            for (int e = 0; e < dim; ++e) store(part(D_Q, block) + (i * dim + e) * WL, d_query[e]);
        }
        for (int j = 0; j < T; ++j) {
            wide d_key[MAX_HEAD_DIM] = {}, d_value[MAX_HEAD_DIM] = {};
            for (int i = s_.first_query(j); i < queries; ++i) {
                const wide d_score = load<wide>(d_scores + (i * T + j) * WL);
                const iwide weight = bits(load<wide>(saved + (i * T + j) * WL));
                const wide kept = from_bits<wide>(~(weight >> 31) & weight);
                for (int e = 0; e < dim; ++e) {
                    d_key[e] = fma(d_score, load<wide>(q + (i * dim + e) * WL), d_key[e]);
                    d_value[e] = fma(kept, load<wide>(d_out + (i * dim + e) * WL), d_value[e]);
                }
            }
            for (int e = 0; e < dim; ++e) {
                store(part(D_K, block) + (j * dim + e) * WL, d_key[e]);
                store(part(D_V, block) + (j * dim + e) * WL, d_value[e]);
            }
        }
    }

    const AttentionShape s_;
    const int group_, blocks_, pairs_;
    const std::ptrdiff_t part_, block_saved_;
    Buffer<float> parts_, unsaved_, d_scores_;
    Buffer<std::uint16_t> draws_;
};

}  // namespace

std::unique_ptr<Attention> make_narrow_attention(const AttentionShape& shape) {
    using Made = std::unique_ptr<Attention>;
    switch (shape.head_dim) {
        case 1: return Made(new NarrowAttention<1>(shape));
        case 2: return Made(new NarrowAttention<2>(shape));
        case 4: return Made(new NarrowAttention<4>(shape));
        case 8: return Made(new NarrowAttention<8>(shape));
        default: return Made(new NarrowAttention<0>(shape));
    }
}

}  // namespace native
