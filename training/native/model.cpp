#include "model.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace native {

namespace {

// Subnormal numbers count as 0 while this lives. The moments of a unit without gradient decay into
// them within a thousand steps, and some processors are a hundred times slower on them.
class FlushSubnormals {
  public:
#if defined(__SSE__)
    FlushSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
    ~FlushSubnormals() { _mm_setcsr(saved_); }

  private:
    unsigned saved_;
#elif defined(__aarch64__)
    FlushSubnormals() {
        asm volatile("mrs %0, fpcr" : "=r"(saved_));
        asm volatile("msr fpcr, %0" ::"r"(saved_ | (std::uint64_t(1) << 24)));
    }
    ~FlushSubnormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

  private:
    std::uint64_t saved_;
#endif
};

}  // namespace

Model::Model(const Settings& settings, const std::int64_t* inputs, const std::int64_t* labels)
    : settings_(settings),
      vocab_(int(settings.vocab_size)),
      seq_len_(int(settings.seq_len)),
      batch_size_(int(settings.batch_size)),
      inputs_(settings.n * settings.seq_len),
      labels_(settings.n * settings.seq_len),
      masks_(settings.mask_state) {
    std::copy(inputs, inputs + inputs_.size(), inputs_.get());
    std::copy(labels, labels + labels_.size(), labels_.get());
}

int Model::add_parameter(int rows, int columns, bool transposed, bool decays) {
    if (transposed) std::swap(rows, columns);
    const std::ptrdiff_t ld = round_up(columns, VL);
    std::ptrdiff_t offset = 0;
    if (!parameters_.empty()) {
        const Parameter& last = parameters_.back();
        offset = last.offset + last.rows * last.ld;
    }
    parameters_.push_back({rows, columns, ld, offset, transposed, decays});
    return int(parameters_.size()) - 1;
}

void Model::allocate(std::ptrdiff_t mask_elements) {
    const Parameter& last = parameters_.back();
    for (Buffer<float>* buffer : {&weights_, &gradients_, &first_moment_, &second_moment_}) {
        buffer->resize(last.offset + last.rows * last.ld);
    }
    mask_elements_ = mask_elements;
    if (has_dropout()) draws_.resize(batch_size_ * mask_elements + 4);
}

void Model::import_weights(const float* from) {
    for (const Parameter& p : parameters_) {
        float* to = weights_.get() + p.offset;
        if (p.transposed) {
            transpose(p.columns, p.rows, from, p.rows, to, p.ld);
        } else {
            for (int i = 0; i < p.rows; ++i) {
                std::copy(from + i * p.columns, from + (i + 1) * p.columns, to + i * p.ld);
            }
        }
        from += std::ptrdiff_t(p.rows) * p.columns;
    }
}

void Model::export_weights(float* to) const {
    for (const Parameter& p : parameters_) {
        const float* from = weights_.get() + p.offset;
        if (p.transposed) {
            transpose(p.rows, p.columns, from, p.ld, to, p.rows);
        } else {
            for (int i = 0; i < p.rows; ++i) {
                std::copy(from + i * p.ld, from + i * p.ld + p.columns, to + i * p.columns);
            }
        }
        to += std::ptrdiff_t(p.rows) * p.columns;
    }
}

double Model::train_epoch(const std::int64_t* order) {
    const FlushSubnormals flush;
    const std::int64_t n = settings_.n;
    std::vector<std::int32_t> rows(n);
    for (std::int64_t i = 0; i < n; ++i) {
        if (order[i] < 0 || order[i] >= n) return __builtin_nan("");
        rows[i] = std::int32_t(order[i]);
    }
    double learning_rate = 0;
    for (std::int64_t start = 0; start < n; start += batch_size_) {
        const int count = int(std::min<std::int64_t>(batch_size_, n - start));
        learning_rate = settings_.learning_rate * double(settings_.total_steps - step_) /
                        double(settings_.total_steps);
        // A short last batch takes as much of the stream as a full one.
        if (has_dropout()) masks_.draw(batch_size_ * mask_elements_, draws_.get());
        compute_gradient(rows.data() + start, count);
        ++step_;
        apply_gradient(learning_rate);
    }
    return learning_rate;
}

void Model::apply_gradient(double learning_rate) {
    float clip = 1;
    if (settings_.grad_clip > 0) {
        const double squares = sum_of_squares(gradients_.size(), gradients_.get());
        clip = clip_factor(settings_.grad_clip, sqrt(squares));
    }
    const AdamW adamw(step_, learning_rate, settings_.weight_decay, settings_.beta1,
                      settings_.beta2, settings_.epsilon);
    for (const Parameter& p : parameters_) {
        adamw.update(p.rows * p.ld, weights_.get() + p.offset, gradients_.get() + p.offset,
                     first_moment_.get() + p.offset, second_moment_.get() + p.offset, clip,
                     p.decays);
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

// The library's C interface, called by model.py. Models are made by `<name>_create` functions
// beside each model; every other function serves them all.
extern "C" {

void model_destroy(native::Model* model) { delete model; }

double model_train_epoch(native::Model* model, const std::int64_t* order) {
    return model->train_epoch(order);
}

double model_evaluate(native::Model* model, std::int64_t* correct) {
    const native::Score score = model->evaluate();
    *correct = score.correct;
    return score.loss;
}

void model_import(native::Model* model, const float* from) { model->import_weights(from); }
void model_export(const native::Model* model, float* to) { model->export_weights(to); }
std::int64_t model_weight_count(native::Model* model) { return model->weights().size(); }
float* model_weights(native::Model* model) { return model->weights().get(); }

}  // extern "C"
