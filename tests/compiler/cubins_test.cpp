// Machine code beside the PTX of a compiled step.
#include "compiler/cubins.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace halfstep {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

CompiledModel empty_kernel() {
  CompiledModel model;
  model.device = DeviceKind::cuda;
  model.architecture = "sm_80";
  model.kernels = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry nothing() { ret; }\n";
  return model;
}

std::string error_of(CompiledModel model, const std::string& architectures) {
  try {
    add_cubins(model, architectures);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Cubins, AreMadeByPtxas) {
  if (std::system("command -v ptxas >/dev/null") != 0) GTEST_SKIP() << "ptxas is not installed";
  CompiledModel model = empty_kernel();
  add_cubins(model, "sm_80,sm_90");
  ASSERT_EQ(model.cubins.size(), 2u);
  for (const auto& [architecture, code] : model.cubins)
    EXPECT_THAT(code, StartsWith("\x7f"
                                 "ELF"))
        << architecture;
  EXPECT_NE(model.cubins.at("sm_80"), model.cubins.at("sm_90"));
  model.kernels += "nonsense";
  EXPECT_THAT(error_of(model, "sm_80"), AllOf(HasSubstr("ptxas refuses the kernels: "), HasSubstr("line 5")));
}

TEST(Cubins, WhatCannotRunThePtxIsRefused) {
  EXPECT_THAT(error_of(empty_kernel(), "sm_75,ampere"),
              AllOf(HasSubstr("cubins: 'sm_75' does not run the kernels, which are for sm_80"),
                    HasSubstr("cubins: 'ampere' is no CUDA architecture such as sm_80")));
  EXPECT_THAT(error_of(CompiledModel(), "sm_80"), HasSubstr("the step is compiled for the CPU"));
}

TEST(Cubins, AMissingPtxasIsToldWithWhatToDo) {
  const std::string path = ::getenv("PATH") ? ::getenv("PATH") : "";
  ::setenv("PATH", "/nonexistent", 1);
  const std::string error = error_of(empty_kernel(), "sm_80");
  ::setenv("PATH", path.c_str(), 1);
  EXPECT_THAT(error, AllOf(HasSubstr("cannot start 'ptxas'"), HasSubstr("install the CUDA Toolkit's compiler")));
}

}  // namespace
}  // namespace halfstep
