// The library's C interface: what load.py and model.py call.
#include "models.h"

#if !defined(SOURCE_HASH)
#define SOURCE_HASH ""
#endif

using native::Model;

namespace {

// The result of make(), or null when memory is short.
template <class Make>
Model* made(const Make& make) {
    try {
        return make();
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

}  // namespace

extern "C" {

// Digest of the sources and flags that this library was built from (build.py).
const char* engine_source_hash() { return SOURCE_HASH; }

// Name and version of the compiler.
const char* engine_compiler() {
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "gcc " __VERSION__;
#endif
}

// Whether this processor has the instructions that the library uses. Compiled for any processor
// of the kind, since it has to run on those that have not.
#if defined(__x86_64__)
__attribute__((target("no-avx")))
#endif
int engine_cpu_has_instructions() {
#if defined(__x86_64__)
#if defined(__AVX512F__)
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
#else
    const bool wide = true;
#endif
    return wide && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 1;
#endif
}

// Null when memory is short. `inputs` are (n, seq_len), `labels` (n, label_len).
Model* mlp_create(const native::Settings* settings, const native::MlpShape* shape,
                  const std::int64_t* inputs, const std::int64_t* labels) {
    return made([&] { return native::make_mlp(*settings, *shape, inputs, labels); });
}

Model* transformer_create(const native::Settings* settings, const native::TransformerShape* shape,
                          const std::int64_t* inputs, const std::int64_t* labels) {
    return made([&] { return native::make_transformer(*settings, *shape, inputs, labels); });
}

Model* decoder_only_create(const native::Settings* settings,
                           const native::TransformerShape* shape, const std::int64_t* inputs,
                           const std::int64_t* labels) {
    return made([&] { return native::make_decoder_only(*settings, *shape, inputs, labels); });
}

void model_destroy(Model* model) { delete model; }

// One learning rate per batch of the order, which has `size` rows. Returns whether they exist; if
// not, takes no step.
bool model_train_epoch(Model* model, const std::int64_t* order, std::int64_t size,
                       const double* learning_rates) {
    return model->train_epoch({order, std::size_t(size)}, learning_rates);
}

// Returns the sum of cross-entropies, in nats.
double model_evaluate(Model* model, std::int64_t* correct) {
    const native::Score score = model->evaluate();
    *correct = score.correct;
    return score.loss;
}

void model_import(Model* model, const float* from) { model->import_weights(from); }
void model_export(const Model* model, float* to) { model->export_weights(to); }
std::int64_t model_parameter_count(const Model* model) { return model->parameter_count(); }
std::int64_t model_weight_count(Model* model) { return model->weights().size(); }
float* model_weights(Model* model) { return model->weights().get(); }

}  // extern "C"
