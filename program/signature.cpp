#include "program/signature.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <memory>

#include "base/error.h"
#include "base/file.h"

namespace halfstep {
namespace {

constexpr int kEd25519 = 1087;  // NID_ED25519
constexpr size_t kSignatureBytes = 64, kSha256Bytes = 32;
constexpr int64_t kMostKeyBytes = 1 << 16;

// The functions of libcrypto 3 that are used. All of its handles are void* here: their headers are not needed to build.
struct Crypto {
  void* library = nullptr;
  void* (*BIO_new_mem_buf)(const void*, int) = nullptr;
  int (*BIO_free)(void*) = nullptr;
  void* (*PEM_read_bio_PrivateKey)(void*, void*, void*, void*) = nullptr;
  void* (*PEM_read_bio_PUBKEY)(void*, void*, void*, void*) = nullptr;
  int (*EVP_PKEY_get_id)(const void*) = nullptr;
  void (*EVP_PKEY_free)(void*) = nullptr;
  void* (*EVP_MD_CTX_new)() = nullptr;
  void (*EVP_MD_CTX_free)(void*) = nullptr;
  int (*EVP_DigestSignInit)(void*, void*, const void*, void*, void*) = nullptr;
  int (*EVP_DigestSign)(void*, unsigned char*, size_t*, const unsigned char*, size_t) = nullptr;
  int (*EVP_DigestVerifyInit)(void*, void*, const void*, void*, void*) = nullptr;
  int (*EVP_DigestVerify)(void*, const unsigned char*, size_t, const unsigned char*, size_t) = nullptr;
  unsigned char* (*SHA256)(const unsigned char*, size_t, unsigned char*) = nullptr;
};

template <typename Function>
void find(Function*& function, void* library, const char* name) {
  function = reinterpret_cast<Function*>(::dlsym(library, name));
  if (function == nullptr) throw Error(fmt::format("libcrypto.so.3 has no function '{}'", name));
}

Crypto load_crypto() {
  Crypto c;
  c.library = ::dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);
  if (c.library == nullptr)
    throw Error(fmt::format("signatures need OpenSSL 3's libcrypto.so.3: install it ({})", ::dlerror()));
  find(c.BIO_new_mem_buf, c.library, "BIO_new_mem_buf");
  find(c.BIO_free, c.library, "BIO_free");
  find(c.PEM_read_bio_PrivateKey, c.library, "PEM_read_bio_PrivateKey");
  find(c.PEM_read_bio_PUBKEY, c.library, "PEM_read_bio_PUBKEY");
  find(c.EVP_PKEY_get_id, c.library, "EVP_PKEY_get_id");
  find(c.EVP_PKEY_free, c.library, "EVP_PKEY_free");
  find(c.EVP_MD_CTX_new, c.library, "EVP_MD_CTX_new");
  find(c.EVP_MD_CTX_free, c.library, "EVP_MD_CTX_free");
  find(c.EVP_DigestSignInit, c.library, "EVP_DigestSignInit");
  find(c.EVP_DigestSign, c.library, "EVP_DigestSign");
  find(c.EVP_DigestVerifyInit, c.library, "EVP_DigestVerifyInit");
  find(c.EVP_DigestVerify, c.library, "EVP_DigestVerify");
  find(c.SHA256, c.library, "SHA256");
  return c;
}

const Crypto& crypto() {
  static const Crypto loaded = load_crypto();
  return loaded;
}

using Handle = std::unique_ptr<void, void (*)(void*)>;

Handle read_key(const std::filesystem::path& path, void* (*read)(void*, void*, void*, void*), const char* expected) {
  const Crypto& c = crypto();
  const std::string pem = read_file(path, kMostKeyBytes);
  const Handle bio(c.BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), [](void* b) { crypto().BIO_free(b); });
  // An encrypted key has an empty passphrase tried, and nobody asked.
  char empty[] = "";
  Handle key(read(bio.get(), nullptr, nullptr, empty), c.EVP_PKEY_free);
  if (!key || c.EVP_PKEY_get_id(key.get()) != kEd25519)
    throw Error(fmt::format("'{}' is no {} Ed25519 key in PEM form", path.string(), expected));
  return key;
}

const unsigned char* unsigned_bytes(std::string_view bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

void expect_safe(const std::filesystem::path& path, const std::filesystem::path& step) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return;  // who reads it will tell
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    throw Error(
        fmt::format("others may write '{}' (mode {:o}), and a step holds native code: chmod -R go-w '{}', or have "
                    "its signature checked with --trust",
                    path.string(), status.st_mode & 07777, step.string()));
  if (status.st_uid != 0 && status.st_uid != ::geteuid())
    throw Error(
        fmt::format("'{}' belongs to user {}, this process to user {}, and a step holds native code: copy the "
                    "step if you trust that user, or have its signature checked with --trust",
                    path.string(), status.st_uid, ::geteuid()));
}

}  // namespace

void expect_writable_by_owner_alone(const std::filesystem::path& step) {
  expect_safe(step, step);
  std::error_code unreadable;
  for (const auto& entry : std::filesystem::directory_iterator(step, unreadable)) expect_safe(entry.path(), step);
}

std::string signature_of(std::string_view bytes, const std::filesystem::path& path) {
  const Crypto& c = crypto();
  const Handle key = read_key(path, c.PEM_read_bio_PrivateKey, "private");
  const Handle context(c.EVP_MD_CTX_new(), c.EVP_MD_CTX_free);
  std::string signature(kSignatureBytes, '\0');
  size_t size = signature.size();
  if (!context || c.EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1 ||
      c.EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, unsigned_bytes(bytes),
                       bytes.size()) != 1 ||
      size != kSignatureBytes)
    throw Error(fmt::format("libcrypto cannot sign with '{}'", path.string()));
  return signature;
}

void expect_signed(std::string_view bytes, std::string_view signature, const std::filesystem::path& path) {
  const Crypto& c = crypto();
  const Handle key = read_key(path, c.PEM_read_bio_PUBKEY, "public");
  const Handle context(c.EVP_MD_CTX_new(), c.EVP_MD_CTX_free);
  if (!context || c.EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1 ||
      c.EVP_DigestVerify(context.get(), unsigned_bytes(signature), signature.size(), unsigned_bytes(bytes),
                         bytes.size()) != 1)
    throw Error(
        fmt::format("its signature is not of key '{}', or the step was changed afterwards: get it again from "
                    "who signed it",
                    path.string()));
}

std::string sha256(std::string_view bytes) {
  std::array<unsigned char, kSha256Bytes> digest{};
  crypto().SHA256(unsigned_bytes(bytes), bytes.size(), digest.data());
  std::string text;
  for (const unsigned char byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace halfstep
