#include "api/status.h"

#include "base/printable.h"

namespace halfstep {
namespace {

halfstep_status* out_of_memory() {
  // Short enough to need no memory of its own.
  static halfstep_status status{HALFSTEP_OUT_OF_MEMORY, "out of memory", ""};
  return &status;
}

// What a name holds reaches no terminal as it is.
halfstep_status* make_status(halfstep_code code, const char* message) noexcept try {
  return new halfstep_status{code, printable(message, Lines::kept), node_of(message)};
} catch (...) {
  return out_of_memory();
}

}  // namespace

halfstep_status* status_of_exception() noexcept {
  try {
    throw;
  } catch (const ArgumentError& e) {
    return make_status(HALFSTEP_INVALID_ARGUMENT, e.what());
  } catch (const Error& e) {
    return make_status(HALFSTEP_ERROR, e.what());
  } catch (const std::filesystem::filesystem_error& e) {
    return make_status(HALFSTEP_ERROR, e.what());
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::exception& e) {
    return make_status(HALFSTEP_INTERNAL_ERROR, e.what());
  } catch (...) {
    return make_status(HALFSTEP_INTERNAL_ERROR, "an exception of unknown type");
  }
}

std::string given_text(const char* text, const char* name) { return &given(text, name); }

std::vector<std::pair<std::string, std::string>> given_options(const halfstep_option* options, size_t count) {
  if (count > 0) given(options, "options");
  std::vector<std::pair<std::string, std::string>> pairs;
  for (size_t i = 0; i < count; ++i)
    pairs.emplace_back(given_text(options[i].key, "the key of an option"),
                       given_text(options[i].value, "the value of an option"));
  return pairs;
}

}  // namespace halfstep
