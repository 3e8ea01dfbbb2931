// The decoder-only model: GPT-2 in the small, the token embedding as its head.
//
// With dropout on the embedding every token has a row of its own in training. Without, and in
// evaluation, the rows of the first layer are the distinct (position, token) pairs.
#include "decoder_only_layer.h"

#include "embedding.h"
#include "models.h"

namespace native {

namespace {

using namespace decoder_only;

// What the first layer reads, with the rows of the tokens that it makes something of.
struct InputRows : EmbeddedRows {
    Buffer<std::int32_t> used;
};

class DecoderOnly final : public Model {
  public:
    DecoderOnly(const Settings& settings, const LayerShape& shape, int num_layers,
                const std::int64_t* inputs, const std::int64_t* labels)
        : Model(settings, inputs, labels),
          d_(shape.hidden_size),
          ld_(shape.ld()),
          ld_logits_(round_up(vocab_, VL)),
          first_(first_counted()),
          answers_(seq_len_ - first_),
          mappings_(std::max(batch_size_, evaluation_rows_)),
          pairs_(vocab_, seq_len_) {
        all_.index.resize(std::size_t(settings_.n) * seq_len_);
        pairs_.find(int(settings_.n), [&](int j) { return this->inputs(j); }, all_);
        const int tokens = mappings_ * seq_len_, rows = std::max(tokens, all_.count());
        const Storage decaying{.decays = true};
        token_embedding_ = add_parameter(vocab_, d_, decaying);
        position_embedding_ = add_parameter(seq_len_, d_, decaying);
        Layer::allocate_scratch(shape, tokens, rows, scratch_);
        layers_.reserve(num_layers);  // so that no layer is lost when memory runs out
        for (int l = 0; l < num_layers; ++l) {
            LayerShape own = shape;
            own.embedding = l == 0;
            own.first = l == num_layers - 1 ? first_ : 0;
            shapes_.push_back(own);
            layer_parameters_.push_back(add_layer_parameters(own));
            layers_.emplace_back(new Layer(own, mappings_, own.embedding ? rows : tokens,
                                           scratch_));
        }
        norm_ = add_parameter(1, d_, {});
        add_parameter(1, d_, {});
        allocate(shape.stream_elements() + num_layers * shape.dropout_elements());

        for (int j = 0; j < mappings_; ++j) {
            for (int t = first_; t < seq_len_; ++t) used_.push_back(j * seq_len_ + t);
        }
        batch_.index.resize(tokens);
        set_used(int(settings_.n), all_);
        embedded_.resize(std::size_t(rows) * ld_);
        unused_.resize(ld_);
        last_.resize(std::size_t(mappings_) * answers_, ld_);
        logits_.resize(std::size_t(mappings_) * answers_ * ld_logits_);
        labels_of_answers_.resize(std::size_t(mappings_) * answers_);
        softmax_.resize(std::size_t(vocab_) * VL);
    }

  protected:
    void compute_gradient(const std::int32_t* rows, int count) override {
        Dropping dropping;
        if (has_dropout()) {
            dropping = {draws(), int(settings_.dropped), float(settings_.mask_scale)};
            list_tokens(rows, count);
        } else {
            pairs_.find(count, [&](int j) { return inputs(rows[j]); }, batch_);
            set_used(count, batch_);
        }
        const Sum embedding_sum{LayerShape{seq_len_, d_}, dropping};
        const Source first = has_dropout() ? source(0, count) : pair_source(batch_, 0);
        embed(batch_, embedding_sum);
        layers_[0]->project(layer_weights(0), first);
        forward(count, first, dropping, true);
        copy_labels(count, [&](int j) { return labels(rows[j]); });

        const int answers = count * answers_, num_layers = int(layers_.size());
        float* const workspace = scratch_.workspace.get();
        float *const d_y = scratch_.d_y.get(), *const branch = scratch_.branch.get();
        float* d_x = scratch_.d_x.get();
        softmax_gradient_rows(logits_of(answers), 1.0f / float(counted(rows, count)),
                              logits_.get(), ld_logits_, softmax_.get());
        gemm(vocab_, d_, answers, {logits_.get(), ld_logits_, true}, {last_.y.get(), ld_},
             {gradient(token_embedding_), ld_}, workspace);
        gemm(answers, d_, vocab_, {logits_.get(), ld_logits_}, {weight(token_embedding_), ld_},
             {d_y, ld_}, workspace);
        layers_.back()->last_sum().backward<false>(answers, last_, last_norm(), d_y, d_x, branch,
                                                   layer_weights(num_layers - 1).g[DOWN_BIAS]);
        for (int l = num_layers - 1; l >= 0; --l) {
            const LayerWeights p = layer_weights(l);
            const Source from = l == 0 ? first : source(l, count);
            d_x = layers_[l]->backward(p, count, from, d_x);
            const Sum& before = l == 0 ? embedding_sum : layers_[l - 1]->last_sum();
            before.backward<true>(from.rows, layers_[l]->input(), Layer::input_norm(p), d_y, d_x,
                                  branch,
                                  l == 0 ? unused_.get() : layer_weights(l - 1).g[DOWN_BIAS]);
        }
        float* const position = gradient(position_embedding_);
        std::fill(position, position + seq_len_ * ld_, 0.0f);
        Embeddings{gradient(token_embedding_), position, ld_}.add(batch_, branch);
    }

    void evaluate_rows(int first, int count, Score& score) override {
        const Source all = pair_source(all_, first);
        if (first == 0) {  // the weights may have changed since the last evaluation
            embed(all_, {LayerShape{seq_len_, d_}, {}});
            layers_[0]->project(layer_weights(0), all);
        }
        forward(count, all, {}, false);
        copy_labels(count, [&](int j) { return labels(first + j); });
        add_score_rows(logits_of(count * answers_), score, softmax_.get());
    }

