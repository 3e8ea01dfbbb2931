// The transformer: embeddings, decoder layers over the embedded input, which is also their memory,
// and a linear head on every position.
#include "transformer_layer.h"

#include "embedding.h"
#include "models.h"

namespace native {

namespace {

// The distinct pairs of some mappings, embedded, and what every layer makes of them alone.
struct PairSet : EmbeddedRows {
    Buffer<float> x;
    std::vector<Projected> projected;

    Memory memory(std::ptrdiff_t first_token = 0) const {
        return {count(), x.get(), index.get() + first_token};
    }
};

class Transformer final : public Model {
  public:
    Transformer(const Settings& settings, const LayerShape& shape, int num_layers,
                const std::int64_t* inputs, const std::int64_t* labels)
        : Model(settings, inputs, labels),
          d_(shape.hidden_size),
          ld_(shape.ld()),
          ld_logits_(round_up(vocab_, VL)),
          mappings_(std::max(batch_size_, evaluation_rows_)),
          pairs_(vocab_, seq_len_) {
        const int rows = mappings_ * seq_len_;
        const std::int64_t kinds = std::int64_t(vocab_) * seq_len_;
        const int batch_pairs = int(std::min<std::int64_t>(kinds, batch_size_ * seq_len_));
        const Storage decaying{.decays = true};
        token_embedding_ = add_parameter(vocab_, d_, decaying);
        position_embedding_ = add_parameter(seq_len_, d_, decaying);
        DecoderLayer::allocate_scratch(shape, rows, batch_pairs, scratch_);
        layers_.reserve(num_layers);  // so that no layer is lost when memory runs out
        for (int l = 0; l < num_layers; ++l) {
            LayerShape own = shape;
            own.first = l == 0;
            layer_parameters_.push_back(add_layer_parameters(own));
            layers_.emplace_back(new DecoderLayer(own, mappings_, scratch_));
        }
        head_ = add_parameter(vocab_, d_, decaying);
        head_bias_ = add_parameter(1, vocab_, {});
        allocate(num_layers * shape.dropout_elements());

        batch_.index.resize(std::size_t(batch_size_) * seq_len_);
        find_all_pairs();
        for (auto [pairs, count] : {std::pair(&batch_, batch_pairs), {&all_, all_.count()}}) {
            pairs->x.resize(std::size_t(count) * ld_);
            pairs->projected.resize(num_layers);
            for (int l = 0; l < num_layers; ++l) {
                layers_[l]->allocate_projected(count, pairs->projected[l]);
            }
        }
        x_.resize(std::size_t(rows) * ld_);
        d_x_.resize(std::size_t(rows) * ld_);
        d_memory_.resize(std::size_t(batch_pairs) * ld_);
        logits_.resize(std::size_t(rows) * ld_logits_);
        batch_labels_.resize(rows);
        softmax_.resize(std::size_t(vocab_) * VL);
    }

  protected:
    void compute_gradient(const std::int32_t* rows, int count) override {
        const int tokens = count * seq_len_, num_layers = int(layers_.size());
        pairs_.find(count, [&](int j) { return inputs(rows[j]); }, batch_);
        for (int j = 0; j < count; ++j) {
            std::copy(labels(rows[j]), labels(rows[j]) + seq_len_, &batch_labels_[j * seq_len_]);
        }
        prepare(batch_);
        const Memory memory = batch_.memory();
        Dropping dropping;
        if (has_dropout()) {
            dropping = {draws(), int(settings_.dropped), float(settings_.mask_scale)};
        }
        forward(count, memory.index, batch_, true, dropping);

        const float* const top = layers_.back()->output();
        float* const workspace = scratch_.workspace.get();
        const float scale = 1.0f / float(counted(rows, count));
        softmax_gradient_rows({vocab_, tokens, logits_.get(), ld_logits_, batch_labels_.get()},
                              scale, logits_.get(), ld_logits_, softmax_.get());
        column_sums(tokens, vocab_, logits_.get(), ld_logits_, gradient(head_bias_));
        gemm(vocab_, d_, tokens, {logits_.get(), ld_logits_, true}, {top, ld_},
             {gradient(head_), ld(head_)}, workspace);
        gemm(tokens, d_, vocab_, {logits_.get(), ld_logits_}, {weight(head_), ld(head_)},
             {d_x_.get(), ld_}, workspace);
        std::fill(d_memory_.get(), d_memory_.get() + memory.pairs * ld_, 0.0f);
        for (int l = num_layers - 1; l >= 0; --l) {
            layers_[l]->backward(layer_weights(l), count, l ? layers_[l - 1]->output() : x_.get(),
                                 memory, batch_.projected[l], d_x_.get(), d_memory_.get());
        }
        embedding_gradient(tokens);
    }

