// One pre-norm layer of the decoder-only model: causal attention and a feed-forward block, each of
// a LayerNorm of the residual stream, to which its result is added after dropout.
//
// A sum of the stream and the LayerNorm behind it are one pass, so a layer is given the norm of its
// input with the input, and its last pass makes the next one's. Of the last layer only the answers
// are of use, that is the positions from `first` on: the others have keys and values there, and
// nothing else.
#pragma once

#include "transformer_blocks.h"

namespace native::decoder_only {

// A layer's parameters in the module's order.
enum LayerParameter {
    NORM1, NORM1_BIAS, IN, IN_BIAS, OUT, OUT_BIAS, NORM2, NORM2_BIAS, UP, UP_BIAS, DOWN, DOWN_BIAS,
    LAYER_PARAMETERS
};

// Stored (in, out), except DOWN, which is (d_ff as columns): see Parameter.
struct LayerWeights {
    const float* w[LAYER_PARAMETERS];
    float* g[LAYER_PARAMETERS];
    std::ptrdiff_t ld[LAYER_PARAMETERS];
};

struct LayerShape {
    int seq_len, hidden_size, d_ff, heads;
    int first = 0;            // position that is of use, as all behind it are
    bool embedding = false;  // whether the layer reads the embedded input

    int head_dim() const { return hidden_size / heads; }
    int ld() const { return round_up(hidden_size, VL); }
    int used() const { return seq_len - first; }
    std::ptrdiff_t stream_elements() const { return std::ptrdiff_t(seq_len) * hidden_size; }
    std::ptrdiff_t attention_elements() const { return std::ptrdiff_t(heads) * seq_len * seq_len; }
    // Dropout sites: attention weights, behind attention, behind the feed-forward block.
    std::ptrdiff_t dropout_elements() const {
        return attention_elements() + 2 * stream_elements();
    }
};

// Where a layer's input has its tokens.
struct Source {
    int rows;                     // of the input
    const std::int32_t* tokens;   // row of every token, (mappings * S,); null: each has its own
    const std::int32_t* used;     // row of every used one, (mappings * used,); null: all, likewise

    // Queries are computed apart where fewer rows need one than need a key.
    bool has_own_queries() const { return used && !tokens; }
};

// A LayerNorm's result, and what its backward pass needs.
struct Normed {
    Buffer<float> y, unit, inverse;

    void resize(std::size_t rows, std::ptrdiff_t ld) {
        y.resize(rows * ld), unit.resize(rows * ld), inverse.resize(rows);
    }
};

struct NormWeights {
    const float *gain, *bias;
    float *d_gain, *d_bias;
};

// A sum of the stream, x + dropout(branch), and the LayerNorm behind it. Rows are (mapping, position
// from `first` on); the draws are those of all positions.
struct Sum {
    LayerShape shape;
    Dropping site;

    // `x` becomes the sum; null stands for zeros, with the sum going to `to_x`.
    void forward(int rows, const float* x, const float* branch, const NormWeights& w, float* to_x,
                 Normed& to) const {
        each(rows, [&](const Extent& size, std::ptrdiff_t at, const Dropping& own) {
            const Norm norm{w.gain, w.bias, to.unit.get() + at * size.ld, to.inverse.get() + at};
            at *= size.ld;
            add_norm(size, x ? x + at : nullptr, branch + at, own, norm, to_x + at,
                     to.y.get() + at);
        });
    }

    // From d_y to `d_x`, added to if ADDS, and `d_branch`; the bias that ends the branch has its
    // gradient at `d_bias`.
    template <bool ADDS>
    void backward(int rows, const Normed& of, const NormWeights& w, const float* d_y, float* d_x,
                  float* d_branch, float* d_bias) const {
        const NormSums sums{w.d_gain, w.d_bias, d_bias};
        sums.clear(shape.hidden_size);
        each(rows, [&](const Extent& size, std::ptrdiff_t at, const Dropping& own) {
            const Norm norm{w.gain, w.bias, of.unit.get() + at * size.ld, of.inverse.get() + at};
            at *= size.ld;
            add_norm_backward<ADDS>(size, own, norm, d_y + at, d_x + at, d_branch + at, sums);
        });
    }

