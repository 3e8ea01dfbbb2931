// The MLP: flattened one-hot input, ReLU layers, one linear output layer for all tokens of a label.
//
// Two layouts of an activation are in use. "Feature-major" (features x batch) is the layout of the
// matrix products with weights, the nonlinearities and the loss: the batch fills whole vectors
// whatever the layer's width. "Mapping-major" (batch x features) is what the one-hot layer and the
// products for weight gradients need. Weights are stored (in x out), so that the one-hot layer is
// a sum of seq_len rows of its weight.
//
// Columns of a feature-major matrix beyond the batch, up to whole vectors, hold numbers without
// meaning; columns never mix, and sums over the batch stop at its true size.
#include <array>
#include <utility>

#include "models.h"

namespace native {

namespace {

// to = bias + the `count` rows of w that start at the given offsets, for VECS vectors of columns.
template <int VECS>
void gather_rows(const float* bias, const float* w, const std::int32_t* offsets, int count,
                 float* to) {
    vec sum[VECS];
#pragma GCC unroll 16
    for (int v = 0; v < VECS; ++v) sum[v] = load(bias + v * VL);
    for (int i = 0; i < count; ++i) {
        const float* row = w + offsets[i];
#pragma GCC unroll 16
        for (int v = 0; v < VECS; ++v) sum[v] += load(row + v * VL);
    }
#pragma GCC unroll 16
    for (int v = 0; v < VECS; ++v) store(to + v * VL, sum[v]);
}

// Adds `from` to the `count` rows of g that start at the given offsets.
template <int VECS>
void scatter_rows(const float* from, const std::int32_t* offsets, int count, float* g) {
    vec x[VECS];
#pragma GCC unroll 16
    for (int v = 0; v < VECS; ++v) x[v] = load(from + v * VL);
    for (int i = 0; i < count; ++i) {
        float* row = g + offsets[i];
#pragma GCC unroll 16
        for (int v = 0; v < VECS; ++v) store(row + v * VL, load(row + v * VL) + x[v]);
    }
}

// Columns are handled in blocks of at most this many vectors: the block of a 100-row weight then
// stays in L1 while the batch goes by.
constexpr int BLOCK = 4;

template <int... I>
constexpr std::array<decltype(&gather_rows<1>), BLOCK> gathers(std::integer_sequence<int, I...>) {
    return {gather_rows<I + 1>...};
}
template <int... I>
constexpr std::array<decltype(&scatter_rows<1>), BLOCK> scatters(std::integer_sequence<int, I...>) {
    return {scatter_rows<I + 1>...};
}
constexpr auto GATHER = gathers(std::make_integer_sequence<int, BLOCK>());
constexpr auto SCATTER = scatters(std::make_integer_sequence<int, BLOCK>());

}  // namespace

class Mlp final : public Model {
  public:
    Mlp(const Settings& settings, const MlpShape& shape, const std::int64_t* inputs,
        const std::int64_t* labels)
        : Model(settings, inputs, labels),
          hidden_(int(shape.hidden_size)),
          layers_(int(shape.num_layers)),
          features_(vocab_ * seq_len_),
          classes_(int(settings.label_vocab_size)),
          outputs_(classes_ * label_len_),
          width_(round_up(std::max(largest_batch(), evaluation_rows_), VL)) {
        for (int l = 0; l <= layers_; ++l) {
            const int in = l == 0 ? features_ : hidden_, out = l == layers_ ? outputs_ : hidden_;
            add_parameter(out, in, {.transposed = true, .decays = true});
            add_parameter(1, out, {});
            activations_.emplace_back(std::size_t(out) * width_);
            by_mapping_.emplace_back(std::size_t(width_) * round_up(out, VL));
        }
        allocate(std::ptrdiff_t(hidden_) * layers_);
        delta_.resize(std::size_t(std::max(outputs_, hidden_)) * width_);
        next_delta_.resize(std::size_t(hidden_) * width_);
        offsets_.resize(std::size_t(width_) * seq_len_);
        label_columns_.resize(std::size_t(width_) * label_len_);
        rows_.resize(width_);
        workspace_.resize(GEMM_WORKSPACE);
        if (has_dropout()) {
            mask_.resize(std::size_t(width_) * hidden_);
            turned_mask_.resize(std::size_t(hidden_) * width_);
        }
    }

