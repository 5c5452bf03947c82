#include "base/sha256.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"

namespace halfstep {
namespace {

std::string hash_of(std::string_view text) {
  Sha256 hash;
  hash.add(std::as_bytes(std::span(text)));
  return hash.hex();
}

// The examples of FIPS 180-4, and the lengths around a block's end.
TEST(Sha256, IsTheStandards) {
  EXPECT_EQ(hash_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash_of(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, ReadsFiles) {
  const TemporaryDirectory directory;
  write_file_atomically(directory.path() / "a", std::string(1000000, 'a'));
  EXPECT_EQ(sha256_of_file(directory.path() / "a"), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_THROW(sha256_of_file(directory.path() / "b"), Error);
}

}  // namespace
}  // namespace halfstep
