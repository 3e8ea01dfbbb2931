// Attention for heads with many features, in the usual order (feature e of head h at column
// h * head_dim + e). One head of one mapping at a time; vectors run along the features, or along
// the keys of a query.
#include "attention.h"
#include "gemm.h"

namespace native {

namespace {

class WideAttention final : public Attention {
  public:
    explicit WideAttention(const AttentionShape& shape)
        : s_(shape),
          keys_(round_up(shape.seq_len, VL)),
          width_(round_up(shape.head_dim, VL)),
          rows_(7 * shape.seq_len * width_),
          turned_(width_ * keys_),
          scores_(shape.queries() * keys_),
          weights_(shape.queries() * keys_) {}

    std::ptrdiff_t saved_size(int mappings) const override {
        return std::ptrdiff_t(mappings) * s_.heads * s_.queries() * keys_;
    }

    void forward(int mappings, const Operands3& from, const Dropping& dropping, float* saved,
                 float* out, std::ptrdiff_t ld_out) override {
        const int T = s_.seq_len, queries = s_.queries(), size = s_.head_dim;
        const Operand to{out, ld_out};
        for (int item = 0; item < mappings * s_.heads; ++item) {
            const int mapping = item / s_.heads, column = item % s_.heads * size;
            const Rows query = rows(0, from.q, mapping, queries, column);
            const Rows key = rows(1, from.k, mapping, T, column);
            const Rows value = rows(2, from.v, mapping, T, column);
            scores(query, key);
            Dropping own = dropping;
            if (own.draws) own.draws += (std::ptrdiff_t(item) * T + s_.first) * T;
            softmax(own, saved);
            // A causal block of queries stops at its last visible key.
            const Rows mixed = target(3, to, mapping, queries, column);
            blocks(queries, [&](int i, int count) {
                multiply(count, width_, s_.visible(i + count - 1), weights(i), value, mixed.at(i));
            });
            finish(mixed, to, mapping, queries, column);
            if (saved) saved += queries * keys_;
        }
    }

    void backward(int mappings, const Operands3& from, float mask_scale,
                  const AttentionOutput& output, const Operands3& gradients) override {
        const int T = s_.seq_len, queries = s_.queries(), size = s_.head_dim;
        const Operand d_out{const_cast<float*>(output.d_out), output.ld};
        const float* saved = output.saved;
        for (int item = 0; item < mappings * s_.heads; ++item) {
            const int mapping = item / s_.heads, column = item % s_.heads * size;
            const Rows query = rows(0, from.q, mapping, queries, column);
            const Rows key = rows(1, from.k, mapping, T, column);
            const Rows value = rows(2, from.v, mapping, T, column);
            const Rows mixed = rows(3, d_out, mapping, queries, column);
            scores(mixed, value);
            softmax_backward(mask_scale, saved);
            const Rows d_query = target(4, gradients.q, mapping, queries, column);
            blocks(queries, [&](int i, int count) {
                multiply(count, width_, s_.visible(i + count - 1), scores(i), key, d_query.at(i));
            });
            finish(d_query, gradients.q, mapping, queries, column);
            const Rows d_key = target(5, gradients.k, mapping, T, column);
            const Rows d_value = target(6, gradients.v, mapping, T, column);
            blocks(T, [&](int j, int count) {
                const int i = s_.first_query(j), rest = queries - i;
                multiply(count, width_, rest, scores(i).column(j), query.at(i), d_key.at(j));
                multiply(count, width_, rest, weights(i).column(j), mixed.at(i), d_value.at(j));
            });
            finish(d_key, gradients.k, mapping, T, column);
            finish(d_value, gradients.v, mapping, T, column);
            saved += queries * keys_;
        }
    }

  private:
    // The rows of one head of one mapping, whole vectors long.
    struct Rows {
        float* data;
        std::ptrdiff_t ld;

        Rows at(int row) const { return {data + row * ld, ld}; }
    };

