// What the libraries' tuning chose, kept in the directory of a compiled step: the next start on the same GPU with the
// same libraries tunes nothing and computes the same bits.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace halfstep {

// What choices hold for; where one of it differs they are made anew. One line each.
struct ChoiceKey {
  std::string device, libraries, settings;
  friend bool operator==(const ChoiceKey&, const ChoiceKey&) = default;
};

struct KeptChoices {
  ChoiceKey key;
  std::map<std::string, std::string> choices;  // by library, shape and types of a call; one line each, without '|'
  friend bool operator==(const KeptChoices&, const KeptChoices&) = default;
};

// Lines: the version, the key, "call | choice" for each, and a checksum of all of them.
std::string print(const KeptChoices& kept);
// Throws Error with the line. The result prints to the same text.
KeptChoices parse_kept_choices(std::string_view text);

// "1234 bytes, checksum 1a2b3c4d".
std::string digest(std::string_view bytes);

// The choices of one key in "kept/" of a step's directory, a file for each key. Nothing here is an error to a run: what
// cannot be read, written or trusted is told by remarks() and tuned again.
class ChoiceStore {
 public:
  // Where `directory` is empty, or others may write it, nothing is read or kept.
  ChoiceStore(const std::filesystem::path& directory, ChoiceKey key);

  bool keeps() const { return writes_; }
  // Null: none, tune.
  const std::string* find(const std::string& call) const;
  void keep(const std::string& call, const std::string& choice);  // of one line, without '|'
  // A kept choice that cannot be used: told, and gone.
  void refuse(const std::string& call, const std::string& why);
  // Bytes in a file of their own, checked against size and checksum.
  std::optional<std::string> find_bytes(const std::string& call);
  void keep_bytes(const std::string& call, std::string_view bytes);
  // Writes what is new since the last time.
  void save();
  const std::vector<std::string>& remarks() const { return remarks_; }

 private:
  void give_up_writing(const std::string& why);

  std::filesystem::path file_;  // empty: nowhere
  KeptChoices kept_;
  bool writes_ = false, changed_ = false;
  std::vector<std::string> remarks_;
};

}  // namespace halfstep