  private:
    // visit(rows, the first one, their dropout) for rows whose draws follow each other.
    template <class Visit>
    void each(int rows, const Visit& visit) const {
        const int step = site.draws && shape.first > 0 ? shape.used() : rows;
        for (int r = 0, mapping = 0; r < rows; r += step, ++mapping) {
            Dropping own = site;
            if (own.draws) {
                own.draws += mapping * shape.stream_elements() + shape.first * shape.hidden_size;
            }
            visit(Extent{step, shape.hidden_size, shape.ld()}, r, own);
        }
    }
};

// Room that the layers use in turn.
struct LayerScratch : FeedForwardScratch {
    Buffer<float> branch, d_y, d_x, d_input;  // (rows, ld)
    Buffer<float> d_mixed, d_query;           // (tokens, ld)
    Buffer<float> d_qkv;                      // (rows, 3 hidden_size)
};

class Layer {
  public:
    // `rows`: of the input at most.
    Layer(const LayerShape& shape, int mappings, int rows, LayerScratch& scratch)
        : s_(shape),
          d_(shape.hidden_size),
          ld_(shape.ld()),
          ld_qkv_(round_up(3 * d_, VL)),
          feed_forward_(d_, shape.d_ff, mappings * shape.used(), scratch),
          attention_(make_attention({s_.seq_len, s_.heads, s_.head_dim(), true, s_.first})),
          scratch_(scratch) {
        const std::size_t used = std::size_t(mappings) * s_.used();
        input_.resize(rows, ld_);
        qkv_.resize(std::size_t(rows) * ld_qkv_);
        for (Buffer<float>* b : {&query_input_, &query_}) {
            if (s_.first > 0) b->resize(used * ld_);
        }
        if (s_.first > 0 || s_.embedding) x_.resize(used * ld_);
        mixed_.resize(used * ld_);
        middle_.resize(used, ld_);
        saved_.resize(attention_->saved_size(mappings));
    }

    // `tokens` and `rows` at most.
    static void allocate_scratch(const LayerShape& shape, int tokens, int rows, LayerScratch& to) {
        const std::ptrdiff_t ld = shape.ld();
        for (Buffer<float>* b : {&to.branch, &to.d_y, &to.d_x, &to.d_input}) {
            b->resize(std::size_t(rows) * ld);
        }
        for (Buffer<float>* b : {&to.d_mixed, &to.d_query}) b->resize(std::size_t(tokens) * ld);
        to.d_qkv.resize(std::size_t(rows) * round_up(3 * shape.hidden_size, VL));
        FeedForward<GeluAlone>::allocate_scratch(shape.hidden_size, tokens, to);
    }

    // The norm of the layer's input, which is to be there before project().
    Normed& input() { return input_; }
    static NormWeights input_norm(const LayerWeights& p) { return norm(p, NORM1); }
    // The sum behind the layer, of the last forward().
    const Sum& last_sum() const { return last_sum_; }

    // What is made of the input alone: keys and values, and queries unless they are apart.
    void project(const LayerWeights& p, const Source& from) {
        const int skipped = from.has_own_queries() ? d_ : 0;
        multiply(from.rows, 3 * d_ - skipped, input_.y.get(), p, IN, skipped,
                 {qkv_.get() + skipped, ld_qkv_});
    }

    // The stream behind the layer, (mappings * used, ld), without its last sum's branch, which is
    // in scratch.branch. It may be `x`, the stream before it. project() has been called. Without
    // `training` nothing is kept for a backward pass. `draws` are the layer's, for batch_size
    // mappings.
    float* forward(const LayerWeights& p, int mappings, const Source& from, float* x,
                   bool training, const Dropping& dropping, int batch_size) {
        const int rows = mappings * s_.used();
        float* const branch = scratch_.branch.get();
        set_sites(dropping, batch_size);
        if (from.has_own_queries()) {
            gather(rows, from.used, input_.y.get(), query_input_.get());
            multiply(rows, d_, query_input_.get(), p, IN, 0, {query_.get(), ld_});
        }
        attention_->forward(mappings, operands(from, qkv_.get(), query_.get()), attention_site_,
                            training ? saved_.get() : nullptr, mixed_.get(), ld_);
        multiply(rows, d_, mixed_.get(), p, OUT, 0, {branch, ld_});
        if (from.used) {
            gather(rows, from.used, x, x_.get());
            x = x_.get();
        }
        middle_sum_.forward(rows, x, branch, norm(p, NORM2), x, middle_);
        feed_forward_.forward(feed_forward_weights(p), rows, middle_.y.get(), GeluAlone(),
                              training, branch);
        return x;
    }