    // A left factor: element (r, p) is data[r * row + p * k].
    struct Strided {
        const float* data;
        std::ptrdiff_t row, k;

        Strided column(int j) const { return {data + j, k, row}; }  // the transpose's rows from j on
    };

    Strided scores(int i) const { return {scores_.get() + i * keys_, keys_, 1}; }
    Strided weights(int i) const { return {weights_.get() + i * keys_, keys_, 1}; }

    float* own_rows(int i) const { return rows_.get() + std::ptrdiff_t(i) * s_.seq_len * width_; }
    bool in_place(const Operand& x) const { return !x.index && s_.head_dim == width_; }

    // Where they lie, if evenly spaced there, or a copy.
    Rows rows(int i, const Operand& x, int mapping, int count, int column) const {
        const int first = mapping * count;
        if (in_place(x)) return {x.row(first) + column, x.ld};
        for (int t = 0; t < count; ++t) {
            const float* from = x.row(first + t) + column;
            std::copy(from, from + s_.head_dim, own_rows(i) + t * width_);
        }
        return {own_rows(i), width_};
    }

    // Where to put a gradient; finish() brings it from there to its rows.
    Rows target(int i, const Operand& x, int mapping, int count, int column) const {
        if (in_place(x)) return {x.row(mapping * count) + column, x.ld};
        return {own_rows(i), width_};
    }

    void finish(const Rows& from, const Operand& x, int mapping, int count, int column) const {
        if (in_place(x)) return;
        for (int t = 0; t < count; ++t) {
            float* to = x.row(mapping * count + t) + column;
            const float* row = from.data + t * from.ld;
            if (!x.index) std::fill(to, to + s_.head_dim, 0.0f);
            for (int e = 0; e < s_.head_dim; ++e) to[e] += row[e];
        }
    }

    // Rows of a product that are computed together: with one or two vectors of columns they leave
    // room in the registers.
    static constexpr int ROWS = WL > VL ? 10 : 6;

    // f(start, count) for blocks of at most that many rows.
    template <class F>
    static void blocks(int rows, const F& f) {
        const Blocks all(rows, ROWS);
        for (int b = 0; b < all.count; ++b) f(all.start(b), all.start(b + 1) - all.start(b));
    }

    // c (COUNT, VECS vectors) = a (COUNT, k) * b (k, VECS vectors).
    template <class V, int COUNT, int VECS>
    static void block(int k, const Strided& left, const float* b, std::ptrdiff_t ldb, float* c,
                      std::ptrdiff_t ldc) {
        const float* a = left.data;
        const std::ptrdiff_t a_row = left.row;
        V sum[COUNT][VECS] = {};
        for (int p = 0; p < k; ++p) {
            V row[VECS];
#pragma GCC unroll 8
            for (int v = 0; v < VECS; ++v) row[v] = load<V>(b + v * LANES<V>);
#pragma GCC unroll 16
            for (int r = 0; r < COUNT; ++r) {
#pragma GCC unroll 8
                for (int v = 0; v < VECS; ++v) sum[r][v] = fma(row[v], a[r * a_row], sum[r][v]);
            }
            a += left.k, b += ldb;
        }
#pragma GCC unroll 16
        for (int r = 0; r < COUNT; ++r) {
#pragma GCC unroll 8
            for (int v = 0; v < VECS; ++v) store(c + r * ldc + v * LANES<V>, sum[r][v]);
        }
    }

    // c (rows <= ROWS, columns) = a (rows, k) * b (k, columns); columns are a multiple of VL.
    template <int COUNT = ROWS>
    static void multiply(int rows, int columns, int k, const Strided& a, const Rows& b,
                         const Rows& c) {
        if constexpr (COUNT > 1) {
            if (rows < COUNT) {
                multiply<COUNT - 1>(rows, columns, k, a, b, c);
                return;
            }
        }
        int j = 0;
        for (; j + 2 * WL <= columns; j += 2 * WL) {
            block<wide, COUNT, 2>(k, a, b.data + j, b.ld, c.data + j, c.ld);
        }
        for (; j + WL <= columns; j += WL) {
            block<wide, COUNT, 1>(k, a, b.data + j, b.ld, c.data + j, c.ld);
        }
        if (j < columns) block<vec, COUNT, 1>(k, a, b.data + j, b.ld, c.data + j, c.ld);
    }

