// What halfstep.h says of threads: different steps run at once, one step goes from thread to thread, models are
// compiled beside, and handles are read by several. tools/sanitize.sh thread runs it under ThreadSanitizer.
#include <thread>

#include "tests/api/api_fixture.h"

namespace halfstep::test {
namespace {

// What a user of a step does: trains, measures, saves and goes on from there.
struct Life {
  std::vector<double> losses;
  std::vector<float> row_loss = std::vector<float>(8), weights;
  bool operator==(const Life&) const = default;
};

class ApiThreads : public Api {
 protected:
  void live(const std::string& model, const Points& points, const char* threads, const std::string& directory,
            Life& life) const {
    const Keys keys{{"device", "cpu"}, {"threads", threads}};
    const StepHandle step = load(model, keys);
    for (int64_t i = 0; i < 10; ++i) life.losses.push_back(train(step.get(), points.batch(i)));
    ok(api->save_checkpoint(step.get(), path(directory).c_str(), 1));
    const StepHandle resumed = load(model, keys);
    ok(api->load_checkpoint(resumed.get(), path(directory).c_str()));
    for (int64_t i = 10; i < 15; ++i) life.losses.push_back(train(resumed.get(), points.batch(i)));
    const std::vector<halfstep_input> batch = points.batch(0);
    const halfstep_output to{"row_loss", HALFSTEP_F32, life.row_loss.data(), sizeof(float) * life.row_loss.size()};
    ok(api->evaluate_step(resumed.get(), batch.data(), batch.size(), &to, 1));
    life.weights = weights_of(resumed.get());
    double none = 0;
    refused(api->loss(load(model, keys).get(), &none), HALFSTEP_INVALID_ARGUMENT, {"train_step"});
  }
  halfstep_status* load_missing() const {
    halfstep_step* step = nullptr;
    return api->load_step(path("missing").c_str(), nullptr, 0, &step);
  }
};

TEST_F(ApiThreads, StepsOfSeveralModelsLiveBesideCompilations) {
  write("mlp.onnx", tiny_mlp()), write("convnet.onnx", tiny_convnet());
  const Keys keys{{"batch", "8"}, {"device", "cpu"}, {"precision", "fp16"}};
  compile("mlp.onnx", keys, "mlp"), compile("convnet.onnx", keys, "convnet");
  const Points rows({4}, 8), images({1, 6, 6}, 8);
  Life mlp, convnet;
  live("mlp", rows, "1", "mlp.checkpoints", mlp), live("convnet", images, "1", "convnet.checkpoints", convnet);

  std::array<Life, 6> lives;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < lives.size(); ++i)
    threads.emplace_back([&, i] {
      live(i % 2 == 0 ? "mlp" : "convnet", i % 2 == 0 ? rows : images, i < 4 ? "1" : "2",
           "checkpoints." + std::to_string(i), lives[i]);
    });
  threads.emplace_back([&] { compile("convnet.onnx", keys, "again"); });
  threads.emplace_back([&] { refused(load_missing(), HALFSTEP_ERROR, {"missing"}); });
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < lives.size(); ++i) EXPECT_EQ(lives[i], i % 2 == 0 ? mlp : convnet) << i;
  EXPECT_EQ(read("again/program.train.txt"), read("convnet/program.train.txt"));
}

TEST_F(ApiThreads, AStepGoesFromThreadToThread) {
  write("m.onnx", tiny_mlp());
  compile("m.onnx", {{"batch", "8"}, {"device", "cpu"}, {"shape", "-1,4"}}, "step");
  const Points points({4}, 8);
  const StepHandle one = load("step");
  StepHandle moved = load("step");
  std::vector<double> stays, goes;
  for (int64_t i = 0; i < 8; ++i) stays.push_back(train(one.get(), points.batch(i)));
  for (int64_t i = 0; i < 8; ++i) std::thread([&] { goes.push_back(train(moved.get(), points.batch(i))); }).join();
  EXPECT_EQ(stays, goes);
  EXPECT_EQ(weights_of(one.get()), weights_of(moved.get()));
  std::thread([&] { moved.reset(); }).join();
}

TEST_F(ApiThreads, StatusesListsAndTablesAreReadByMany) {
  write("m.onnx", tiny_mlp());
  const Keys keys{{"batch", "8"}, {"device", "cpu"}};
  const std::vector<halfstep_option> options = options_of(keys);
  halfstep_precision* table = nullptr;
  ok(compiler->inspect_model(path("m.onnx").c_str(), options.data(), options.size(), &table));
  halfstep_status* status = load_missing();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      EXPECT_EQ(api->status_code(status), HALFSTEP_ERROR);
      EXPECT_THAT(api->status_message(status), testing::HasSubstr("missing"));
      EXPECT_NE(api->status_hint(status), nullptr);
      for (size_t row = 0; row < compiler->precision_count(table); ++row) {
        halfstep_precision_row values{};
        ok(compiler->precision_at(table, row, &values));
        EXPECT_NE(std::string(values.op), "");
      }
    });
  for (std::thread& thread : threads) thread.join();
  api->release_status(status);
  compiler->release_precision(table);
}

}  // namespace
}  // namespace halfstep::test
