// Trains one model without Python: reads what model.py hands to the library, prints what comes out.
// For processors that are only emulated here (test_arm.py).
//
// Input: Settings, the kind of model (0 MLP, 1 transformer, 2 decoder-only) and its shape as four
// int64, epochs and number of weights as int64, inputs, labels (int64), per epoch an order (int64)
// and a learning rate per batch (double), weights (float). Output: a loss per epoch (double),
// weights (float).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "models.h"

template <class T>
std::vector<T> read(std::size_t count) {
    std::vector<T> values(count);
    if (std::fread(values.data(), sizeof(T), count, stdin) != count) std::exit(1);
    return values;
}

int main() {
    using namespace native;
    const Settings settings = read<Settings>(1)[0];
    const auto shape = read<std::int64_t>(5);
    const auto sizes = read<std::int64_t>(2);
    const auto inputs = read<std::int64_t>(settings.n * settings.seq_len);
    const auto labels = read<std::int64_t>(settings.n * settings.label_len);
    const std::int64_t steps = (settings.n + settings.batch_size - 1) / settings.batch_size;
    std::vector<std::vector<std::int64_t>> orders;
    std::vector<std::vector<double>> rates;
    for (std::int64_t epoch = 0; epoch < sizes[0]; ++epoch) {
        orders.push_back(read<std::int64_t>(settings.n));
        rates.push_back(read<double>(steps));
    }
    auto weights = read<float>(sizes[1]);
    const MlpShape mlp{shape[1], shape[2]};
    const TransformerShape transformer{shape[1], shape[2], shape[3], shape[4]};
    const auto make = shape[0] == 1 ? make_transformer : make_decoder_only;
    const std::unique_ptr<Model> model(
        shape[0] == 0 ? make_mlp(settings, mlp, inputs.data(), labels.data())
                      : make(settings, transformer, inputs.data(), labels.data()));
    const auto counted = std::count_if(labels.begin(), labels.end(), [](auto x) { return x >= 0; });
    model->import_weights(weights.data());
    for (std::int64_t epoch = 0; epoch < sizes[0]; ++epoch) {
        model->train_epoch(orders[epoch], rates[epoch].data());
        const double loss = model->evaluate().loss / double(counted);
        std::fwrite(&loss, sizeof loss, 1, stdout);
    }
    model->export_weights(weights.data());
    std::fwrite(weights.data(), sizeof(float), weights.size(), stdout);
}
