// Attention for heads with few features. The lanes of a vector are different heads (of several
// mappings where one has few), so scores, softmax and mixtures need neither sums across lanes nor
// padding. Rows of q, k, v and the output hold feature e of head h at e * heads + h; the weights
// around the block are stored in that order, so that the heads of a feature come as vectors.
#pragma once

#include "attention.h"

namespace native {

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

// to (columns, rows) = transpose of from (rows, columns).
inline void transpose_draws(int rows, int columns, const std::uint16_t* from, std::uint16_t* to,
                            std::ptrdiff_t ld_to) {
    const int block_rows = columns < 8 ? 0 : rows / 8 * 8;
    for (int i = 0; i < block_rows; i += 8) {
        // The last block of columns may repeat some of the one before.
        for (int next = 0; next < columns; next += 8) {
            const int j = std::min(next, columns - 8);
            eight_draws x[8], y[8];
            for (int r = 0; r < 8; ++r) std::memcpy(&x[r], from + (i + r) * columns + j, 16);
            // The index of an element, (row, column) in 3 + 3 bits, is turned by one bit a round.
            for (int round = 0; round < 3; ++round) {
                for (int r = 0; r < 4; ++r) {
                    y[2 * r] = interleave_low(x[r], x[r + 4]);
                    y[2 * r + 1] = interleave_high(x[r], x[r + 4]);
                }
                for (int r = 0; r < 8; ++r) x[r] = y[r];
            }
            for (int r = 0; r < 8; ++r) std::memcpy(to + (j + r) * ld_to + i, &x[r], 16);
        }
    }
    for (int i = block_rows; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) to[j * ld_to + i] = from[i * columns + j];
    }
}

class NarrowAttention final : public Attention {
  public:
    static constexpr int MAX_HEAD_DIM = 15;

    explicit NarrowAttention(const AttentionShape& shape)
        : s_(shape),
          group_(std::max(1, VL / shape.heads)),
          lanes_(round_up(group_ * shape.heads, VL)),
          part_(std::ptrdiff_t(shape.seq_len) * shape.head_dim * lanes_),
          unit_saved_(std::ptrdiff_t(shape.seq_len) * (shape.seq_len + 1) * lanes_),
          scratch_(8 * part_ + unit_saved_),
          d_scores_(std::ptrdiff_t(shape.seq_len) * shape.seq_len * VL),
          draws_(std::ptrdiff_t(shape.seq_len) * shape.seq_len * lanes_) {}

    std::ptrdiff_t saved_size(int mappings) const override {
        return (mappings + group_ - 1) / group_ * unit_saved_;
    }

    void forward(int mappings, const Operand& q, const Operand& k, const Operand& v,
                 const Dropping& dropping, float* saved, float* out,
                 std::ptrdiff_t ld_out) override {
        const float temperature = 1 / std::sqrt(float(s_.head_dim));
        const int squares = s_.seq_len * s_.seq_len;
        for (int first = 0; first < mappings; first += group_) {
            const int count = std::min(group_, mappings - first);
            gather(q, first, count, temperature, part(0));
            gather(k, first, count, 1, part(1));
            gather(v, first, count, 1, part(2));
            if (dropping.draws) {
                transpose_draws(count * s_.heads, squares,
                                dropping.draws + std::ptrdiff_t(first) * s_.heads * squares,
                                draws_.get(), lanes_);
            }
            float* const weights = saved ? saved : scratch_.get() + 8 * part_;
            for (int lane = 0; lane < lanes_; lane += VL) {
                with_head_dim([&](auto dim) {
                    if (dropping.draws) {
                        forward_lanes<dim.value, true>(lane, dropping, weights);
                    } else {
                        forward_lanes<dim.value, false>(lane, dropping, weights);
                    }
                });
            }
            scatter(part(3), first, count, 1, {out, ld_out});
            if (saved) saved += unit_saved_;
        }
    }

    void backward(int mappings, const Operand& q, const Operand& k, const Operand& v,
                  float mask_scale, const float* saved, const float* out, const float* d_out,
                  std::ptrdiff_t ld_out, const Operand& d_q, const Operand& d_k,
                  const Operand& d_v) override {
        const float temperature = 1 / std::sqrt(float(s_.head_dim));
        const Operand o{const_cast<float*>(out), ld_out};
        const Operand d_o{const_cast<float*>(d_out), ld_out};
        for (int first = 0; first < mappings; first += group_) {
            const int count = std::min(group_, mappings - first);
            gather(q, first, count, temperature, part(0));
            gather(k, first, count, 1, part(1));
            gather(v, first, count, 1, part(2));
            gather(o, first, count, 1, part(3));
            gather(d_o, first, count, 1, part(4));
            for (int lane = 0; lane < lanes_; lane += VL) {
                with_head_dim(
                    [&](auto dim) { backward_lanes<dim.value>(lane, mask_scale, saved); });
            }
            scatter(part(5), first, count, temperature, d_q);
            scatter(part(6), first, count, 1, d_k);
            scatter(part(7), first, count, 1, d_v);
            saved += unit_saved_;
        }
    }

