#include "model.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace native {

namespace {

// Subnormal numbers count as 0 while this lives. The moments of a unit without gradient decay into
// them within a thousand steps, and some processors are a hundred times slower on them.
//
// Processors differ in one case: a result below 2^-126 that rounds to 2^-126 stays on x86, which
// looks after rounding, and is flushed on ARM, which looks before.
class FlushSubnormals {
  public:
#if defined(__SSE__)
    // And rounding to nearest, whatever the caller's mode.
    FlushSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr((saved_ & ~0x6000u) | 0x8040u); }
    ~FlushSubnormals() { _mm_setcsr(saved_); }

  private:
    unsigned saved_;
#elif defined(__aarch64__)
    FlushSubnormals() {
        asm volatile("mrs %0, fpcr" : "=r"(saved_));
        asm volatile("msr fpcr, %0" ::"r"(saved_ | (std::uint64_t(1) << 24)) : "memory");
    }
    ~FlushSubnormals() { asm volatile("msr fpcr, %0" ::"r"(saved_) : "memory"); }

  private:
    std::uint64_t saved_;
#endif
};

}  // namespace

Model::Model(const Settings& settings, const std::int64_t* inputs, const std::int64_t* labels)
    : settings_(settings),
      vocab_(int(settings.vocab_size)),
      seq_len_(int(settings.seq_len)),
      label_len_(int(settings.label_len)),
      batch_size_(int(settings.batch_size)),
      inputs_(settings.n * settings.seq_len),
      labels_(settings.n * settings.label_len),
      counted_(settings.n),
      first_counted_(label_len_ - 1),
      masks_(settings.mask_state),
      adamw_(settings.beta1, settings.beta2, settings.epsilon) {
    std::copy(inputs, inputs + inputs_.size(), inputs_.get());
    std::copy(labels, labels + labels_.size(), labels_.get());
    for (std::int64_t i = 0; i < settings.n * settings.label_len; ++i) {
        if (labels[i] < 0) continue;
        ++counted_[i / label_len_];
        first_counted_ = std::min(first_counted_, int(i % label_len_));
    }
}

int Model::add_parameter(int rows, int columns, const Storage& storage) {
    if (storage.transposed) std::swap(rows, columns);
    const std::ptrdiff_t ld = round_up(columns, VL);
    std::ptrdiff_t offset = 0;
    if (!parameters_.empty()) {
        const Parameter& last = parameters_.back();
        offset = last.offset + last.rows * last.ld;
    }
    parameters_.push_back({rows, columns, ld, offset, storage});
    return next_parameter() - 1;
}

void Model::allocate(std::ptrdiff_t mask_elements) {
    const Parameter& last = parameters_.back();
    for (Buffer<float>* buffer : {&weights_, &gradients_, &first_moment_, &second_moment_}) {
        buffer->resize(last.offset + last.rows * last.ld);
    }
    mask_elements_ = mask_elements;
    if (has_dropout()) draws_.resize(batch_size_ * mask_elements + VL);
}

template <class Visit>
void Model::each_weight(const Visit& visit) const {
    std::ptrdiff_t dense = 0;
    for (const Parameter& p : parameters_) {
        const Storage& own = p.storage;
        const auto in_module = [&own](int i, bool turned) {
            if (!turned) return i;
            const int size = own.heads * own.head_dim, group = i / size, rest = i % size;
            return group * size + rest % own.heads * own.head_dim + rest / own.heads;
        };
        for (int i = 0; i < p.rows; ++i) {
            const std::ptrdiff_t row = in_module(i, own.by_feature == Storage::ROWS);
            for (int j = 0; j < p.columns; ++j) {
                const std::ptrdiff_t column = in_module(j, own.by_feature == Storage::COLUMNS);
                visit(p.offset + i * p.ld + j, dense + (own.transposed ? column * p.rows + row
                                                                       : row * p.columns + column));
            }
        }
        dense += std::ptrdiff_t(p.rows) * p.columns;
    }
}

std::int64_t Model::parameter_count() const {
    std::int64_t count = 0;
    for (const Parameter& p : parameters_) count += std::int64_t(p.rows) * p.columns;
    return count;
}

void Model::import_weights(const float* from) {
    each_weight([&](std::ptrdiff_t stored, std::ptrdiff_t dense) {
        weights_[stored] = from[dense];
    });
}

void Model::export_weights(float* to) const {
    each_weight([&](std::ptrdiff_t stored, std::ptrdiff_t dense) {
        to[dense] = weights_[stored];
    });
}

bool Model::train_epoch(std::span<const std::int64_t> order, const double* learning_rates) {
    const FlushSubnormals flush;
    const std::int64_t size = order.size();
    std::vector<std::int32_t> rows(size);
    for (std::int64_t i = 0; i < size; ++i) {
        if (order[i] < 0 || order[i] >= settings_.n) return false;
        rows[i] = std::int32_t(order[i]);
    }
    for (std::int64_t start = 0; start < size; start += batch_size_) {
        const int count = int(std::min<std::int64_t>(batch_size_, size - start));
        // A short last batch takes as much of the stream as a full one.
        if (has_dropout()) masks_.draw(batch_size_ * mask_elements_, draws_.get());
        compute_gradient(rows.data() + start, count);
        apply_gradient(*learning_rates++);
    }
    return true;
}

void Model::apply_gradient(double learning_rate) {
    float clip = 1;
    if (settings_.grad_clip > 0) {
        const double squares = sum_of_squares(gradients_.size(), gradients_.get());
        clip = clip_factor(settings_.grad_clip, sqrt(squares));
    }
    adamw_.next_step(learning_rate, settings_.weight_decay);
    for (const Parameter& p : parameters_) {
        adamw_.update(p.rows * p.ld, weights_.get() + p.offset, gradients_.get() + p.offset,
                      first_moment_.get() + p.offset, second_moment_.get() + p.offset, clip,
                     p.storage.decays);
    }
}

Score Model::evaluate() {
    const FlushSubnormals flush;
    Score score;
    for (std::int64_t start = 0; start < settings_.n; start += evaluation_rows_) {
        const std::int64_t count = std::min<std::int64_t>(evaluation_rows_, settings_.n - start);
        evaluate_rows(int(start), int(count), score);
    }
    return score;
}

}  // namespace native
