// Who may have written a compiled step: permissions, or a signature.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "program/program.h"

namespace halfstep {

// save_compiled with a signature, manifest.sig, by a private key; none where `sign` is empty.
void save_compiled(const CompiledModel& model, const std::string& directory, const std::string& sign);
// load_compiled of a step that the private key of `trust` signed; where that is empty, of one that others may not
// write.
CompiledModel load_compiled(const std::string& directory, const std::string& trust);

// Error where anyone but this process's user and root may write the directory `step` or a file in it.
void expect_writable_by_owner_alone(const std::filesystem::path& step);

// Ed25519 (RFC 8032) and SHA-256 of OpenSSL's libcrypto, which is loaded when the first of these is called; Error where
// it is not there. `key` is a PEM file: of `openssl genpkey -algorithm ed25519` to sign, of `openssl pkey -pubout` to
// check.
std::string signature_of(std::string_view bytes, const std::filesystem::path& key);
void expect_signed(std::string_view bytes, std::string_view signature, const std::filesystem::path& key);
std::string sha256(std::string_view bytes);  // in hexadecimal

}  // namespace halfstep