    // Sets the layer's gradients but those of its first norm and its last bias. `d_x` (mappings *
    // used, ld) holds the stream's gradient behind the layer, scratch.branch that of the last
    // branch. Returns the stream's gradient before the layer, (rows, ld), without the way through
    // the first norm: the gradient of that one's result is in scratch.d_y.
    float* backward(const LayerWeights& p, int mappings, const Source& from, float* d_x) {
        const int rows = mappings * s_.used();
        float *const branch = scratch_.branch.get(), *const d_y = scratch_.d_y.get();
        float *const d_mixed = scratch_.d_mixed.get(), *const d_qkv = scratch_.d_qkv.get();
        feed_forward_.backward(feed_forward_weights(p), rows, middle_.y.get(), branch, GeluAlone(),
                               {d_y, ld_});
        middle_sum_.backward<true>(rows, middle_, norm(p, NORM2), d_y, d_x, branch,
                                   p.g[OUT_BIAS]);
        linear_backward({rows, d_, ld_}, mixed_.get(), branch, columns_of(p, OUT, 0),
                        {d_mixed, ld_});

        float* const d_query = scratch_.d_query.get();
        if (from.tokens) std::fill(d_qkv, d_qkv + from.rows * ld_qkv_, 0.0f);
        attention_->backward(mappings, operands(from, qkv_.get(), query_.get()),
                             attention_site_.scale, {saved_.get(), mixed_.get(), d_mixed, ld_},
                             operands(from, d_qkv, d_query));
        const int skipped = from.has_own_queries() ? d_ : 0, width = 3 * d_ - skipped;
        column_sums(from.rows, width, d_qkv + skipped, ld_qkv_, p.g[IN_BIAS] + skipped);
        linear_backward({from.rows, width, ld_qkv_}, input_.y.get(), d_qkv + skipped,
                        columns_of(p, IN, skipped), {d_y, ld_});
        if (from.has_own_queries()) {
            float* const d_query_input = d_mixed;
            column_sums(rows, d_, d_query, ld_, p.g[IN_BIAS]);
            linear_backward({rows, d_, ld_}, query_input_.get(), d_query, columns_of(p, IN, 0),
                            {d_query_input, ld_});
            scatter(rows, from.used, d_query_input, d_y);
        }
        if (!from.used) return d_x;
        float* const d_input = (d_x == scratch_.d_x.get() ? scratch_.d_input : scratch_.d_x).get();
        std::fill(d_input, d_input + from.rows * ld_, 0.0f);
        scatter(rows, from.used, d_x, d_input);
        return d_input;
    }

  private:
    static NormWeights norm(const LayerWeights& p, int gain) {
        return {p.w[gain], p.w[gain + 1], p.g[gain], p.g[gain + 1]};
    }

    FeedForwardWeights feed_forward_weights(const LayerWeights& p) const {
        return {p.w[UP], p.w[UP_BIAS], p.w[DOWN], p.w[DOWN_BIAS],
                p.g[UP], p.g[UP_BIAS], p.g[DOWN], p.ld[UP]};
    }

    static Columns columns_of(const LayerWeights& p, int weight, int first) {
        return {p.w[weight] + first, p.g[weight] + first, p.ld[weight]};
    }

    // to (m, n) = x times the n columns of a weight from `first` on, with the bias behind it.
    void multiply(int m, int n, const float* x, const LayerWeights& p, int weight, int first,
                  const Product& to) const {
        gemm(m, n, d_, {x, ld_}, {p.w[weight] + first, p.ld[weight]}, to,
             scratch_.workspace.get(), {nullptr, p.w[weight + 1] + first});
    }

    void linear_backward(const Extent& size, const float* x, const float* d_y, const Columns& w,
                         const Product& d_x) const {
        native::linear_backward(size, d_, x, ld_, d_y, w, d_x, scratch_.workspace.get());
    }

    // to[i] = from[index[i]], and to[index[i]] += from[i], in rows.
    void gather(int rows, const std::int32_t* index, const float* from, float* to) const {
        for (int i = 0; i < rows; ++i, to += ld_) {
            std::copy(from + index[i] * ld_, from + (index[i] + 1) * ld_, to);
        }
    }
    void scatter(int rows, const std::int32_t* index, const float* from, float* to) const {
        for (int i = 0; i < rows; ++i, from += ld_) {
            float* row = to + index[i] * ld_;
            for (int j = 0; j < ld_; ++j) row[j] += from[j];
        }
    }

    // Queries, keys and values, or their gradients: thirds of a row, unless queries are apart.
    Operands3 operands(const Source& from, float* qkv, float* query) const {
        const Operand q = from.has_own_queries() ? Operand{query, ld_}
                                                 : Operand{qkv, ld_qkv_, from.used};
        return {q, {qkv + d_, ld_qkv_, from.tokens}, {qkv + 2 * d_, ld_qkv_, from.tokens}};
    }

    void set_sites(const Dropping& dropping, int batch_size) {
        attention_site_ = dropping;
        middle_sum_ = last_sum_ = {s_, dropping};
        if (!dropping.draws) return;
        middle_sum_.site.draws += batch_size * s_.attention_elements();
        last_sum_.site.draws = middle_sum_.site.draws + batch_size * s_.stream_elements();
    }

    const LayerShape s_;
    const int d_;
    const std::ptrdiff_t ld_, ld_qkv_;
    FeedForward<GeluAlone> feed_forward_;
    const std::unique_ptr<Attention> attention_;
    LayerScratch& scratch_;
    Dropping attention_site_;
    Sum middle_sum_, last_sum_;
    Normed input_, middle_;
    Buffer<float> qkv_, query_input_, query_, saved_, mixed_, x_;
};

}  // namespace native::decoder_only