  protected:
    void compute_gradient(const std::int32_t* rows, int count) override {
        forward(rows, count, has_dropout());
        const int columns = round_up(count, VL);
        const float scale = 1.0f / float(counted(rows, count));
        float* delta = delta_.get();  // gradient of a layer's output before its ReLU, (out, batch)
        float* next = next_delta_.get();
        for (int t = 0; t < label_len_; ++t) {
            const std::ptrdiff_t at = std::ptrdiff_t(t) * classes_ * width_;
            softmax_gradient(logits(t, count), scale, delta + at, width_);
        }
        for (int l = layers_; l >= 0; --l) {
            const int out = l == layers_ ? outputs_ : hidden_;
            const std::ptrdiff_t ld_out = ld(2 * l);
            float* by_mapping = by_mapping_[l].get();
            transpose(out, count, delta, width_, by_mapping, ld_out);
            column_sums(count, int(ld_out), by_mapping, ld_out, gradient(2 * l + 1));
            if (l == 0) {
                one_hot_gradient(by_mapping, count);
                return;
            }
            const float* x = activations_[l - 1].get();
            gemm(hidden_, int(ld_out), count, {x, width_}, {by_mapping, ld_out},
                 {gradient(2 * l), ld_out}, workspace_.get());
            gemm(hidden_, columns, out, {weight(2 * l), ld_out}, {delta, width_}, {next, width_},
                 workspace_.get());
            // A dropped element of x is 0 and is stopped like one that the ReLU cut.
            relu_backward(std::ptrdiff_t(hidden_) * width_, x, next);
            if (has_dropout()) {
                const float kept = float(settings_.mask_scale);
                for (int i = 0; i < hidden_ * width_; ++i) next[i] *= kept;
            }
            std::swap(delta, next);
        }
    }

    void evaluate_rows(int first, int count, Score& score) override {
        for (int j = 0; j < count; ++j) rows_[j] = first + j;
        forward(rows_.get(), count, false);
        for (int t = 0; t < label_len_; ++t) add_score(logits(t, count), score);
    }

  private:
    // The logits of position t, class-major.
    Logits logits(int t, int count) const {
        const float* own = activations_[layers_].get() + std::ptrdiff_t(t) * classes_ * width_;
        return {classes_, count, own, width_, label_columns_.get() + t * width_};
    }

    // Fills activations_ (feature-major, after ReLU and dropout; the last holds the logits).
    void forward(const std::int32_t* rows, int count, bool drop) {
        for (int j = 0; j < count; ++j) {
            const std::int32_t *input = inputs(rows[j]), *label = labels(rows[j]);
            for (int t = 0; t < seq_len_; ++t) {
                offsets_[j * seq_len_ + t] = std::int32_t((t * vocab_ + input[t]) * ld(0));
            }
            for (int t = 0; t < label_len_; ++t) label_columns_[t * width_ + j] = label[t];
        }
        float* first = by_mapping_[0].get();
        const Blocks blocks(int(ld(0)) / VL, BLOCK);
        for (int b = 0; b < blocks.count; ++b) {
            const int start = blocks.start(b) * VL, vecs = blocks.start(b + 1) - blocks.start(b);
            const auto gather = GATHER[vecs - 1];
            for (int j = 0; j < count; ++j) {
                gather(weight(1) + start, weight(0) + start, &offsets_[j * seq_len_], seq_len_,
                       first + j * ld(0) + start);
            }
        }
        transpose(count, layers_ == 0 ? outputs_ : hidden_, first, ld(0), activations_[0].get(),
                  width_);
        if (layers_ == 0) return;
        float* x = activations_[0].get();
        for (int i = 0; i < hidden_ * width_; ++i) x[i] = x[i] < 0 ? 0.0f : x[i];
        for (int l = 1; l <= layers_; ++l) {
            if (drop) apply_mask(l - 1, count);
            gemm(l == layers_ ? outputs_ : hidden_, round_up(count, VL), hidden_,
                 {weight(2 * l), ld(2 * l), true}, {activations_[l - 1].get(), width_},
                 {activations_[l].get(), width_}, workspace_.get(),
                 {weight(2 * l + 1), nullptr, l < layers_});
        }
    }

    void apply_mask(int layer, int count) {
        const std::uint16_t* site = draws() + std::ptrdiff_t(layer) * batch_size_ * hidden_;
        mask_from_draws(std::ptrdiff_t(count) * hidden_, site, int(settings_.dropped),
                        float(settings_.mask_scale), mask_.get());
        transpose(count, hidden_, mask_.get(), hidden_, turned_mask_.get(), width_);
        float* x = activations_[layer].get();
        for (int i = 0; i < hidden_ * width_; ++i) x[i] *= turned_mask_[i];
    }

    void one_hot_gradient(const float* by_mapping, int count) {
        float* g = gradient(0);
        std::fill(g, g + features_ * ld(0), 0.0f);
        const Blocks blocks(int(ld(0)) / VL, BLOCK);
        for (int b = 0; b < blocks.count; ++b) {
            const int start = blocks.start(b) * VL, vecs = blocks.start(b + 1) - blocks.start(b);
            const auto scatter = SCATTER[vecs - 1];
            for (int j = 0; j < count; ++j) {
                scatter(by_mapping + j * ld(0) + start, &offsets_[j * seq_len_], seq_len_,
                        g + start);
            }
        }
    }

    const int hidden_, layers_, features_, classes_, outputs_, width_;
    std::vector<Buffer<float>> activations_, by_mapping_;
    Buffer<float> delta_, next_delta_, mask_, turned_mask_, workspace_;
    Buffer<std::int32_t> offsets_, label_columns_, rows_;
};

Model* make_mlp(const Settings& settings, const MlpShape& shape, const std::int64_t* inputs,
                const std::int64_t* labels) {
    return new Mlp(settings, shape, inputs, labels);
}

}  // namespace native
