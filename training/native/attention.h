// Scaled dot-product attention over short sequences: what its two implementations share.
//
// Tokens are rows (mapping * T + position) of matrices. Keys and values that depend on (position,
// token) alone are stored once per such pair, and tokens find them through an index.
#pragma once

#include "memory.h"
#include "passes.h"

namespace native {

// Rows of a matrix by token: row index[r] if there is an index, else row r.
struct Operand {
    float* data;
    std::ptrdiff_t ld;
    const std::int32_t* index = nullptr;

    float* row(std::ptrdiff_t r) const { return data + (index ? index[r] : r) * ld; }
};

// A head takes head_dim of the hidden_size = heads * head_dim columns of each matrix.
struct AttentionShape {
    int seq_len, heads, head_dim;
    bool causal;

    // Number of keys that the query at `position` sees.
    int visible(int position) const { return causal ? position + 1 : seq_len; }
    // First query that sees the key at `position`.
    int first_query(int position) const { return causal ? position : 0; }
};

class Attention {
  public:
    virtual ~Attention() = default;

    // Floats to keep from the forward to the backward pass over so many mappings.
    virtual std::ptrdiff_t saved_size(int mappings) const = 0;

    // out (mappings * T, hidden_size) = dropout(softmax(q k^T / sqrt(head_dim))) v per head. The
    // draws are (mappings, heads, T, T). `saved` may be null when no backward pass follows.
    virtual void forward(int mappings, const Operand& q, const Operand& k, const Operand& v,
                         const Dropping& dropping, float* saved, float* out,
                         std::ptrdiff_t ld_out) = 0;

    // Gradients of q, k, v from that of the output. Rows of a gradient that are found through an
    // index are added to, others are overwritten.
    virtual void backward(int mappings, const Operand& q, const Operand& k, const Operand& v,
                          float mask_scale, const float* saved, const float* out,
                          const float* d_out, std::ptrdiff_t ld_out, const Operand& d_q,
                          const Operand& d_k, const Operand& d_v) = 0;
};

// The `attention_create` of an attention library, which the transformer's library is handed. For
// heads of fewer than WIDE_HEAD_DIM (libraries.py) features attention_narrow.cpp makes one: rows
// hold feature e of head h at column e * heads + h. For others attention_wide.cpp does: the feature
// is at column h * head_dim + e.
typedef Attention* AttentionFactory(const AttentionShape* shape);

constexpr std::int32_t SIGN_BIT = std::int32_t(0x80000000u);

}  // namespace native
