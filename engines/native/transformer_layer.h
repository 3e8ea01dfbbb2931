// One post-norm decoder layer: self-attention, cross-attention to the memory, feed-forward block.
//
// The memory is the embedded input, which depends on (position, token) alone: a batch holds few
// distinct rows of it ("pairs"). Whatever is a function of one such row, every layer's memory keys
// and values and the first layer's queries, keys and values, is computed once per pair and found
// through an index; its gradients are summed per pair before they meet a weight.
#pragma once

#include "transformer_blocks.h"

namespace native {

// A layer's parameters in the module's order.
enum LayerParameter {
    SELF_IN, SELF_IN_BIAS, SELF_OUT, SELF_OUT_BIAS, CROSS_IN, CROSS_IN_BIAS, CROSS_OUT,
    CROSS_OUT_BIAS, UP, UP_BIAS, DOWN, DOWN_BIAS, NORM1, NORM1_BIAS, NORM2, NORM2_BIAS, NORM3,
    NORM3_BIAS, LAYER_PARAMETERS
};

// Stored (in, out), except DOWN, which is (d_ff as columns): see Parameter.
struct LayerWeights {
    const float* w[LAYER_PARAMETERS];
    float* g[LAYER_PARAMETERS];
    std::ptrdiff_t ld[LAYER_PARAMETERS];
};

struct LayerShape {
    int seq_len, hidden_size, d_ff, heads;
    bool first = false;

    int ld() const { return round_up(hidden_size, VL); }
    std::ptrdiff_t dropout_elements() const {
        return std::ptrdiff_t(seq_len) * (2 * heads * seq_len + 3 * hidden_size + d_ff);
    }
    int head_dim() const { return hidden_size / heads; }
    std::unique_ptr<Attention> attention(bool causal) const {
        return make_attention({seq_len, heads, head_dim(), causal});
    }
};

// The distinct (position, token) pairs of some mappings.
struct Memory {
    int pairs;
    const float* x;             // (pairs, ld): embedded
    const std::int32_t* index;  // (mappings * T,): pair of each token
};

// What a layer makes of the memory alone.
struct Projected {
    Buffer<float> qkv;  // (pairs, 3 hidden_size): first layer only
    Buffer<float> kv;   // (pairs, 2 hidden_size)
};

// Room that the layers use in turn.
struct LayerScratch : FeedForwardScratch {
    Buffer<float> branch, d_mixed;  // (rows, ld)
    Buffer<float> d_qkv;            // (max(rows, pairs), 3 hidden_size)
    Buffer<float> d_kv;             // (pairs, 2 hidden_size)
};

class DecoderLayer {
  public:
    DecoderLayer(const LayerShape& shape, int mappings, LayerScratch& scratch)
        : s_(shape),
          d_(shape.hidden_size),
          ld_(shape.ld()),
          ld_qkv_(round_up(3 * d_, VL)),
          ld_kv_(round_up(2 * d_, VL)),
          feed_forward_(d_, shape.d_ff, mappings * shape.seq_len, scratch),
          self_(shape.attention(true)),
          cross_(shape.attention(false)),
          scratch_(scratch) {
        const std::size_t rows = std::size_t(mappings) * s_.seq_len, wide = rows * ld_;
        if (!shape.first) qkv_.resize(rows * ld_qkv_);
        for (Buffer<float>* b : {&mixed1_, &x1_, &query_, &mixed2_, &x2_, &output_}) {
            b->resize(wide);
        }
        for (Buffer<float>& unit : units_) unit.resize(wide);
        for (Buffer<float>& inverse : inverses_) inverse.resize(rows);
        saved1_.resize(self_->saved_size(mappings));
        saved2_.resize(cross_->saved_size(mappings));
    }

    static void allocate_scratch(const LayerShape& shape, int rows, int pairs, LayerScratch& to) {
        const std::size_t wide = std::size_t(rows) * shape.ld();
        const int d = shape.hidden_size;
        for (Buffer<float>* b : {&to.branch, &to.d_mixed}) b->resize(wide);
        to.d_qkv.resize(std::size_t(std::max(rows, pairs)) * round_up(3 * d, VL));
        to.d_kv.resize(std::size_t(pairs) * round_up(2 * d, VL));
        FeedForward<DroppedRelu>::allocate_scratch(d, rows, to);
    }

    void allocate_projected(int pairs, Projected& to) const {
        if (s_.first) to.qkv.resize(std::size_t(pairs) * ld_qkv_);
        to.kv.resize(std::size_t(pairs) * ld_kv_);
    }

    void project(const LayerWeights& p, const Memory& memory, Projected& to) const {
        if (s_.first) {
            multiply(memory.pairs, 3 * d_, {memory.x, ld_}, {p.w[SELF_IN], p.ld[SELF_IN]},
                     {to.qkv.get(), ld_qkv_}, p.w[SELF_IN_BIAS]);
        }
        multiply(memory.pairs, 2 * d_, {memory.x, ld_}, {p.w[CROSS_IN] + d_, p.ld[CROSS_IN]},
                 {to.kv.get(), ld_kv_}, p.w[CROSS_IN_BIAS] + d_);
    }

