/* Calls of train_tensors in a loop, for overhead.py. */
#include <halfstep/halfstep.h>
#include <time.h>

static halfstep_step* step;
static const halfstep_api* api;

const char* open_step(const char* directory) {
  const halfstep_option threads = {"threads", "1"};
  api = halfstep_get_api(HALFSTEP_API_VERSION);
  if (api == NULL) return HALFSTEP_API_MISSING;
  return api->status_message(api->load_step(directory, &threads, 1, &step));
}

/* Nanoseconds a call; -1: one failed. */
double train(int calls, float* x, int64_t* labels, int64_t batch, int64_t features) {
  const int64_t x_shape[] = {batch, features}, labels_shape[] = {batch};
  const halfstep_tensor inputs[] = {{"x", HALFSTEP_F32, 2, x_shape, NULL, x, HALFSTEP_CPU, 0},
                                    {"labels", HALFSTEP_I64, 1, labels_shape, NULL, labels, HALFSTEP_CPU, 0}};
  struct timespec start, end;
  timespec_get(&start, TIME_UTC);
  for (int i = 0; i < calls; ++i)
    if (api->train_tensors(step, inputs, 2, NULL) != NULL) return -1;
  timespec_get(&end, TIME_UTC);
  return ((double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec)) / calls;
}