  private:
    template <int N>
    struct Dim {
        static constexpr int value = N;
    };

    // Calls f with the head's size as a constant where that is worth its code, else with 0.
    template <class F>
    void with_head_dim(const F& f) const {
        switch (s_.head_dim) {
            case 1: return f(Dim<1>());
            case 2: return f(Dim<2>());
            case 4: return f(Dim<4>());
            case 8: return f(Dim<8>());
            default: return f(Dim<0>());
        }
    }

    // q, k, v, output, then gradients of output, q, k, v: each (T, head_dim, lanes) of a group.
    float* part(int i) const { return scratch_.get() + i * part_; }

    template <class Copy>
    void each_run(const Operand& x, float* lanes, int first, int count, const Copy& copy) const {
        const int heads = s_.heads;
        for (int g = 0; g < count; ++g) {
            for (int t = 0; t < s_.seq_len; ++t) {
                float* const row = x.row(std::ptrdiff_t(first + g) * s_.seq_len + t);
                float* const to = lanes + std::ptrdiff_t(t) * s_.head_dim * lanes_ + g * heads;
                if (heads % VL == 0) {
                    for (int e = 0; e < s_.head_dim; ++e) {
                        for (int h = 0; h < heads; h += VL) {
                            copy(row + e * heads + h, to + e * lanes_ + h, Dim<VL>());
                        }
                    }
                } else if (heads == 4) {
                    for (int e = 0; e < s_.head_dim; ++e) {
                        copy(row + e * 4, to + e * lanes_, Dim<4>());
                    }
                } else {
                    for (int e = 0; e < s_.head_dim; ++e) {
                        for (int h = 0; h < heads; ++h) {
                            copy(row + e * heads + h, to + e * lanes_ + h, Dim<1>());
                        }
                    }
                }
            }
        }
    }

    // to = factor * the rows of `count` mappings from `first` on.
    void gather(const Operand& from, int first, int count, float factor, float* to) const {
        each_run(from, to, first, count, [factor](const float* row, float* lanes, auto width) {
            for (int i = 0; i < width.value; ++i) lanes[i] = row[i] * factor;
        });
    }

    void scatter(float* from, int first, int count, float factor, const Operand& to) const {
        if (to.index) {
            each_run(to, from, first, count, [factor](float* row, const float* lanes, auto width) {
                for (int i = 0; i < width.value; ++i) row[i] += lanes[i] * factor;
            });
        } else {
            each_run(to, from, first, count, [factor](float* row, const float* lanes, auto width) {
                for (int i = 0; i < width.value; ++i) row[i] = lanes[i] * factor;
            });
        }
    }

    // Unnormalised weights exp(score - highest) of query i, key j lie at (i * T + j) * lanes in
    // `saved`, with their sign set if dropped; behind them 1 / their sum per query.
    template <int DIM, bool DROPS>
    void forward_lanes(int lane, const Dropping& dropping, float* saved) const {
        const int T = s_.seq_len, dim = DIM ? DIM : s_.head_dim;
        constexpr int SIZE = DIM ? DIM : MAX_HEAD_DIM;
        const std::ptrdiff_t step = std::ptrdiff_t(dim) * lanes_;
        const float *const k = part(1) + lane, *const v = part(2) + lane;
        float* const inverse = saved + std::ptrdiff_t(T) * T * lanes_ + lane;
        const int dropped = dropping.dropped;
        for (int i = 0; i < T; ++i) {
            const int visible = s_.visible(i);
            float* const weights = saved + std::ptrdiff_t(i) * T * lanes_ + lane;
            const std::uint16_t* const draws = draws_.get() + std::ptrdiff_t(i) * T * lanes_ + lane;
            vec query[SIZE], mixed[SIZE];
            for (int e = 0; e < dim; ++e) {
                query[e] = load(part(0) + lane + i * step + e * lanes_);
                mixed[e] = vec{};
            }
            vec highest{};
            for (int j = 0; j < visible; ++j) {
                vec score = query[0] * load(k + j * step);
                for (int e = 1; e < dim; ++e) score += query[e] * load(k + j * step + e * lanes_);
                store(weights + j * lanes_, score);
                highest = j == 0 ? score : select(score > highest, score, highest);
            }
            vec sum{};
            for (int j = 0; j < visible; ++j) {
                vec weight = exp(load(weights + j * lanes_) - highest);
                sum += weight;
                vec kept = weight;
                if (DROPS) {
                    const ivec keep = load_draws(draws + j * lanes_) >= dropped;
                    kept = from_bits(keep & bits(weight));
                    weight = from_bits(bits(weight) | (~keep & SIGN_BIT));
                }
                store(weights + j * lanes_, weight);
                for (int e = 0; e < dim; ++e) mixed[e] += kept * load(v + j * step + e * lanes_);
            }
            const vec scale = 1.0f / sum;
            store(inverse + i * lanes_, scale);
            for (int e = 0; e < dim; ++e) {
                store(part(3) + lane + i * step + e * lanes_,
                      mixed[e] * (scale * dropping.scale));
            }
        }
    }