    // Returns the layer's output (mappings * T, ld) for x of the same shape; it lives until the
    // next call. Without `draws` nothing is dropped and nothing kept for a backward pass.
    // `draws` are the layer's, for batch_size mappings.
    const float* forward(const LayerWeights& p, int mappings, const float* x,
                         const std::int32_t* index, const Projected& memory, bool training,
                         const Dropping& dropping, int batch_size) {
        const int rows = mappings * s_.seq_len;
        float* const branch = scratch_.branch.get();
        set_sites(dropping, batch_size);
        if (!s_.first) {
            multiply(rows, 3 * d_, {x, ld_}, {p.w[SELF_IN], p.ld[SELF_IN]}, {qkv_.get(), ld_qkv_},
                     p.w[SELF_IN_BIAS]);
        }
        self_->forward(mappings, self_rows(memory, index), sites_[0],
                       training ? saved1_.get() : nullptr, mixed1_.get(), ld_);
        multiply(rows, d_, {mixed1_.get(), ld_}, {p.w[SELF_OUT], p.ld[SELF_OUT]}, {branch, ld_},
                 p.w[SELF_OUT_BIAS]);
        const Extent wide{rows, d_, ld_};
        add_norm(wide, x, branch, sites_[1], norm(p, 0), units_[0].get(), x1_.get());

        multiply(rows, d_, {x1_.get(), ld_}, {p.w[CROSS_IN], p.ld[CROSS_IN]}, {query_.get(), ld_},
                 p.w[CROSS_IN_BIAS]);
        cross_->forward(mappings, cross_rows(memory, index), sites_[2],
                        training ? saved2_.get() : nullptr, mixed2_.get(), ld_);
        multiply(rows, d_, {mixed2_.get(), ld_}, {p.w[CROSS_OUT], p.ld[CROSS_OUT]}, {branch, ld_},
                 p.w[CROSS_OUT_BIAS]);
        add_norm(wide, x1_.get(), branch, sites_[3], norm(p, 1), units_[1].get(), x2_.get());

        feed_forward_.forward(feed_forward_weights(p), rows, x2_.get(), activation(), training, branch);
        add_norm(wide, x2_.get(), branch, sites_[5], norm(p, 2), units_[2].get(), output_.get());
        return output_.get();
    }

    // Sets the layer's gradients. `d_x` (mappings * T, ld) holds that of the output and receives
    // that of x, without the way through queries, keys and values if the layer is the first: this
    // one goes to `d_memory` (pairs, ld) with the way through memory keys and values, both added.
    void backward(const LayerWeights& p, int mappings, const float* x, const Memory& memory,
                  const Projected& projected, float* d_x, float* d_memory) {
        const int rows = mappings * s_.seq_len;
        float *const branch = scratch_.branch.get(), *const d_mixed = scratch_.d_mixed.get();
        float *const d_qkv = scratch_.d_qkv.get(), *const d_kv = scratch_.d_kv.get();
        const Extent wide{rows, d_, ld_};
        norm_backward(p, 2, wide, sites_[5], d_x, DOWN_BIAS);
        feed_forward_.backward(feed_forward_weights(p), rows, x2_.get(), branch, activation(),
                               {d_x, ld_, true});

        norm_backward(p, 1, wide, sites_[3], d_x, CROSS_OUT_BIAS);
        linear_backward({rows, d_, ld_}, mixed2_.get(), branch, columns_of(p, CROSS_OUT, 0),
                        {d_mixed, ld_});
        std::fill(d_kv, d_kv + std::ptrdiff_t(memory.pairs) * ld_kv_, 0.0f);
        cross_->backward(mappings, cross_rows(projected, memory.index), sites_[2].scale,
                         {saved2_.get(), mixed2_.get(), d_mixed, ld_},
                         {{d_qkv, ld_}, {d_kv, ld_kv_, memory.index},
                          {d_kv + d_, ld_kv_, memory.index}});
        column_sums(rows, d_, d_qkv, ld_, p.g[CROSS_IN_BIAS]);
        linear_backward({rows, d_, ld_}, x1_.get(), d_qkv, columns_of(p, CROSS_IN, 0),
                        {d_x, ld_, true});
        column_sums(memory.pairs, 2 * d_, d_kv, ld_kv_, p.g[CROSS_IN_BIAS] + d_);
        linear_backward({memory.pairs, 2 * d_, ld_kv_}, memory.x, d_kv,
                        columns_of(p, CROSS_IN, d_), {d_memory, ld_, true});

        norm_backward(p, 0, wide, sites_[1], d_x, SELF_OUT_BIAS);
        linear_backward({rows, d_, ld_}, mixed1_.get(), branch, columns_of(p, SELF_OUT, 0),
                        {d_mixed, ld_});
        const int qkv_rows = s_.first ? memory.pairs : rows;
        const std::int32_t* const index = s_.first ? memory.index : nullptr;
        if (s_.first) std::fill(d_qkv, d_qkv + std::ptrdiff_t(qkv_rows) * ld_qkv_, 0.0f);
        self_->backward(mappings, self_rows(projected, memory.index), sites_[0].scale,
                        {saved1_.get(), mixed1_.get(), d_mixed, ld_},
                        {{d_qkv, ld_qkv_, index}, {d_qkv + d_, ld_qkv_, index},
                         {d_qkv + 2 * d_, ld_qkv_, index}});
        column_sums(qkv_rows, 3 * d_, d_qkv, ld_qkv_, p.g[SELF_IN_BIAS]);
        linear_backward({qkv_rows, 3 * d_, ld_qkv_}, s_.first ? memory.x : x, d_qkv,
                        columns_of(p, SELF_IN, 0), {s_.first ? d_memory : d_x, ld_, true});
    }

