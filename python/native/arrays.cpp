#include "arrays.h"

#include <nanobind/stl/pair.h>

#include <string>

namespace nb = nanobind;

namespace halfstep::python {
namespace {

constexpr const char* kDtypeNames[] = {"", "f16", "bf16", "f32", "f64", "u8", "i8", "i32", "i64", "bool"};
constexpr const char* kDtypeHint = "convert it to one of f16, bf16, f32, f64, u8, i8, i32, i64 and bool";

constexpr uintptr_t kDefaultStream = 1;  // in DLPack and CUDA

Error refusal(const std::string& problem, const std::string& hint = "") {
  return {Code::invalid_argument, hint.empty() ? problem : problem + ": " + hint, "", hint};
}

std::string type_of(nb::handle object) { return nb::type_name(object.type()).c_str(); }

// Of the buffer protocol's format; HALFSTEP_NO_DTYPE: none of ours.
halfstep_dtype dtype_of_format(const char* format, Py_ssize_t bytes) {
  if (format == nullptr) return HALFSTEP_U8;
  if (*format == '@' || *format == '=' || *format == '<') ++format;
  if (*format == '\0' || format[1] != '\0') return HALFSTEP_NO_DTYPE;
  switch (*format) {
    case 'e':
      return HALFSTEP_F16;
    case 'f':
      return HALFSTEP_F32;
    case 'd':
      return HALFSTEP_F64;
    case 'B':
      return HALFSTEP_U8;
    case 'b':
      return HALFSTEP_I8;
    case '?':
      return HALFSTEP_BOOL;
    case 'i':
    case 'l':
    case 'q':
      return bytes == 4 ? HALFSTEP_I32 : bytes == 8 ? HALFSTEP_I64 : HALFSTEP_NO_DTYPE;
    default:
      return HALFSTEP_NO_DTYPE;
  }
}

// The DLTensor inside what a capsule of DLPack holds.
const void* dltensor_of(const char* name, nb::handle capsule, Access access) {
  if (void* const managed = PyCapsule_CheckExact(capsule.ptr()) != 0 && PyCapsule_IsValid(capsule.ptr(), "dltensor")
                                ? PyCapsule_GetPointer(capsule.ptr(), "dltensor")
                                : nullptr)
    return managed;  // it comes first
  constexpr const char* kVersioned = "dltensor_versioned";
  if (PyCapsule_IsValid(capsule.ptr(), kVersioned) == 0)
    throw refusal("'" + std::string(name) + "': __dlpack__ returned " + type_of(capsule) + ", no tensor");
  struct Versioned {
    uint32_t major, minor;
    void* context;
    void (*deleter)(void*);
    uint64_t flags;
  };
  const auto* const managed = static_cast<const Versioned*>(PyCapsule_GetPointer(capsule.ptr(), kVersioned));
  if (managed->major != 1)
    throw refusal("'" + std::string(name) + "': DLPack of version " + std::to_string(managed->major) + ", 1 expected");
  constexpr uint64_t kReadOnly = 1;
  if (access == Access::write && (managed->flags & kReadOnly) != 0)
    throw refusal("'" + std::string(name) + "' is read-only", "give an array that can be written");
  return managed + 1;
}

}  // namespace

const char* dtype_name(DType type) { return kDtypeNames[static_cast<size_t>(type)]; }

Arrays::Arrays(const nb::dict& arrays, Access access, uintptr_t stream) : stream_(stream) {
  tensors_.reserve(arrays.size());
  try {
    for (const auto& [key, array] : arrays) {
      const char* const name = PyUnicode_AsUTF8(key.ptr());  // the key's own memory
      if (name == nullptr) throw nb::python_error();
      add(name, array, access);
    }
  } catch (...) {
    for (Py_buffer& buffer : buffers_) PyBuffer_Release(&buffer);
    throw;
  }
}

Arrays::~Arrays() {
  for (Py_buffer& buffer : buffers_) PyBuffer_Release(&buffer);
}

void Arrays::add(const char* name, nb::handle array, Access access) {
  if (PyObject_CheckBuffer(array.ptr()) != 0) return add_buffer(name, array, access);
  if (nb::hasattr(array, "__dlpack__")) return add_dlpack(name, capsule_of(array), access);
  throw refusal("'" + std::string(name) + "' is of type " + type_of(array),
                "give a NumPy array, or a tensor with __dlpack__");
}

void Arrays::add_buffer(const char* name, nb::handle array, Access access) {
  Py_buffer buffer{};
  const int flags = access == Access::read ? PyBUF_RECORDS_RO : PyBUF_RECORDS;
  if (PyObject_GetBuffer(array.ptr(), &buffer, flags) != 0) {
    // NumPy has types that the protocol has not, and arrays that may not be written.
    nb::python_error error;
    throw refusal("'" + std::string(name) + "': " + error.what());
  }
  buffers_.push_back(buffer);
  const halfstep_dtype dtype = dtype_of_format(buffer.format, buffer.itemsize);
  if (dtype == HALFSTEP_NO_DTYPE)
    throw refusal("'" + std::string(name) + "' has elements of the format '" + buffer.format + "'", kDtypeHint);
  std::vector<int64_t>& strides = strides_.emplace_back();
  for (int axis = 0; axis < buffer.ndim; ++axis) {
    const Py_ssize_t bytes = buffer.strides[axis];
    // A stride that is no multiple is none of a dense array either way.
    strides.push_back(bytes % buffer.itemsize == 0 ? bytes / buffer.itemsize : 0);
  }
  static_assert(sizeof(Py_ssize_t) == sizeof(int64_t));
  tensors_.push_back({name, dtype, static_cast<size_t>(buffer.ndim), reinterpret_cast<const int64_t*>(buffer.shape),
                      strides.data(), buffer.buf, HALFSTEP_CPU, 0});
}

nb::object Arrays::capsule_of(nb::handle array) {
  // What __dlpack__ of PyTorch's plain tensors comes to, without its tens of microseconds.
  const nb::object torch = nb::steal(PyImport_GetModule(nb::str("torch").ptr()));
  PyErr_Clear();
  if (torch.is_valid() && nb::hasattr(torch, "Tensor") && array.type().is(torch.attr("Tensor")) &&
      !nb::cast<bool>(array.attr("requires_grad")) && array.attr("layout").is(torch.attr("strided"))) {
    const nb::object to_dlpack = torch.attr("utils").attr("dlpack").attr("to_dlpack");
    if (nb::cast<bool>(array.attr("is_cpu"))) return to_dlpack(array);
    if (nb::cast<bool>(array.attr("is_cuda")) && (stream_ == 0 || stream_is_torchs_)) {
      if (stream_ == 0) {
        const nb::object current = torch.attr("cuda").attr("current_stream")(array.attr("device"));
        stream_ = nb::cast<uintptr_t>(current.attr("cuda_stream"));
        if (stream_ == 0) stream_ = kDefaultStream;
        stream_is_torchs_ = true;  // a tensor on another device is refused whatever its stream
      }
      return to_dlpack(array);
    }
  }
  const auto [type, index] = nb::cast<std::pair<int, int>>(array.attr("__dlpack_device__")());
  if (type != HALFSTEP_CUDA && type != HALFSTEP_CUDA_MANAGED) return array.attr("__dlpack__")();
  if (stream_ == 0) stream_ = kDefaultStream;
  return array.attr("__dlpack__")(nb::arg("stream") = stream_);
}

void Arrays::add_dlpack(const char* name, nb::object capsule, Access access) {
  halfstep_tensor tensor{};
  const void* const dltensor = dltensor_of(name, capsule, access);
  try {
    check(runtime().tensor_of_dlpack(dltensor, &tensor));
  } catch (const Error& e) {
    throw Error(e.code(), "'" + std::string(name) + "': " + e.what(), e.node(), e.hint());
  }
  tensor.name = name;
  tensors_.push_back(tensor);
  capsules_.push_back(std::move(capsule));
}

std::span<float> flat_floats(const Py_buffer& buffer) {
  if (dtype_of_format(buffer.format, buffer.itemsize) != HALFSTEP_F32 || PyBuffer_IsContiguous(&buffer, 'C') == 0)
    throw refusal("the parameters are one contiguous array of float32");
  return {static_cast<float*>(buffer.buf), static_cast<size_t>(buffer.len) / sizeof(float)};
}

}  // namespace halfstep::python
