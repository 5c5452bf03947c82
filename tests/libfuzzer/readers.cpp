// Readers of data, checkpoints, compiled steps and recipes. The first byte of an input says which of HALFSTEP_READERS
// it is for, as a digit.
#include <ranges>

#include "tests/libfuzzer/target.h"
#include "tests/untrusted/cases.h"

namespace {

std::vector<halfstep::test::ReaderCase> chosen_readers() {
  std::vector<halfstep::test::ReaderCase> chosen;
  const std::vector<halfstep::test::ReaderCase> all = halfstep::test::reader_cases(halfstep::test::directory());
  for (const auto part : std::views::split(std::string_view(HALFSTEP_READERS), ',')) {
    const auto reader =
        std::ranges::find(all, std::string(part.begin(), part.end()), &halfstep::test::ReaderCase::name);
    halfstep::require(reader != all.end(), "a reader of that name");
    chosen.push_back(*reader);
  }
  return chosen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<halfstep::test::ReaderCase> readers = chosen_readers();
  if (size == 0) return 0;
  const halfstep::test::ReaderCase& reader = readers[(data[0] - unsigned{'0'}) % readers.size()];
  return halfstep::test::read_or_refuse(
      [&] { reader.read(halfstep::test::text_of(data + 1, size - 1), halfstep::test::directory()); });
}
