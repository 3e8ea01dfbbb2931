// What the layers of the transformers are made of besides attention: linear maps, the feed-forward
// block. Activations are (rows, features) with whole vectors as row stride.
#pragma once

#include "attention.h"
#include "gemm.h"
#include "model.h"

namespace native {

// How the module's weights around an attention block are stored: (in, out), and with narrow heads
// in their order of features.
struct AttentionStorage {
    Storage in{.transposed = true, .decays = true}, in_bias, out = in;

    AttentionStorage(int heads, int head_dim) {
        if (head_dim >= WIDE_HEAD_DIM) return;
        for (Storage* storage : {&in, &in_bias, &out}) {
            storage->by_feature = storage == &out ? Storage::ROWS : Storage::COLUMNS;
            storage->heads = heads, storage->head_dim = head_dim;
        }
    }
};

// Some columns of a weight, stored (in, out), and of its gradient.
struct Columns {
    const float* w;
    float* g;
    std::ptrdiff_t ld;
};

// For y = x W with W the given columns: their gradients, and that of x. `size` is that of y; x is
// (rows, in) with stride ld_x.
inline void linear_backward(const Extent& size, int in, const float* x, std::ptrdiff_t ld_x,
                            const float* d_y, const Columns& w, const Product& d_x,
                            float* workspace) {
    gemm(in, size.columns, size.rows, {x, ld_x, true}, {d_y, size.ld}, {w.g, w.ld}, workspace);
    gemm(size.rows, in, size.columns, {d_y, size.ld}, {w.w, w.ld, true}, d_x, workspace);
}

// Activations of the feed-forward block: the way there, for the columns of d_ff from `column` on,
// and the way back, from what the block keeps. RELU: gemm has applied it already. SLOPE: the
// derivatives are kept beside the results.

// ReLU, then dropout.
struct DroppedRelu {
    static constexpr bool RELU = true, SLOPE = false;
    Dropping site;
    int d_ff;

    void forward(const Extent& size, int column, float* x, float*) const {
        if (!site.draws) return;
        Dropping own = site;
        own.draws += column;
        drop(size, x, own, d_ff);
    }
    void backward(const Extent& size, const float* y, const float*, float* gradient,
                  float* sums) const {
        drop_relu_backward(size, y, site.scale, gradient, sums);
    }
};

struct GeluAlone {
    static constexpr bool RELU = false, SLOPE = true;

    void forward(const Extent& size, int, float* x, float* slope) const {
        gelu_rows(size, x, slope);
    }
    void backward(const Extent& size, const float*, const float* slope, float* gradient,
                  float* sums) const {
        gelu_backward(size, slope, gradient, sums);
    }
};

struct FeedForwardWeights {
    const float *up, *up_bias, *down, *down_bias;  // both matrices are (hidden_size, d_ff)
    float *d_up, *d_up_bias, *d_down;
    std::ptrdiff_t ld;  // of both
};

// Room that the blocks use in turn.
struct FeedForwardScratch {
    Buffer<float> turned, turned_other;  // (hidden_size, rows)
    Buffer<float> hidden;                // (rows, block of d_ff)
    Buffer<float> workspace;             // of gemm
};

// down(activation(up(x))), some columns of d_ff at a time. Products take the padding along: it is 0
// in the weights, and whole vectors are faster.
template <class Activation>
class FeedForward {
  public:
    // `rows` at most.
    FeedForward(int hidden_size, int d_ff, int rows, FeedForwardScratch& scratch)
        : d_(hidden_size),
          d_ff_(d_ff),
          block_(block_columns(rows)),
          ld_block_(block_ + STEP),
          ld_(round_up(hidden_size, VL)),
          scratch_(scratch) {
        const std::size_t size = std::size_t(rows) * ((d_ff + block_ - 1) / block_) * ld_block_;
        hidden_.resize(size);
        if (Activation::SLOPE) slopes_.resize(size);
    }

