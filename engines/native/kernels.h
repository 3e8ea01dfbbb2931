// The steps of training besides matrix products: activations, loss, dropout draws, AdamW.
//
// "Class-major" means that one column is one token (or mapping): the V logits of column j are
// logits[v * ld + j]. Vectors then run across columns and no sum crosses lanes.
#pragma once

#include "vector.h"

namespace native {

// exp(x) to about 1e-7 relative for x <= 88; 0 below -87.3, where floats turn subnormal.
FOR_VECTORS V exp(V x) {
    // x = n log 2 + r with |r| <= log(2) / 2. Adding 1.5 * 2^23 rounds to the nearest integer and
    // leaves it in the low bits; log 2 comes in two parts so that r keeps its precision.
    const V shifted = fma(x, 1.44269504f, 12582912.0f);
    const V n = shifted - 12582912.0f;
    const V r = fma(n, -1.428606765330187e-06f, fma(n, -0.693145751953125f, x));
    // (exp(r) - 1 - r) / r^2 by Chebyshev interpolation: relative error of the whole 1e-8.
    V q = fma(r, 0.0013933732407167554f, 0.008363235741853714f);
    q = fma(q, r, 0.041666463017463684f);
    q = fma(q, r, 0.16666576266288757f);
    q = fma(q, r, 0.5f);
    const V power = from_bits<V>((unsigned_bits(shifted) << 23) + (127u << 23));  // 2^n
    return select(x < -87.3f, V{}, fma(fma(q, r, 1.0f), r, 1.0f) * power);
}

// log(x) to about 2e-7 relative or 6e-8 absolute, for finite x >= 2^-126; NaN stays NaN.
inline vec log(vec x) {
    // x = 2^n m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s) with s = (m - 1) / (m + 1).
    const ivec above = reinterpret_cast<ivec>(unsigned_bits(x) - 0x3f3504f3u);
    const vec n = __builtin_convertvector(above >> 23, vec);
    const vec m = from_bits((above & 0x7fffff) + 0x3f3504f3);
    const vec s = (m - 1.0f) / (m + 1.0f), square = s * s;
    vec q = fma(square, 2.0f / 9, 2.0f / 7);
    q = fma(q, square, 2.0f / 5);
    q = fma(q, square, 2.0f / 3);
    const vec small = fma(s, 2.0f, fma(s * square, q, n * 1.428606765330187e-06f));
    const vec y = fma(n, 0.693145751953125f, small);
    return select(x == x, y, x);
}

// GELU and its derivative, as GPT-2 has it: x / 2 (1 + tanh(u)), u = sqrt(2 / pi) (x + c x^3) with
// c = 0.044715. (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)), without what cancels where x < 0.
template <class V>
struct Gelu {
    V value, slope;
};

template <class V>
Gelu<V> gelu(V x) {
    constexpr float A = 1.5957691216057308f, B = 0.0713548162726f;  // sqrt(8 / pi), c of it
    const V square = x * x, minus_2u = x * fma(square, -B, -A);
    const auto vanishes = minus_2u > 80.0f;  // beyond 88 there is no exp
    const V e = exp(select(vanishes, splat<V>(80.0f), minus_2u));
    const V share = select(vanishes, V{}, 1.0f / (e + 1.0f)), value = x * share;
    return {value, fma(value * (e * share), fma(square, 3 * B, A), share)};
}

// Logits with their tokens' labels; a token with a negative label does not count. Class-major:
// token j has the V logits data[v * ld + j]. Token-major: data[j * ld + v].
struct Logits {
    int vocab, tokens;
    const float* data;
    std::ptrdiff_t ld;
    const std::int32_t* labels;
};

// Gradient of scale * (sum of cross-entropies in nats) with respect to class-major logits.
// Works on whole vectors: columns up to the next multiple of VL are read and written.
inline void softmax_gradient(const Logits& logits, float scale, float* gradient,
                             std::ptrdiff_t ld_gradient) {
    for (int j = 0; j < logits.tokens; j += VL) {
        const float* x = logits.data + j;
        float* to = gradient + j;
        vec highest = load(x);
        for (int v = 1; v < logits.vocab; ++v) {
            const vec y = load(x + v * logits.ld);
            highest = select(y > highest, y, highest);
        }
        vec sum{};
        for (int v = 0; v < logits.vocab; ++v) {
            const vec y = exp(load(x + v * logits.ld) - highest);
            store(to + v * ld_gradient, y);
            sum += y;
        }
        const ivec label = load_ints(logits.labels + j);
        const vec factor = select(label >= 0, scale / sum, vec{});
        for (int v = 0; v < logits.vocab; ++v) {
            const vec hit = select(label == v, splat(scale), vec{});
            store(to + v * ld_gradient, fma(load(to + v * ld_gradient), factor, -hit));
        }
    }
}

// Sum of cross-entropies in nats, and number of tokens whose label has the (first) highest logit;
// over the tokens that count.
struct Score {
    double loss = 0;
    std::int64_t correct = 0;
};

// Add the score of class-major logits; columns up to the next multiple of VL are read. A token with
// a NaN logit is wrong and makes the loss NaN.
inline void add_score(const Logits& logits, Score& score) {
    vec loss{};
    ivec hits{};
    for (int j = 0; j < logits.tokens; j += VL) {
        const float* x = logits.data + j;
        const ivec label = load_ints(logits.labels + j);
        vec highest = load(x), at_label = highest;
        ivec choice{}, has_nan = highest != highest;
        for (int v = 1; v < logits.vocab; ++v) {
            const vec y = load(x + v * logits.ld);
            choice = y > highest ? (ivec{} + v) : choice;
            highest = select(y > highest, y, highest);
            at_label = select(label == v, y, at_label);
            has_nan |= y != y;
        }
        vec sum{};
        for (int v = 0; v < logits.vocab; ++v) sum += exp(load(x + v * logits.ld) - highest);
        const ivec exists = (lanes() < logits.tokens - j) & (label >= 0);
        loss += select(exists, log(sum) + (highest - at_label), vec{});
        hits += (choice == label) & ~has_nan & exists;  // a true lane is -1
    }
    for (int i = 0; i < VL; ++i) {
        score.loss += loss[i];
        score.correct -= hits[i];
    }
}

// Turns token-major logits into class-major ones, VL tokens at a time: visit(first token, logits).
// `scratch`: vocab * VL floats.
template <class Visit>
void each_vector(const Logits& logits, float* scratch, const Visit& visit) {
    for (int j = 0; j < logits.tokens; j += VL) {
        const int count = std::min(VL, logits.tokens - j);
        std::int32_t labels[VL] = {};
        std::copy(logits.labels + j, logits.labels + j + count, labels);
        if (count < VL) std::fill(scratch, scratch + logits.vocab * VL, 0.0f);
        transpose(count, logits.vocab, logits.data + j * logits.ld, logits.ld, scratch, VL);
        visit(j, Logits{logits.vocab, count, scratch, VL, labels});
    }
}

// The same two for token-major logits.
inline void softmax_gradient_rows(const Logits& logits, float scale, float* gradient,
                                  std::ptrdiff_t ld_gradient, float* scratch) {
    each_vector(logits, scratch, [&](int j, const Logits& turned) {
        softmax_gradient(turned, scale, scratch, VL);
        transpose(turned.vocab, turned.tokens, scratch, VL, gradient + j * ld_gradient,
                  ld_gradient);
    });
}

inline void add_score_rows(const Logits& logits, Score& score, float* scratch) {
    each_vector(logits, scratch, [&](int, const Logits& turned) { add_score(turned, score); });
}

// gradient = 0 where the ReLU's output y is 0. As in torch, a NaN output lets it through.
inline void relu_backward(std::ptrdiff_t count, const float* y, float* gradient) {
    for (std::ptrdiff_t i = 0; i < count; ++i) gradient[i] = y[i] <= 0 ? 0.0f : gradient[i];
}

// out (columns,) = sums over the rows of x (rows, columns): the gradient of a bias.
inline void column_sums(int rows, int columns, const float* x, std::ptrdiff_t ld, float* out) {
    int j = 0;
    for (; j + 2 * VL <= columns; j += 2 * VL) {
        vec left{}, right{};
        for (int i = 0; i < rows; ++i) {
            left += load(x + i * ld + j);
            right += load(x + i * ld + j + VL);
        }
        store(out + j, left);
        store(out + j + VL, right);
    }
    for (; j < columns; ++j) {
        float sum = 0;
        for (int i = 0; i < rows; ++i) sum += x[i * ld + j];
        out[j] = sum;
    }
}

// NumPy's SFC64 bit generator, continued from its state (`bit_generator.state["state"]["state"]`).
class Sfc64 {
  public:
    explicit Sfc64(const std::uint64_t state[4])
        : a_(state[0]), b_(state[1]), c_(state[2]), counter_(state[3]) {}

