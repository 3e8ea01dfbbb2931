// Scaled dot-product attention over short sequences: what its two implementations share.
//
// Tokens are rows (mapping * T + position) of matrices. Where nothing is made of the answers at the
// first positions, their queries and mixtures do not exist: the rows of the others follow each
// other, mapping by mapping. Keys and values that depend on (position, token) alone are stored once
// per such pair, and tokens find them through an index.
#pragma once

#include <memory>

#include "memory.h"
#include "passes.h"

namespace native {

// Heads with fewer features than this are computed with other heads in the lanes of a vector.
constexpr int WIDE_HEAD_DIM = 16;

// Rows of a matrix by token: row index[r] if there is an index, else row r.
struct Operand {
    float* data;
    std::ptrdiff_t ld;
    const std::int32_t* index = nullptr;

    float* row(std::ptrdiff_t r) const { return data + (index ? index[r] : r) * ld; }
};

// Queries, keys and values, or their gradients.
struct Operands3 {
    Operand q, k, v;
};

// A head takes head_dim of the hidden_size = heads * head_dim columns of each matrix.
struct AttentionShape {
    int seq_len, heads, head_dim;
    bool causal;
    int first = 0;  // position that has a query, as all behind it have

    // Queries of a mapping.
    int queries() const { return seq_len - first; }
    // Number of keys that query i sees.
    int visible(int i) const { return causal ? first + i + 1 : seq_len; }
    // First query that sees the key at `position`.
    int first_query(int position) const { return causal ? std::max(0, position - first) : 0; }
    // What scores are multiplied with.
    float temperature() const { return 1 / sqrt(float(head_dim)); }
};

// What the forward pass leaves for the backward pass, and the gradient of its output.
struct AttentionOutput {
    const float *saved, *out, *d_out;
    std::ptrdiff_t ld;  // of out and d_out
};

class Attention {
  public:
    virtual ~Attention() = default;

    // Floats to keep from the forward to the backward pass over so many mappings.
    virtual std::ptrdiff_t saved_size(int mappings) const = 0;

    // out (queries, hidden_size) = dropout(softmax(q k^T / sqrt(head_dim))) v per head. The draws
    // are (mappings, heads, T, T), whether a position has a query or not. `saved` may be null when
    // no backward pass follows.
    virtual void forward(int mappings, const Operands3& from, const Dropping& dropping,
                         float* saved, float* out, std::ptrdiff_t ld_out) = 0;

    // Gradients of q, k, v from that of the output. Rows of a gradient that are found through an
    // index are added to, others are overwritten.
    virtual void backward(int mappings, const Operands3& from, float mask_scale,
                          const AttentionOutput& output, const Operands3& gradients) = 0;
};

// For heads of fewer than WIDE_HEAD_DIM features: rows hold feature e of head h at column
// e * heads + h.
std::unique_ptr<Attention> make_narrow_attention(const AttentionShape& shape);
// For others: the feature is at column h * head_dim + e.
std::unique_ptr<Attention> make_wide_attention(const AttentionShape& shape);

inline std::unique_ptr<Attention> make_attention(const AttentionShape& shape) {
    return shape.head_dim < WIDE_HEAD_DIM ? make_narrow_attention(shape)
                                          : make_wide_attention(shape);
}

constexpr std::int32_t SIGN_BIT = std::int32_t(0x80000000u);

}  // namespace native