    template <int DIM>
    void backward_lanes(int lane, float mask_scale, const float* saved) const {
        const int T = s_.seq_len, dim = DIM ? DIM : s_.head_dim;
        constexpr int SIZE = DIM ? DIM : MAX_HEAD_DIM;
        const std::ptrdiff_t step = std::ptrdiff_t(dim) * lanes_;
        const float *const q = part(0) + lane, *const k = part(1) + lane, *const v = part(2) + lane;
        float* const d_out = part(4) + lane;
        const float* const inverse = saved + std::ptrdiff_t(T) * T * lanes_ + lane;
        const float* const weights = saved + lane;
        for (int i = 0; i < T; ++i) {
            // The gradient of a score is p (dp - sum of p dp over the keys), where p is the
            // normalised weight, and that sum is the output's product with its gradient.
            const vec scale = load(inverse + i * lanes_);
            vec d_mixed[SIZE], d_query[SIZE], along{};
            for (int e = 0; e < dim; ++e) {
                const vec g = load(d_out + i * step + e * lanes_);
                along += g * load(part(3) + lane + i * step + e * lanes_);
                d_mixed[e] = g * (scale * mask_scale);
                store(d_out + i * step + e * lanes_, d_mixed[e]);
                d_query[e] = vec{};
            }
            along *= scale;
            for (int j = 0; j < s_.visible(i); ++j) {
                const ivec weight = bits(load(weights + (std::ptrdiff_t(i) * T + j) * lanes_));
                vec d_weight{};
                for (int e = 0; e < dim; ++e) {
                    d_weight += d_mixed[e] * load(v + j * step + e * lanes_);
                }
                d_weight = from_bits(~(weight >> 31) & bits(d_weight));
                const vec d_score = from_bits(weight & ~SIGN_BIT) * (d_weight - along);
                store(d_scores_.get() + (std::ptrdiff_t(i) * T + j) * VL, d_score);
                for (int e = 0; e < dim; ++e) {
                    d_query[e] += d_score * load(k + j * step + e * lanes_);
                }
            }
            for (int e = 0; e < dim; ++e) {
                store(part(5) + lane + i * step + e * lanes_, d_query[e]);
            }
        }
        for (int j = 0; j < T; ++j) {
            vec d_key[SIZE], d_value[SIZE];
            for (int e = 0; e < dim; ++e) d_key[e] = d_value[e] = vec{};
            for (int i = s_.first_query(j); i < T; ++i) {
                const vec d_score = load(d_scores_.get() + (std::ptrdiff_t(i) * T + j) * VL);
                const ivec weight = bits(load(weights + (std::ptrdiff_t(i) * T + j) * lanes_));
                const vec kept = from_bits(~(weight >> 31) & weight);
                for (int e = 0; e < dim; ++e) {
                    d_key[e] += d_score * load(q + i * step + e * lanes_);
                    d_value[e] += kept * load(d_out + i * step + e * lanes_);
                }
            }
            for (int e = 0; e < dim; ++e) {
                store(part(6) + lane + j * step + e * lanes_, d_key[e]);
                store(part(7) + lane + j * step + e * lanes_, d_value[e]);
            }
        }
    }

    const AttentionShape s_;
    const int group_, lanes_;
    const std::ptrdiff_t part_, unit_saved_;
    Buffer<float> scratch_, d_scores_;
    Buffer<std::uint16_t> draws_;
};

}  // namespace native