    // scores_ (queries, keys_) = x y^T; columns from T on are 0.
    void scores(const Rows& x, const Rows& y) const {
        transpose(s_.seq_len, s_.head_dim, y.data, y.ld, turned_.get(), keys_);
        const Rows turned{turned_.get(), keys_}, to{scores_.get(), keys_};
        blocks(s_.queries(), [&](int i, int count) {
            multiply(count, keys_, s_.head_dim, {x.at(i).data, x.ld, 1}, turned, to.at(i));
        });
    }

    // weights_ = dropout(softmax(scores_ / sqrt(head_dim))). `saved` gets them without dropout's
    // scale and with their sign set if dropped.
    void softmax(const Dropping& dropping, float* saved) const {
        const float temperature = s_.temperature();
        for (int i = 0; i < s_.queries(); ++i) {
            float* const row = weights_.get() + i * keys_;
            const float* const score = scores_.get() + i * keys_;
            const int visible = s_.visible(i);
            // Beside a NaN any maximum will do: all weights are NaN then.
            vec largest = splat(score[0]);
            for (int j = 0; j < visible; j += VL) {
                const vec x = select(lanes() + j < visible, load(score + j), largest);
                largest = select(x > largest, x, largest);
            }
            const float highest = largest_lane(largest);
            vec total{};
            for (int j = 0; j < keys_; j += VL) {
                vec weight = exp((load(score + j) - highest) * temperature);
                weight = from_bits((lanes() + j < visible) & bits(weight));
                store(row + j, weight);
                total += weight;
            }
            const float scale = 1 / sum_lanes(total);
            for (int j = 0; j < keys_; j += VL) {
                vec weight = load(row + j) * scale;
                ivec drop{};
                if (dropping.draws) {
                    const std::uint16_t* draws = dropping.draws + i * s_.seq_len + j;
                    drop = load_draws(draws, s_.seq_len - j) < dropping.dropped;
                    store(row + j, from_bits(~drop & bits(weight * dropping.scale)));
                } else {
                    store(row + j, weight);
                }
                if (saved) {
                    store(saved + i * keys_ + j, from_bits(bits(weight) | (drop & SIGN_BIT)));
                }
            }
        }
    }

    // From the gradient of the weights after dropout, in scores_, to that of the scores; weights_
    // becomes what it was in the forward pass.
    void softmax_backward(float mask_scale, const float* saved) const {
        const float temperature = s_.temperature();
        for (int i = 0; i < s_.queries(); ++i) {
            float* const row = weights_.get() + i * keys_;
            float* const d_score = scores_.get() + i * keys_;
            vec along{};
            for (int j = 0; j < keys_; j += VL) {
                const ivec weight = bits(load(saved + i * keys_ + j));
                const vec kept = from_bits(~(weight >> 31) & weight) * mask_scale;
                store(row + j, kept);
                along = fma(kept, load(d_score + j), along);
            }
            const float mean = sum_lanes(along);
            for (int j = 0; j < keys_; j += VL) {
                const ivec weight = bits(load(saved + i * keys_ + j));
                const vec kept = load(row + j), d = load(d_score + j);
                const vec away = from_bits(weight & ~SIGN_BIT) * mean;
                store(d_score + j, fma(kept, d, -away) * temperature);
            }
        }
    }

    const AttentionShape s_;
    const int keys_, width_;
    Buffer<float> rows_, turned_, scores_, weights_;
};

}  // namespace

std::unique_ptr<Attention> make_wide_attention(const AttentionShape& shape) {
    return std::unique_ptr<Attention>(new WideAttention(shape));
}

}  // namespace native
