// What every natively trained model shares: the data, flat parameters with their AdamW state, the
// epoch loop and the evaluation. A model adds its parameters' layout and its two passes.
//
// A model owns all its memory and runs on the thread that calls it, so nothing that is trained
// beside it can change its numbers.
#pragma once

#include <span>
#include <vector>

#include "gemm.h"
#include "kernels.h"
#include "memory.h"

namespace native {

// Mirrored field by field by `Settings` in model.py.
struct Settings {
    // seq_len: tokens of an example as the model reads it, not of a mapping's input. label_len:
    // positions that it answers, of which each has a label out of label_vocab_size, or none.
    std::int64_t n, vocab_size, seq_len, label_vocab_size, label_len, batch_size;
    double weight_decay, beta1, beta2, epsilon, grad_clip;
    std::int64_t has_dropout, dropped;  // 16-bit draws below `dropped` zero an element
    double mask_scale;
    std::uint64_t mask_state[4];  // SFC64
};

// How the library stores a parameter of the torch module, unlike the module itself.
struct Storage {
    bool transposed = false;  // element (i, j) of the module's tensor is (j, i) here
    bool decays = false;      // by AdamW's weight decay
    // Attention's narrow heads: along the stored rows or columns, of which each group of heads *
    // head_dim holds feature e of head h at h * head_dim + e in the module, at e * heads + h here.
    enum { NONE, ROWS, COLUMNS } by_feature = NONE;
    int heads = 1, head_dim = 1;
};

// One parameter, stored as (rows, columns) with row stride ld, a multiple of VL. Padding stays 0.
struct Parameter {
    int rows, columns;
    std::ptrdiff_t ld, offset;
    Storage storage;
};

class Model {
  public:
    virtual ~Model() = default;

    // One optimiser step per batch of `order`, a permutation of 0..n-1 or its beginning, with a
    // learning rate each. Returns false, without a step, if a row does not exist.
    bool train_epoch(std::span<const std::int64_t> order, const double* learning_rates);
    // Score of the whole set, dropout off.
    Score evaluate();

    // The weights as the module's parameters in named_parameters order, each dense.
    void import_weights(const float* from);
    void export_weights(float* to) const;
    // How many numbers that is.
    std::int64_t parameter_count() const;
    // The weights as stored, for cheap copies.
    Buffer<float>& weights() { return weights_; }

  protected:
    // `inputs` are (n, seq_len), `labels` (n, label_len). Where a label is negative no prediction
    // counts.
    Model(const Settings& settings, const std::int64_t* inputs, const std::int64_t* labels);

    // Declares the module's next parameter, a tensor (rows, columns); returns its index.
    int add_parameter(int rows, int columns, const Storage& storage);
    int next_parameter() const { return int(parameters_.size()); }
    // Call once after the last add_parameter. `mask_elements`: dropout elements per mapping.
    void allocate(std::ptrdiff_t mask_elements);

    // Set every gradient() to that of the mean loss over the counted tokens of `count` mappings,
    // given by their rows in the data. Padding of gradients must be left 0. Masks of the step:
    // draws().
    virtual void compute_gradient(const std::int32_t* rows, int count) = 0;
    // Add the score of mappings first .. first + count - 1; count <= evaluation_rows.
    virtual void evaluate_rows(int first, int count, Score& score) = 0;

    float* weight(int index) const { return weights_.get() + parameters_[index].offset; }
    float* gradient(int index) const { return gradients_.get() + parameters_[index].offset; }
    std::ptrdiff_t ld(int index) const { return parameters_[index].ld; }
    const std::int32_t* inputs(int row) const { return inputs_.get() + row * seq_len_; }
    const std::int32_t* labels(int row) const { return labels_.get() + row * label_len_; }
    // Of these mappings, the labels that count.
    int counted(const std::int32_t* rows, int count) const {
        int sum = 0;
        for (int j = 0; j < count; ++j) sum += counted_[rows[j]];
        return sum;
    }
    // The first position at which some mapping's label counts.
    int first_counted() const { return first_counted_; }
    // 16-bit draws of this step: for each dropout site in order, batch_size rows of its elements.
    const std::uint16_t* draws() const { return draws_.get(); }
    int largest_batch() const { return int(std::min(settings_.batch_size, settings_.n)); }
    bool has_dropout() const { return settings_.has_dropout != 0; }

    const Settings settings_;
    const int vocab_, seq_len_, label_len_, batch_size_;
    int evaluation_rows_ = 32;

  private:
    void apply_gradient(double learning_rate);
    // visit(offset in the stored weights, offset in the dense tensors) for every weight.
    template <class Visit>
    void each_weight(const Visit& visit) const;

    Buffer<std::int32_t> inputs_, labels_, counted_;
    int first_counted_;
    std::vector<Parameter> parameters_;
    Buffer<float> weights_, gradients_, first_moment_, second_moment_;
    Buffer<std::uint16_t> draws_;
    std::ptrdiff_t mask_elements_ = 0;
    Sfc64 masks_;
    AdamW adamw_;
};

}  // namespace native
