// Embedded tokens. An embedding depends on (position, token) alone, and a batch holds few distinct
// pairs of them.
#pragma once

#include <vector>

#include "memory.h"
#include "vector.h"

namespace native {

// Rows to embed: tokens one by one, or the distinct pairs of some mappings, which tokens find
// through an index.
struct EmbeddedRows {
    std::vector<std::int32_t> positions, tokens;
    Buffer<std::int32_t> index;  // (mappings * T,): row of each token

    int count() const { return int(tokens.size()); }
};

class PairFinder {
  public:
    PairFinder(int vocab, int seq_len)
        : vocab_(vocab), seq_len_(seq_len), pair_of_(std::size_t(vocab) * seq_len) {}

    // Pairs of `count` mappings, in the order of their first appearance; input(j) has mapping j's
    // tokens.
    template <class Input>
    void find(int count, const Input& input, EmbeddedRows& to) {
        std::fill(pair_of_.get(), pair_of_.get() + pair_of_.size(), -1);
        to.positions.clear(), to.tokens.clear();
        for (int j = 0; j < count; ++j) {
            const std::int32_t* own = input(j);
            for (int t = 0; t < seq_len_; ++t) {
                std::int32_t& pair = pair_of_[std::size_t(t) * vocab_ + own[t]];
                if (pair < 0) {
                    pair = to.count();
                    to.positions.push_back(t), to.tokens.push_back(own[t]);
                }
                to.index[std::size_t(j) * seq_len_ + t] = pair;
            }
        }
    }

  private:
    const int vocab_, seq_len_;
    Buffer<std::int32_t> pair_of_;
};

// Matrices with the row stride ld: a row per token, a row per position.
struct Embeddings {
    float *token, *position;
    std::ptrdiff_t ld;

    // to (rows, ld) = the sum of each one's two embeddings.
    void embed(const EmbeddedRows& rows, float* to) const {
        for (int i = 0; i < rows.count(); ++i) {
            const float* of_token = token + rows.tokens[i] * ld;
            const float* of_position = position + rows.positions[i] * ld;
            for (int j = 0; j < ld; ++j) to[i * ld + j] = of_token[j] + of_position[j];
        }
    }

    // Where these are gradients: adds those of the rows, (rows, ld).
    void add(const EmbeddedRows& rows, const float* gradient) const {
        for (int i = 0; i < rows.count(); ++i) {
            const float* from = gradient + i * ld;
            for (int j = 0; j < ld; ++j) {
                token[rows.tokens[i] * ld + j] += from[j];
                position[rows.positions[i] * ld + j] += from[j];
            }
        }
    }
};

}  // namespace native