    std::uint64_t next() {
        const std::uint64_t word = a_ + b_ + counter_++;
        a_ = b_ ^ (b_ >> 11);
        b_ = c_ + (c_ << 3);
        c_ = ((c_ << 24) | (c_ >> 40)) + word;
        return word;
    }

    // `count` 16-bit draws, taken from whole words, the lowest bits first; `draws` must have room
    // for the last word.
    void draw(std::ptrdiff_t count, std::uint16_t* draws) {
        static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a word is copied as it is");
        Sfc64 local = *this;  // stores to `draws` cannot alias it, so its state stays in registers
        for (std::ptrdiff_t i = 0; i < count; i += 4) {
            const std::uint64_t word = local.next();
            std::memcpy(draws + i, &word, sizeof word);
        }
        *this = local;
    }

  private:
    std::uint64_t a_, b_, c_, counter_;
};

// Dropout masks from draws: 0 for draws below `dropped`, otherwise `scale`.
inline void mask_from_draws(std::ptrdiff_t count, const std::uint16_t* draws, int dropped,
                            float scale, float* mask) {
    for (std::ptrdiff_t i = 0; i < count; ++i) {
        mask[i] = std::int32_t(draws[i]) >= dropped ? scale : 0.0f;
    }
}

// Sum of squares; floats are summed in short runs and the runs in double.
inline double sum_of_squares(std::ptrdiff_t count, const float* x) {
    double total = 0;
    std::ptrdiff_t i = 0;
    for (; i + 4 * VL <= count;) {
        const std::ptrdiff_t end = std::min(count, i + 64 * VL);
        vec sum[4] = {};
        for (; i + 4 * VL <= end; i += 4 * VL) {
#pragma GCC unroll 4
            for (int u = 0; u < 4; ++u) {
                const vec y = load(x + i + u * VL);
                sum[u] = fma(y, y, sum[u]);
            }
        }
        const vec run = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        for (int lane = 0; lane < VL; ++lane) total += run[lane];
    }
    for (; i < count; ++i) total += double(x[i]) * x[i];
    return total;
}

// What clip_grad_norm_ multiplies gradients with; a norm of NaN makes every gradient NaN.
inline float clip_factor(double max_norm, double norm) {
    const double factor = max_norm / (norm + 1e-6);
    return factor >= 1 ? 1.0f : float(factor);
}

// torch.optim.AdamW's formula; the coefficients of a step are computed in double.
class AdamW {
  public:
    AdamW(double beta1, double beta2, double epsilon)
        : beta1_(beta1), beta2_(beta2), epsilon_(epsilon) {}

