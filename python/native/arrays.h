// Python's arrays as tensors of halfstep.h, without copies: the buffer protocol (NumPy), else __dlpack__.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <deque>
#include <halfstep/halfstep.hpp>
#include <span>
#include <vector>

namespace halfstep::python {

enum class Access : uint8_t { read, write };

// Holds the arrays while it lives; made and destroyed with the GIL.
class Arrays {
 public:
  // `arrays` by name. `stream`: where those on a GPU were written, a cudaStream_t as a number; 0: the current one of
  // PyTorch for its tensors, else the default stream.
  // Throws Error naming an array that is none, or whose type no step takes.
  Arrays(const nanobind::dict& arrays, Access access, uintptr_t stream);
  ~Arrays();
  Arrays(const Arrays&) = delete;
  Arrays& operator=(const Arrays&) = delete;

  std::span<const halfstep_tensor> tensors() const { return tensors_; }
  // That all of them are ordered by; 0: none is on a GPU.
  uintptr_t stream() const { return stream_; }

 private:
  void add(const char* name, nanobind::handle array, Access access);
  void add_buffer(const char* name, nanobind::handle array, Access access);
  void add_dlpack(const char* name, nanobind::object capsule, Access access);
  nanobind::object capsule_of(nanobind::handle array);

  uintptr_t stream_;
  bool stream_is_torchs_ = false;  // its current one, on which its tensors are written
  std::vector<halfstep_tensor> tensors_;
  std::deque<Py_buffer> buffers_;
  std::deque<std::vector<int64_t>> strides_;
  std::vector<nanobind::object> capsules_;  // each gives its tensor back when it goes
};

// One flat array of f32 with the elements of the step's parameters.
std::span<float> flat_floats(const Py_buffer& buffer);

// "f32"; "": HALFSTEP_NO_DTYPE.
const char* dtype_name(DType type);

}  // namespace halfstep::python