  private:
    int add_layer_parameters(const LayerShape& shape) {
        const AttentionStorage attention(shape.heads, shape.head_dim());
        const int first = add_parameter(1, d_, {});
        add_parameter(1, d_, {});
        add_parameter(3 * d_, d_, attention.in);
        add_parameter(1, 3 * d_, attention.in_bias);
        add_parameter(d_, d_, attention.out);
        for (int i = 0; i < 3; ++i) add_parameter(1, d_, {});  // its bias, the second norm
        add_parameter(shape.d_ff, d_, {.transposed = true, .decays = true});
        add_parameter(1, shape.d_ff, {});
        add_parameter(d_, shape.d_ff, {.decays = true});
        add_parameter(1, d_, {});
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

    NormWeights last_norm() const {
        return {weight(norm_), weight(norm_ + 1), gradient(norm_), gradient(norm_ + 1)};
    }

    Logits logits_of(int answers) const {
        return {vocab_, answers, logits_.get(), ld_logits_, labels_of_answers_.get()};
    }

    // batch_ = every token of these mappings.
    void list_tokens(const std::int32_t* rows, int count) {
        batch_.positions.clear(), batch_.tokens.clear();
        for (int j = 0; j < count; ++j) {
            for (int t = 0; t < seq_len_; ++t) {
                batch_.positions.push_back(t), batch_.tokens.push_back(inputs(rows[j])[t]);
            }
        }
    }

    // The pairs of the tokens of which the first layer makes something.
    void set_used(int count, InputRows& rows) const {
        const int first = shapes_[0].first, used = shapes_[0].used();
        if (rows.used.size() == 0) rows.used.resize(rows.index.size() / seq_len_ * used);
        for (int j = 0; j < count; ++j) {
            const std::int32_t* own = rows.index.get() + std::ptrdiff_t(j) * seq_len_;
            std::copy(own + first, own + seq_len_, rows.used.get() + std::ptrdiff_t(j) * used);
        }
    }

    // What layer l reads where every token has a row.
    Source source(int l, int count) const {
        return {count * seq_len_, nullptr, shapes_[l].first > 0 ? used_.data() : nullptr};
    }
    // What the first layer reads of pairs, for mappings from `mapping` on.
    Source pair_source(const InputRows& rows, std::ptrdiff_t mapping) const {
        return {rows.count(), rows.index.get() + mapping * seq_len_,
                rows.used.get() + mapping * shapes_[0].used()};
    }

    // Leaves embedded_ and the norm that the first layer begins with.
    void embed(const InputRows& rows, const Sum& sum) {
        float* const branch = scratch_.branch.get();
        Embeddings{weight(token_embedding_), weight(position_embedding_), ld_}.embed(rows, branch);
        sum.forward(rows.count(), nullptr, branch, Layer::input_norm(layer_weights(0)),
                    embedded_.get(), layers_[0]->input());
    }

    // Leaves logits_ (count * answers, vocab). The first layer has projected its input.
    void forward(int count, const Source& first, const Dropping& dropping, bool training) {
        const int num_layers = int(layers_.size());
        Dropping own = dropping;
        if (own.draws) own.draws += batch_size_ * shapes_[0].stream_elements();
        float* x = embedded_.get();
        for (int l = 0; l < num_layers; ++l) {
            Layer& layer = *layers_[l];
            const LayerWeights p = layer_weights(l);
            const Source from = l == 0 ? first : source(l, count);
            if (l > 0) layer.project(p, from);
            x = layer.forward(p, count, from, x, training, own, batch_size_);
            const bool last = l == num_layers - 1;
            layer.last_sum().forward(
                count * shapes_[l].used(), x, scratch_.branch.get(),
                last ? last_norm() : Layer::input_norm(layer_weights(l + 1)), x,
                last ? last_ : layers_[l + 1]->input());
            if (own.draws) own.draws += batch_size_ * shapes_[l].dropout_elements();
        }
        gemm(count * answers_, vocab_, d_, {last_.y.get(), ld_},
             {weight(token_embedding_), ld_, true}, {logits_.get(), ld_logits_},
             scratch_.workspace.get());
    }

    template <class LabelsOf>
    void copy_labels(int count, const LabelsOf& labels_of) {
        for (int j = 0; j < count; ++j) {
            const std::int32_t* own = labels_of(j);
            std::copy(own + first_, own + seq_len_, labels_of_answers_.get() + j * answers_);
        }
    }

    const int d_;
    const std::ptrdiff_t ld_, ld_logits_;
    const int first_, answers_, mappings_;
    int token_embedding_, position_embedding_, norm_;
    std::vector<int> layer_parameters_;
    std::vector<LayerShape> shapes_;
    std::vector<std::unique_ptr<Layer>> layers_;
    LayerScratch scratch_;
    PairFinder pairs_;
    InputRows batch_, all_;
    std::vector<std::int32_t> used_;  // rows of the answers where every token has one
    Normed last_;
    Buffer<std::int32_t> labels_of_answers_;
    Buffer<float> embedded_, unused_, logits_, softmax_;
};

}  // namespace

Model* make_decoder_only(const Settings& settings, const TransformerShape& shape,
                         const std::int64_t* inputs, const std::int64_t* labels) {
    const LayerShape layer{int(settings.seq_len), int(shape.hidden_size), int(shape.d_ff),
                           int(shape.num_heads)};
    return new DecoderOnly(settings, layer, int(shape.num_layers), inputs, labels);
}

}  // namespace native