    // The next step's coefficients. Powers of the betas are accumulated: pow() rounds differently
    // from one mathematical library to the next.
    void next_step(double learning_rate, double weight_decay) {
        power1_ *= beta1_, power2_ *= beta2_;
        decay_ = float(1 - learning_rate * weight_decay);
        step_size_ = float(learning_rate / (1 - power1_));
        root_scale_ = float(1 / sqrt(1 - power2_));
    }

    // One step for `count` parameters p with gradients g * clip and moments m, v.
    void update(std::ptrdiff_t count, float* __restrict p, const float* __restrict g,
                float* __restrict m, float* __restrict v, float clip, bool decays) const {
        const float keep = decays ? decay_ : 1.0f, step_size = step_size_;
        const float root_scale = root_scale_, epsilon = float(epsilon_);
        const float beta1 = float(beta1_), beta2 = float(beta2_);
        const float new1 = float(1 - beta1_), new2 = float(1 - beta2_);
        for (std::ptrdiff_t i = 0; i < count; ++i) {
            const float gradient = g[i] * clip;
            m[i] = fma(m[i], beta1, gradient * new1);
            v[i] = fma(v[i], beta2, gradient * gradient * new2);
            const float denominator = fma(sqrt(v[i]), root_scale, epsilon);
            p[i] = fma(p[i], keep, -(step_size * m[i] / denominator));
        }
    }

  private:
    const double beta1_, beta2_, epsilon_;
    double power1_ = 1, power2_ = 1;
    float decay_ = 1, step_size_ = 0, root_scale_ = 1;
};

}  // namespace native
