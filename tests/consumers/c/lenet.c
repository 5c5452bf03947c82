/* Trains LeNet on Fashion-MNIST through the C API: lenet MODEL.onnx DATA_DIRECTORY WORK_DIRECTORY EPOCHS LEAST_ACCURACY */
#include <halfstep/halfstep.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { BATCH = 128, PIXELS = 28 * 28 };
static const halfstep_api* api;

static void check(halfstep_status* status) {
  if (status == NULL) return;
  fprintf(stderr, "lenet: %s\n", api->status_message(status));
  api->release_status(status);
  exit(1);
}

/* `count` items behind the header of an IDX file. */
static unsigned char* read_idx(const char* directory, const char* name, size_t header, size_t bytes) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  gzFile file = gzopen(path, "rb");
  unsigned char* data = malloc(header + bytes);
  if (file == NULL || data == NULL || gzread(file, data, (unsigned)(header + bytes)) != (int)(header + bytes)) {
    fprintf(stderr, "lenet: cannot read %s\n", path);
    exit(1);
  }
  gzclose(file);
  memmove(data, data + header, bytes);
  return data;
}

static unsigned char images[BATCH * PIXELS];
static int64_t labels[BATCH];
static const int64_t image_shape[] = {BATCH, 1, 28, 28}, label_shape[] = {BATCH};
static const halfstep_input batch[] = {{"images", HALFSTEP_U8, 4, image_shape, images},
                                       {"labels", HALFSTEP_I64, 1, label_shape, labels}};

static void fill(int row, const unsigned char* all_images, const unsigned char* all_labels, size_t sample) {
  memcpy(images + row * PIXELS, all_images + sample * PIXELS, PIXELS);
  labels[row] = all_labels[sample];
}

static double accuracy(halfstep_step* step, const char* data) {
  const size_t samples = 10000;
  unsigned char* all_images = read_idx(data, "t10k-images-idx3-ubyte.gz", 16, samples * PIXELS);
  unsigned char* all_labels = read_idx(data, "t10k-labels-idx1-ubyte.gz", 8, samples);
  double correct = 0;
  for (size_t first = 0; first < samples; first += BATCH) {
    float row_correct[BATCH];
    const halfstep_output wanted = {"row_correct", HALFSTEP_F32, row_correct, sizeof row_correct};
    /* The last batch is filled up with the last sample; only real rows count. */
    for (size_t row = 0; row < BATCH; ++row)
      fill((int)row, all_images, all_labels, first + row < samples ? first + row : samples - 1);
    check(api->evaluate_step(step, batch, 2, &wanted, 1));
    for (size_t row = 0; row < BATCH && first + row < samples; ++row) correct += row_correct[row];
  }
  free(all_images);
  free(all_labels);
  return correct / (double)samples;
}

int main(int argc, char** argv) {
  const halfstep_compiler_api* compiler = halfstep_get_compiler_api(HALFSTEP_API_VERSION);
  api = halfstep_get_api(HALFSTEP_API_VERSION);
  if (api == NULL || compiler == NULL) return fprintf(stderr, "lenet: %s\n", HALFSTEP_API_MISSING), 1;
  if (argc != 6) return fprintf(stderr, "usage: lenet MODEL.onnx DATA WORK EPOCHS LEAST_ACCURACY\n"), 2;
  const char *data = argv[2], *work = argv[3];
  char directory[4096], trained[4096];
  snprintf(directory, sizeof directory, "%s/step", work);
  snprintf(trained, sizeof trained, "%s/lenet.trained.onnx", work);

  const halfstep_option options[] = {{"batch", "128"}, {"precision", "fp16"}, {"momentum", "0.9"}, {"device", "cpu"},
                                     {"mean", "0.286"}, {"std", "0.353"}};
  check(compiler->compile_model(argv[1], options, sizeof options / sizeof *options, directory, NULL));
  halfstep_step* step = NULL;
  check(api->load_step(directory, NULL, 0, &step));

  const size_t samples = 60000, steps = samples / BATCH;
  unsigned char* all_images = read_idx(data, "train-images-idx3-ubyte.gz", 16, samples * PIXELS);
  unsigned char* all_labels = read_idx(data, "train-labels-idx1-ubyte.gz", 8, samples);
  size_t* order = malloc(samples * sizeof *order);
  if (order == NULL) return 1;
  for (size_t i = 0; i < samples; ++i) order[i] = i;
  const int epochs = atoi(argv[4]);
  const double all_steps = (double)steps * epochs, pi = 3.14159265358979323846;
  double reached = 0;
  srand(1);
  for (int epoch = 0; epoch < epochs; ++epoch) {
    for (size_t i = samples - 1; i > 0; --i) {
      const size_t other = (size_t)rand() % (i + 1), kept = order[i];
      order[i] = order[other], order[other] = kept;
    }
    double loss = 0, scale = 0;
    for (size_t s = 0; s < steps; ++s) {
      for (size_t row = 0; row < BATCH; ++row) fill((int)row, all_images, all_labels, order[s * BATCH + row]);
      const double done = (double)(s + steps * (size_t)epoch) / all_steps;
      check(api->set_learning_rate(step, 0.03 * 0.5 * (1 + cos(pi * done))));
      check(api->train_step(step, batch, 2));
    }
    check(api->loss(step, &loss));
    check(api->loss_scale(step, &scale));
    reached = accuracy(step, data);
    printf("epoch %d: last loss %.4f, loss scale %.0f, test accuracy %.4f\n", epoch + 1, loss, scale, reached);
  }
  check(compiler->export_onnx(step, NULL, trained));
  api->release_step(step);
  free(all_images), free(all_labels), free(order);
  return reached >= atof(argv[5]) ? 0 : (fprintf(stderr, "lenet: test accuracy %.4f is too low\n", reached), 1);
}
