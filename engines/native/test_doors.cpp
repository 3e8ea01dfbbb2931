// Doors to the pieces that all models are made of, for their tests.
#include "gemm.h"
#include "kernels.h"
#include "memory.h"

extern "C" {

// Mirrored field by field by tests/test_native_kernels.py.
struct GemmCall {
    native::Factor a, b;
    native::Product c;
    native::Epilogue epilogue;
};

void test_gemm(int m, int n, int k, const GemmCall* call) {
    native::Buffer<float> workspace(native::GEMM_WORKSPACE);
    native::gemm(m, n, k, call->a, call->b, call->c, workspace.get(), call->epilogue);
}

void test_exp_log(std::int64_t count, const float* x, float* exp_x, float* log_x) {
    for (std::int64_t i = 0; i < count; i += native::VL) {  // whole vectors only
        native::store(exp_x + i, native::exp(native::load(x + i)));
        native::store(log_x + i, native::log(native::load(x + i)));
    }
}

void test_gelu(std::int64_t count, const float* x, float* value, float* slope) {
    for (std::int64_t i = 0; i < count; i += native::VL) {  // whole vectors only
        const native::Gelu y = native::gelu(native::load(x + i));
        native::store(value + i, y.value);
        native::store(slope + i, y.slope);
    }
}

// `rates` (steps,) and gradients g (steps, count), times 0.5: all steps of p with moments m and v.
void test_adamw(std::int64_t count, std::int64_t steps, const double* rates, double beta1,
                float* p, const float* g, float* m, float* v) {
    native::AdamW adamw(beta1, 0.999, 1e-8);
    for (std::int64_t step = 0; step < steps; ++step) {
        adamw.next_step(rates[step], 0.3);
        adamw.update(count, p, g + step * count, m, v, 0.5f, true);
    }
}

double test_sum_of_squares(std::int64_t count, const float* x) {
    return native::sum_of_squares(count, x);
}

void test_sfc64(const std::uint64_t* state, std::int64_t count, std::uint16_t* draws) {
    native::Sfc64(state).draw(count, draws);
}

// Token-major logits, dense: adds to the loss (nats) and to the right tokens; sets the gradient.
void test_loss(const native::Logits* logits, float scale, float* gradient, double* loss,
               std::int64_t* correct) {
    native::Buffer<float> scratch(logits->vocab * native::VL);
    native::Score score;
    native::add_score_rows(*logits, score, scratch.get());
    native::softmax_gradient_rows(*logits, scale, gradient, logits->vocab, scratch.get());
    *loss = score.loss, *correct = score.correct;
}

}  // extern "C"