    const float* output() const { return output_.get(); }
    std::ptrdiff_t dropout_elements() const { return s_.dropout_elements(); }

  private:
    void multiply(int m, int n, const Factor& a, const Factor& b, const Product& c,
                  const float* bias) const {
        gemm(m, n, d_, a, b, c, scratch_.workspace.get(), {nullptr, bias});
    }

    static Columns columns_of(const LayerWeights& p, int weight, int first) {
        return {p.w[weight] + first, p.g[weight] + first, p.ld[weight]};
    }

    void linear_backward(const Extent& size, const float* x, const float* d_y, const Columns& w,
                         const Product& d_x) const {
        native::linear_backward(size, d_, x, ld_, d_y, w, d_x, scratch_.workspace.get());
    }

    FeedForwardWeights feed_forward_weights(const LayerWeights& p) const {
        return {p.w[UP], p.w[UP_BIAS], p.w[DOWN], p.w[DOWN_BIAS],
                p.g[UP], p.g[UP_BIAS], p.g[DOWN], p.ld[UP]};
    }

    Norm norm(const LayerWeights& p, int i) const {
        return {p.w[NORM1 + 2 * i], p.w[NORM1_BIAS + 2 * i], units_[i].get(), inverses_[i].get()};
    }

    // From the gradient d_x of norm i's result to that of its input, and that of the branch which
    // `branch_bias` ends, in scratch_.branch.
    void norm_backward(const LayerWeights& p, int i, const Extent& wide, const Dropping& site,
                       float* d_x, int branch_bias) const {
        const NormSums sums{p.g[NORM1 + 2 * i], p.g[NORM1_BIAS + 2 * i], p.g[branch_bias]};
        sums.clear(d_);
        add_norm_backward<false>(wide, site, norm(p, i), d_x, d_x, scratch_.branch.get(), sums);
    }

    DroppedRelu activation() const { return {sites_[4], s_.d_ff}; }

    // The self-attention's queries, keys and values are thirds of a row.
    Operands3 self_rows(const Projected& memory, const std::int32_t* index) const {
        float* const q = s_.first ? memory.qkv.get() : qkv_.get();
        if (!s_.first) index = nullptr;
        return {{q, ld_qkv_, index}, {q + d_, ld_qkv_, index}, {q + 2 * d_, ld_qkv_, index}};
    }

    // The cross-attention's keys and values are the memory's.
    Operands3 cross_rows(const Projected& memory, const std::int32_t* index) const {
        float* const k = memory.kv.get();
        return {{query_.get(), ld_}, {k, ld_kv_, index}, {k + d_, ld_kv_, index}};
    }

    // Sites in the module's order: self-attention, behind it, cross-attention, behind it, inside
    // the feed-forward block, behind it.
    void set_sites(const Dropping& dropping, int batch_size) {
        const std::ptrdiff_t T = s_.seq_len, rows = T * batch_size;
        const std::ptrdiff_t attention = rows * s_.heads * T;
        const std::ptrdiff_t sizes[6] = {attention,  rows * d_,      attention,
                                         rows * d_, rows * s_.d_ff, rows * d_};
        const std::uint16_t* draws = dropping.draws;
        for (int i = 0; i < 6; ++i) {
            sites_[i] = {draws, dropping.dropped, dropping.scale};
            if (draws) draws += sizes[i];
        }
    }

    const LayerShape s_;
    const int d_;
    const std::ptrdiff_t ld_, ld_qkv_, ld_kv_;
    FeedForward<DroppedRelu> feed_forward_;
    const std::unique_ptr<Attention> self_, cross_;
    LayerScratch& scratch_;
    Dropping sites_[6];
    Buffer<float> qkv_, saved1_, mixed1_, x1_, query_, saved2_, mixed2_, x2_, output_;
    Buffer<float> units_[3], inverses_[3];  // of the three norms
};

}  // namespace native
