// The steps of training besides matrix products: activations, loss, dropout draws, AdamW.
//
// "Class-major" means that one column is one token (or mapping): the V logits of column j are
// logits[v * ld + j]. Vectors then run across columns and no sum crosses lanes.
#pragma once

#include <cstring>

#include "gemm.h"

namespace native {

inline ivec bits(vec x) { return reinterpret_cast<ivec>(x); }
inline vec from_bits(ivec x) { return reinterpret_cast<vec>(x); }
inline vec select(ivec mask, vec yes, vec no) { return mask ? yes : no; }
inline ivec load_ints(const std::int32_t* p) {
    ivec x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

inline ivec lanes() {  // 0, 1, 2, ...
    ivec x;
    for (int i = 0; i < VL; ++i) x[i] = i;
    return x;
}

// As in <cmath>, which would take longer to compile than they do.
inline float sqrt(float x) { return __builtin_sqrtf(x); }
inline double sqrt(double x) { return __builtin_sqrt(x); }

// exp(x) to about 1e-7 relative for x <= 88; 0 below -87.3, where floats turn subnormal.
inline vec exp(vec x) {
    // x = n log 2 + r with |r| <= log(2) / 2. Adding 1.5 * 2^23 rounds to the nearest integer and
    // leaves it in the low bits; log 2 comes in two parts so that r keeps its precision.
    const vec shifted = x * 1.44269504f + 12582912.0f;
    const vec n = shifted - 12582912.0f;
    const vec r = x - n * 0.693145751953125f - n * 1.428606765330187e-06f;
    // (exp(r) - 1 - r) / r^2 by Chebyshev interpolation: relative error of the whole 1e-8.
    vec q = r * 0.0013933732407167554f + 0.008363235741853714f;
    q = q * r + 0.041666463017463684f;
    q = q * r + 0.16666576266288757f;
    q = q * r + 0.5f;
    const vec power = from_bits((bits(shifted) << 23) + (127 << 23));  // 2^n
    return select(x < -87.3f, vec{}, ((q * r + 1.0f) * r + 1.0f) * power);
}

// log(x) to about 2e-7 relative or 6e-8 absolute, for finite x >= 2^-126; NaN stays NaN.
inline vec log(vec x) {
    // x = 2^n m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s) with s = (m - 1) / (m + 1).
    const ivec above = bits(x) - 0x3f3504f3;
    const vec n = __builtin_convertvector(above >> 23, vec);
    const vec m = from_bits((above & 0x7fffff) + 0x3f3504f3);
    const vec s = (m - 1.0f) / (m + 1.0f), square = s * s;
    vec q = square * (2.0f / 9) + 2.0f / 7;
    q = q * square + 2.0f / 5;
    q = q * square + 2.0f / 3;
    const vec y = n * 0.693145751953125f + (s * square * q + n * 1.428606765330187e-06f + s * 2.0f);
    return select(x == x, y, x);
}

// Gradient of scale * (sum of cross-entropies in nats) with respect to class-major logits.
// Works on whole vectors: columns up to the next multiple of VL are read and written.
inline void softmax_gradient(int vocab, int columns, const float* logits, std::ptrdiff_t ld,
                             const std::int32_t* labels, float scale, float* gradient,
                             std::ptrdiff_t ld_gradient) {
    for (int j = 0; j < columns; j += VL) {
        const float* x = logits + j;
        float* to = gradient + j;
        vec highest = load(x);
        for (int v = 1; v < vocab; ++v) {
            const vec y = load(x + v * ld);
            highest = select(y > highest, y, highest);
        }
        vec sum{};
        for (int v = 0; v < vocab; ++v) {
            const vec y = exp(load(x + v * ld) - highest);
            store(to + v * ld_gradient, y);
            sum += y;
        }
        const vec factor = scale / sum;
        const ivec label = load_ints(labels + j);
        for (int v = 0; v < vocab; ++v) {
            const vec hit = select(label == v, splat(scale), vec{});
            store(to + v * ld_gradient, load(to + v * ld_gradient) * factor - hit);
        }
    }
}

// Sum of cross-entropies in nats, and number of tokens whose label has the (first) highest logit.
struct Score {
    double loss = 0;
    std::int64_t correct = 0;
};

// Add the score of class-major logits; columns up to the next multiple of VL are read. A token with
// a NaN logit is wrong and makes the loss NaN.
inline void add_score(int vocab, int columns, const float* logits, std::ptrdiff_t ld,
                      const std::int32_t* labels, Score& score) {
    vec loss{};
    ivec hits{};
    for (int j = 0; j < columns; j += VL) {
        const float* x = logits + j;
        const ivec label = load_ints(labels + j);
        vec highest = load(x), at_label = highest;
        ivec choice{}, has_nan = highest != highest;
        for (int v = 1; v < vocab; ++v) {
            const vec y = load(x + v * ld);
            choice = y > highest ? (ivec{} + v) : choice;
            highest = select(y > highest, y, highest);
            at_label = select(label == v, y, at_label);
            has_nan |= y != y;
        }
        vec sum{};
        for (int v = 0; v < vocab; ++v) sum += exp(load(x + v * ld) - highest);
        const ivec exists = lanes() < columns - j;
        loss += select(exists, log(sum) + (highest - at_label), vec{});
        hits += (choice == label) & ~has_nan & exists;  // a true lane is -1
    }
    for (int i = 0; i < VL; ++i) {
        score.loss += loss[i];
        score.correct -= hits[i];
    }
}

// The same two for token-major logits (tokens, vocab), which are turned VL tokens at a time.
// `scratch`: vocab * VL floats.
inline void softmax_gradient_rows(int vocab, int tokens, const float* logits, std::ptrdiff_t ld,
                                  const std::int32_t* labels, float scale, float* gradient,
                                  std::ptrdiff_t ld_gradient, float* scratch) {
    for (int j = 0; j < tokens; j += VL) {
        const int lanes = std::min(VL, tokens - j);
        std::int32_t label[VL] = {};
        std::copy(labels + j, labels + j + lanes, label);
        if (lanes < VL) std::fill(scratch, scratch + vocab * VL, 0.0f);
        transpose(lanes, vocab, logits + j * ld, ld, scratch, VL);
        softmax_gradient(vocab, lanes, scratch, VL, label, scale, scratch, VL);
        transpose(vocab, lanes, scratch, VL, gradient + j * ld_gradient, ld_gradient);
    }
}

inline void add_score_rows(int vocab, int tokens, const float* logits, std::ptrdiff_t ld,
                           const std::int32_t* labels, Score& score, float* scratch) {
    for (int j = 0; j < tokens; j += VL) {
        const int lanes = std::min(VL, tokens - j);
        std::int32_t label[VL] = {};
        std::copy(labels + j, labels + j + lanes, label);
        if (lanes < VL) std::fill(scratch, scratch + vocab * VL, 0.0f);
        transpose(lanes, vocab, logits + j * ld, ld, scratch, VL);
        add_score(vocab, lanes, scratch, VL, label, score);
    }
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

    // `count` 16-bit draws, taken from whole words and viewed as memory, as NumPy does; `draws`
    // must have room for the last word.
    void draw(std::ptrdiff_t count, std::uint16_t* draws) {
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
            for (int u = 0; u < 4; ++u) sum[u] += load(x + i + u * VL) * load(x + i + u * VL);
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

// Coefficients of AdamW at step t = 1, 2, ...: torch.optim.AdamW's formula, scalars in double.
struct AdamW {
    float decay, beta1, beta2, new1, new2, step_size, root_scale, epsilon;

    AdamW(std::int64_t t, double learning_rate, double weight_decay, double b1, double b2,
          double eps)
        : decay(1 - learning_rate * weight_decay),
          beta1(b1),
          beta2(b2),
          new1(1 - b1),
          new2(1 - b2),
          step_size(learning_rate / (1 - __builtin_pow(b1, double(t)))),
          root_scale(1 / sqrt(1 - __builtin_pow(b2, double(t)))),
          epsilon(eps) {}

    // One step for `count` parameters p with gradients g * clip and moments m, v.
    void update(std::ptrdiff_t count, float* __restrict p, const float* __restrict g,
                float* __restrict m, float* __restrict v, float clip, bool decays) const {
        const AdamW k = *this;
        const float keep = decays ? k.decay : 1.0f;
        for (std::ptrdiff_t i = 0; i < count; ++i) {
            const float gradient = g[i] * clip;
            m[i] = m[i] * k.beta1 + gradient * k.new1;
            v[i] = v[i] * k.beta2 + gradient * gradient * k.new2;
            const float denominator = sqrt(v[i]) * k.root_scale + k.epsilon;
            p[i] = p[i] * keep - k.step_size * m[i] / denominator;
        }
    }
};

}  // namespace native
