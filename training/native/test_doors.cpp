// Doors to the pieces that all models are made of, for their tests; no model needs this library.
#include "kernels.h"
#include "memory.h"

extern "C" {

void test_gemm(int trans_a, int trans_b, int m, int n, int k, const float* a, int lda,
               const float* b, int ldb, float* c, int ldc, int accumulate, const float* row_bias,
               const float* column_bias, int relu) {
    native::Buffer<float> workspace(native::GEMM_WORKSPACE);
    native::gemm(trans_a, trans_b, m, n, k, a, lda, b, ldb, c, ldc, accumulate, workspace.get(),
                 {row_bias, column_bias, relu != 0});
}

void test_exp_log(std::int64_t count, const float* x, float* exp_x, float* log_x) {
    for (std::int64_t i = 0; i < count; i += native::VL) {  // whole vectors only
        native::store(exp_x + i, native::exp(native::load(x + i)));
        native::store(log_x + i, native::log(native::load(x + i)));
    }
}

void test_adamw(std::int64_t count, std::int64_t step, double learning_rate, double weight_decay,
                double beta1, double beta2, double epsilon, float clip, float* p, const float* g,
                float* m, float* v) {
    const native::AdamW adamw(step, learning_rate, weight_decay, beta1, beta2, epsilon);
    adamw.update(count, p, g, m, v, clip, true);
}

double test_sum_of_squares(std::int64_t count, const float* x) {
    return native::sum_of_squares(count, x);
}

void test_sfc64(const std::uint64_t* state, std::int64_t count, std::uint16_t* draws) {
    native::Sfc64(state).draw(count, draws);
}

void test_loss(int vocab, int tokens, const float* logits, const std::int32_t* labels, float scale,
               float* gradient, double* loss, std::int64_t* correct) {
    native::Buffer<float> scratch(vocab * native::VL);
    native::Score score;
    native::add_score_rows(vocab, tokens, logits, vocab, labels, score, scratch.get());
    native::softmax_gradient_rows(vocab, tokens, logits, vocab, labels, scale, gradient, vocab,
                                  scratch.get());
    *loss = score.loss, *correct = score.correct;
}

}  // extern "C"