    void evaluate_rows(int first, int count, Score& score) override {
        if (first == 0) prepare(all_);  // the weights may have changed since the last evaluation
        forward(count, all_.memory(std::ptrdiff_t(first) * seq_len_).index, all_, false, {});
        add_score_rows({vocab_, count * seq_len_, logits_.get(), ld_logits_, labels(first)}, score,
                       softmax_.get());
    }

  private:
    int add_layer_parameters(const LayerShape& shape) {
        const AttentionStorage attention(shape.heads, shape.head_dim());
        const int first = next_parameter();
        for (int block = 0; block < 2; ++block) {  // self-attention, cross-attention
            add_parameter(3 * d_, d_, attention.in);
            add_parameter(1, 3 * d_, attention.in_bias);
            add_parameter(d_, d_, attention.out);
            add_parameter(1, d_, {});
        }
        add_parameter(shape.d_ff, d_, {.transposed = true, .decays = true});
        add_parameter(1, shape.d_ff, {});
        add_parameter(d_, shape.d_ff, {.decays = true});
        for (int i = 0; i < 7; ++i) add_parameter(1, d_, {});  // its bias, three norms
        return first;
    }

    LayerWeights layer_weights(int layer) const {
        LayerWeights p;
        for (int i = 0; i < LAYER_PARAMETERS; ++i) {
            const int index = layer_parameters_[layer] + i;
            p.w[i] = weight(index), p.g[i] = gradient(index), p.ld[i] = ld(index);
        }
        return p;
    }

    void find_all_pairs() {
        all_.index.resize(std::size_t(settings_.n) * seq_len_);
        pairs_.find(int(settings_.n), [&](int j) { return inputs(j); }, all_);
    }

    // Embeds the pairs and lets every layer project them.
    void prepare(PairSet& pairs) {
        Embeddings{weight(token_embedding_), weight(position_embedding_), ld_}.embed(
            pairs, pairs.x.get());
        for (std::size_t l = 0; l < layers_.size(); ++l) {
            layers_[l]->project(layer_weights(int(l)), pairs.memory(), pairs.projected[l]);
        }
    }

    // Leaves logits_ (count * T, vocab).
    void forward(int count, const std::int32_t* index, const PairSet& pairs, bool training,
                 const Dropping& dropping) {
        const int tokens = count * seq_len_;
        for (int r = 0; r < tokens; ++r) {
            const float* from = pairs.x.get() + index[r] * ld_;
            std::copy(from, from + ld_, x_.get() + r * ld_);
        }
        const float* x = x_.get();
        Dropping own = dropping;
        for (std::size_t l = 0; l < layers_.size(); ++l) {
            x = layers_[l]->forward(layer_weights(int(l)), count, x, index, pairs.projected[l],
                                    training, own, batch_size_);
            if (own.draws) own.draws += layers_[l]->dropout_elements() * batch_size_;
        }
        gemm(tokens, vocab_, d_, {x, ld_}, {weight(head_), ld(head_), true},
             {logits_.get(), ld_logits_}, scratch_.workspace.get(),
             {nullptr, weight(head_bias_)});
    }

    // The first layer's input is the memory too; both gradients go to the pairs' two embeddings.
    void embedding_gradient(int tokens) {
        for (int r = 0; r < tokens; ++r) {
            const float* from = d_x_.get() + r * ld_;
            float* to = d_memory_.get() + batch_.index[r] * ld_;
            for (int j = 0; j < ld_; ++j) to[j] += from[j];
        }
        float* const token = gradient(token_embedding_);
        float* const position = gradient(position_embedding_);
        std::fill(token, token + vocab_ * ld_, 0.0f);
        std::fill(position, position + seq_len_ * ld_, 0.0f);
        Embeddings{token, position, ld_}.add(batch_, d_memory_.get());
    }

    const int d_;
    const std::ptrdiff_t ld_, ld_logits_;
    const int mappings_;
    int token_embedding_, position_embedding_, head_, head_bias_;
    std::vector<int> layer_parameters_;
    std::vector<std::unique_ptr<DecoderLayer>> layers_;
    LayerScratch scratch_;
    PairFinder pairs_;
    PairSet batch_, all_;
    Buffer<std::int32_t> batch_labels_;
    Buffer<float> x_, d_x_, d_memory_, logits_, softmax_;
};

}  // namespace

Model* make_transformer(const Settings& settings, const TransformerShape& shape,
                        const std::int64_t* inputs, const std::int64_t* labels) {
    const LayerShape layer{int(settings.seq_len), int(shape.hidden_size), int(shape.d_ff),
                           int(shape.num_heads)};
    return new Transformer(settings, layer, int(shape.num_layers), inputs, labels);
}

}  // namespace native
