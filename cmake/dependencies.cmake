# Every external library, as one target each.

find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PNG REQUIRED) # images of data sets
find_package(JPEG REQUIRED)
find_package(fmt REQUIRED)
find_package(mimalloc REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(OpenMP REQUIRED) # oneDNN's own threads: one team serves its primitives and our kernels

find_library(DNNL_LIBRARY dnnl REQUIRED)
find_path(DNNL_INCLUDE_DIR dnnl.hpp REQUIRED)
add_library(DNNL::dnnl INTERFACE IMPORTED)
target_include_directories(DNNL::dnnl INTERFACE ${DNNL_INCLUDE_DIR})
target_link_libraries(DNNL::dnnl INTERFACE ${DNNL_LIBRARY})

# Graphviz's libraries lay out the graph of inspect's page; only the executable links them.
find_library(GVC_LIBRARY gvc REQUIRED)
find_library(CGRAPH_LIBRARY cgraph REQUIRED)
find_path(GRAPHVIZ_INCLUDE_DIR graphviz/gvc.h REQUIRED)
add_library(halfstep_graphviz INTERFACE)
target_include_directories(halfstep_graphviz SYSTEM INTERFACE ${GRAPHVIZ_INCLUDE_DIR} ${GRAPHVIZ_INCLUDE_DIR}/graphviz)
target_link_libraries(halfstep_graphviz INTERFACE ${GVC_LIBRARY} ${CGRAPH_LIBRARY})

# ONNX messages: Debian ships the generated header and a static library that also holds the checker; we use the messages.
find_package(Protobuf REQUIRED)
find_path(ONNX_INCLUDE_DIR onnx/onnx-ml.pb.h REQUIRED)
find_library(ONNX_PROTO_LIBRARY onnx_proto REQUIRED)
add_library(halfstep_onnx_messages INTERFACE)
target_include_directories(halfstep_onnx_messages SYSTEM INTERFACE ${ONNX_INCLUDE_DIR})
target_compile_definitions(halfstep_onnx_messages INTERFACE ONNX_ML=1 ONNX_NAMESPACE=onnx)
target_link_libraries(halfstep_onnx_messages INTERFACE ${ONNX_PROTO_LIBRARY} protobuf::libprotobuf)

# LLVM 19 by name: the machine's default may be older. Linked statically once, into halfstep_codegen only.
find_package(LLVM 19.1 REQUIRED CONFIG HINTS /usr/lib/llvm-19/lib/cmake/llvm)
llvm_map_components_to_libnames(HALFSTEP_LLVM_LIBRARIES core support analysis passes target mc
  x86codegen x86asmparser x86desc x86info nvptxcodegen nvptxdesc nvptxinfo option lto)
find_library(LLD_ELF_LIBRARY lldELF REQUIRED HINTS ${LLVM_LIBRARY_DIRS})
find_library(LLD_COMMON_LIBRARY lldCommon REQUIRED HINTS ${LLVM_LIBRARY_DIRS})
# lld is ready for link-time optimisation: it initialises every target that LLVM was built with, and Polly. Kernels need
# two targets and no link-time optimisation, so the others get initialisers that do nothing.
set(stubs "#include <llvm/Passes/PassPlugin.h>\nllvm::PassPluginLibraryInfo getPollyPluginInfo() { return {}; }\n")
foreach(target IN LISTS LLVM_TARGETS_TO_BUILD)
  if(NOT target MATCHES "^(X86|NVPTX)$")
    foreach(part TargetInfo Target TargetMC AsmPrinter AsmParser)
      string(APPEND stubs "extern \"C\" void LLVMInitialize${target}${part}() {}\n")
    endforeach()
  endif()
endforeach()
file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/llvm_targets_not_linked.cpp CONTENT "${stubs}")
set_property(TARGET LLVMExtensions PROPERTY INTERFACE_LINK_LIBRARIES LLVMSupport)
add_library(halfstep_llvm_stubs STATIC ${CMAKE_BINARY_DIR}/llvm_targets_not_linked.cpp)
target_include_directories(halfstep_llvm_stubs SYSTEM PRIVATE ${LLVM_INCLUDE_DIRS})
add_library(halfstep_llvm INTERFACE)
target_include_directories(halfstep_llvm SYSTEM INTERFACE ${LLVM_INCLUDE_DIRS})
target_link_libraries(halfstep_llvm INTERFACE ${LLD_ELF_LIBRARY} ${LLD_COMMON_LIBRARY} ${HALFSTEP_LLVM_LIBRARIES}
  halfstep_llvm_stubs)
target_link_options(halfstep_llvm INTERFACE -Wl,--exclude-libs,ALL -Wl,--gc-sections)

# CUDA: driver API, cuBLASLt, cuDNN. Linked only into halfstep_cuda, which is loaded at run time.
set(HALFSTEP_CUDA_FOUND OFF)
if(HALFSTEP_CUDA)
  find_package(CUDAToolkit 13 QUIET)
  find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR})
  if(CUDAToolkit_FOUND AND CUDNN_INCLUDE_DIR AND CUDNN_LIBRARY)
    set(HALFSTEP_CUDA_FOUND ON)
    add_library(halfstep_cuda_libraries INTERFACE)
    target_include_directories(halfstep_cuda_libraries SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS} ${CUDNN_INCLUDE_DIR})
    target_link_libraries(halfstep_cuda_libraries INTERFACE CUDA::cudart CUDA::cuda_driver CUDA::cublasLt ${CUDNN_LIBRARY})
  else()
    message(STATUS "CUDA Toolkit 13 with cuDNN 9 not found: building without the CUDA runtime")
  endif()
endif()
