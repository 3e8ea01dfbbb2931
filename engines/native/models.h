// The models of the library: a file each, made by a function each.
#pragma once

#include "model.h"

namespace native {

// Mirrored field by field by model.py; hidden_size is 0 without hidden layers.
struct MlpShape {
    std::int64_t hidden_size, num_layers;
};

// Likewise, of both transformers; hidden_size is d_model.
struct TransformerShape {
    std::int64_t hidden_size, d_ff, num_heads, num_layers;
};

// Throw std::bad_alloc when memory is short.
Model* make_mlp(const Settings& settings, const MlpShape& shape, const std::int64_t* inputs,
                const std::int64_t* labels);
Model* make_transformer(const Settings& settings, const TransformerShape& shape,
                        const std::int64_t* inputs, const std::int64_t* labels);
Model* make_decoder_only(const Settings& settings, const TransformerShape& shape,
                         const std::int64_t* inputs, const std::int64_t* labels);

}  // namespace native
