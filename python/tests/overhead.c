/* Calls of train_tensors in a loop, for overhead.py. */
#include <halfstep/halfstep.h>
#include <time.h>

static halfstep_step* step;
static const halfstep_api* api;

const char* open_step(const char* directory, int on_gpu) {
  const halfstep_option threads = {"threads", "1"};
  api = halfstep_get_api(HALFSTEP_API_VERSION);
  if (api == NULL) return HALFSTEP_API_MISSING;
  return api->status_message(api->load_step(directory, &threads, on_gpu ? 0 : 1, &step));
}

/* Nanoseconds a call, of tensors on `device`; -1: one failed. On a GPU each call has ended before the next begins, and what
 * it takes until then is not counted: the host's time is, not the device's. */
double train(int calls, void* x, void* labels, int64_t batch, int64_t features, int32_t device) {
  const int64_t x_shape[] = {batch, features}, labels_shape[] = {batch};
  const halfstep_tensor inputs[] = {{"x", HALFSTEP_F32, 2, x_shape, NULL, x, device, 0},
                                    {"labels", HALFSTEP_I64, 1, labels_shape, NULL, labels, device, 0}};
  double nanoseconds = 0, loss;
  for (int i = 0; i < calls; ++i) {
    struct timespec start, end;
    timespec_get(&start, TIME_UTC);
    if (api->train_tensors(step, inputs, 2, NULL) != NULL) return -1;
    timespec_get(&end, TIME_UTC);
    nanoseconds += (double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec);
    if (device != HALFSTEP_CPU && api->loss(step, &loss) != NULL) return -1;
  }
  return nanoseconds / calls;
}