    static void allocate_scratch(int hidden_size, int rows, FeedForwardScratch& to) {
        for (Buffer<float>* b : {&to.turned, &to.turned_other}) {
            b->resize(std::size_t(hidden_size) * round_up(rows, VL));
        }
        to.hidden.resize(std::size_t(rows) * (block_columns(rows) + STEP));
        to.workspace.resize(GEMM_WORKSPACE);
    }

    // Sets `to`; keeps what the way back needs if `training`.
    void forward(const FeedForwardWeights& p, int rows, const float* x,
                 const Activation& activation, bool training, float* to) {
        for (int j = 0; j < d_ff_; j += block_) {
            const int width = std::min(block_, d_ff_ - j), columns = round_up(width, VL);
            float* const hidden = training ? block_of(hidden_, j, rows) : scratch_.hidden.get();
            float* const slopes =
                training && Activation::SLOPE ? block_of(slopes_, j, rows) : nullptr;
            gemm(rows, columns, d_, {x, ld_}, {p.up + j, p.ld}, {hidden, ld_block_},
                 scratch_.workspace.get(), {nullptr, p.up_bias + j, Activation::RELU});
            activation.forward({rows, width, ld_block_}, j, hidden, slopes);
            gemm(rows, d_, columns, {hidden, ld_block_}, {p.down + j, p.ld, true},
                 {to, ld_, j > 0}, scratch_.workspace.get(),
                 {nullptr, j == 0 ? p.down_bias : nullptr});
        }
    }

    // From the gradient d_y of the result; that of the last bias, its columns' sums, is left out.
    void backward(const FeedForwardWeights& p, int rows, const float* x, const float* d_y,
                  const Activation& activation, const Product& d_x) {
        float *const d_hidden = scratch_.hidden.get(), *const workspace = scratch_.workspace.get();
        // Turned once here rather than for every block in gemm().
        float* const turned_x = scratch_.turned.get();
        float* const turned_d = scratch_.turned_other.get();
        const std::ptrdiff_t ld_turned = round_up(rows, VL);
        transpose(rows, d_, x, ld_, turned_x, ld_turned);
        transpose(rows, d_, d_y, ld_, turned_d, ld_turned);
        for (int j = 0; j < d_ff_; j += block_) {
            const int width = std::min(block_, d_ff_ - j), columns = round_up(width, VL);
            const float* const hidden = block_of(hidden_, j, rows);
            const float* const slopes = Activation::SLOPE ? block_of(slopes_, j, rows) : nullptr;
            const Factor d_block{d_hidden, ld_block_};
            gemm(rows, columns, d_, {d_y, ld_}, {p.down + j, p.ld}, {d_hidden, ld_block_},
                 workspace);
            activation.backward({rows, width, ld_block_}, hidden, slopes, d_hidden,
                                p.d_up_bias + j);
            gemm(d_, columns, rows, {turned_d, ld_turned}, {hidden, ld_block_},
                 {p.d_down + j, p.ld}, workspace);
            gemm(d_, columns, rows, {turned_x, ld_turned}, d_block, {p.d_up + j, p.ld}, workspace);
            gemm(rows, d_, columns, d_block, {p.up + j, p.ld, true},
                 {d_x.data, d_x.ld, d_x.accumulate || j > 0}, workspace);
        }
    }

  private:
    // The blocks decide in what order the results are summed, so they are the same everywhere.
    static constexpr int STEP = 2 * VL;

    // Columns that are worked on at a time: with their rows about a third of a 512 KiB L2 cache.
    static int block_columns(int rows) {
        return std::clamp(round_up(40960 / rows, STEP), 4 * STEP, 32 * STEP);
    }

    // The block of `kept` that starts at column j, (rows, ld_block_).
    float* block_of(const Buffer<float>& kept, int j, int rows) const {
        return kept.get() + std::ptrdiff_t(j / block_) * rows * ld_block_;
    }

    const int d_, d_ff_, block_, ld_block_;
    const std::ptrdiff_t ld_;
    FeedForwardScratch& scratch_;
    Buffer<float> hidden_, slopes_;
};

}  // namespace native
