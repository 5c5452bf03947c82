#include "runtime/cuda/nvtx.h"

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>

namespace halfstep::nvtx {
namespace {

nvtxDomainHandle_t domain() {
  static const nvtxDomainHandle_t handle = nvtxDomainCreateA("halfstep");
  return handle;
}

nvtxEventAttributes_t named(const std::string& name) {
  nvtxEventAttributes_t attributes{};
  attributes.version = NVTX_VERSION;
  attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
  attributes.message.ascii = name.c_str();
  return attributes;
}

}  // namespace

Range::Range(const std::string& name) {
  const nvtxEventAttributes_t attributes = named(name);
  nvtxDomainRangePushEx(domain(), &attributes);
}
Range::~Range() { nvtxDomainRangePop(domain()); }

void Span::begin(const std::string& name) {
  end();
  const nvtxEventAttributes_t attributes = named(name);
  id_ = nvtxDomainRangeStartEx(domain(), &attributes), open_ = true;
}
void Span::end() {
  if (open_) nvtxDomainRangeEnd(domain(), id_);
  open_ = false;
}

}  // namespace halfstep::nvtx

#else

namespace halfstep::nvtx {

Range::Range(const std::string&) {}
Range::~Range() = default;
void Span::begin(const std::string&) {}
void Span::end() {}

}  // namespace halfstep::nvtx

#endif
