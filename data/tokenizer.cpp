#include "data/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "base/printable.h"
#include "data/byte_pairs.h"
#include "data/unicode.h"
#include "program/json_text.h"

namespace halfstep {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMostFileBytes = int64_t{1} << 28;
constexpr int64_t kMostId = int64_t{1} << 30;
using Vocabulary = std::unordered_map<std::string, uint32_t>;

// Tokens that stand in a text as they are.
struct AddedToken {
  std::string content;
  uint32_t id = 0;
  bool strips_left = false, strips_right = false;
};

// The kind of an optional part of the file: "" where it is null or not there.
std::string kind_of(const Json& file, const char* part) {
  const auto found = file.find(part);
  if (found == file.end() || found->is_null()) return "";
  return found->value("type", "(none)");
}

[[noreturn]] void refuse(const std::string& part, const std::string& found, const std::string& known) {
  throw Error(
      fmt::format("{} '{}': {} expected: byte-level BPE and WordPiece are read; encode the text beforehand "
                  "to a token file (.u16, .u32)",
                  part, printable(found), known));
}

uint32_t id_of(const Json& json) {
  const int64_t id = integer_of(json);
  if (id < 0 || id > kMostId) throw Error(fmt::format("a token has the id {}", id));
  return static_cast<uint32_t>(id);
}

Vocabulary vocabulary_of(const Json& model) {
  Vocabulary vocabulary;
  for (const auto& [token, id] : model.at("vocab").items()) vocabulary.emplace(token, id_of(id));
  return vocabulary;
}

class ReadTokenizer : public Tokenizer {
 public:
  explicit ReadTokenizer(const Json& file) {
    for (const Json& token : file.value("added_tokens", Json::array())) {
      if (token.value("single_word", false)) refuse("added token", token.at("content"), "none of a single_word");
      added_.push_back(
          {token.at("content"), id_of(token.at("id")), token.value("lstrip", false), token.value("rstrip", false)});
      if (added_.back().content.empty()) throw Error("an added token is empty");
      vocabulary_ = std::max(vocabulary_, int64_t{added_.back().id} + 1);
      for (const char* name : {"[PAD]", "<pad>"})
        if (added_.back().content == name) padding_ = added_.back().id;
    }
    // Of several at one place the longest is meant.
    std::ranges::stable_sort(added_, std::ranges::greater{}, [](const AddedToken& t) { return t.content.size(); });
    if (const auto padding = file.find("padding"); padding != file.end() && padding->is_object())
      padding_ = id_of(padding->value("pad_id", Json(padding_)));
    if (const auto processor = file.find("post_processor"); processor != file.end() && processor->is_object())
      take_processor(*processor);
  }

  std::vector<uint32_t> encode(std::string_view text) const override {
    std::vector<uint32_t> ids;
    std::vector<size_t> next;  // place of each added token from `at` on
    for (const AddedToken& token : added_) next.push_back(text.find(token.content));
    for (size_t at = 0; at < text.size();) {
      size_t place = text.size();
      const AddedToken* token = nullptr;
      for (size_t i = 0; i < added_.size(); ++i) {
        if (next[i] < at) next[i] = text.find(added_[i].content, at);
        if (next[i] < place) place = next[i], token = &added_[i];
      }
      std::string_view before = text.substr(at, place - at);
      if (token != nullptr && token->strips_left) before = without_spaces_behind(before);
      if (!before.empty()) encode_part(before, ids);
      if (token == nullptr) break;
      ids.push_back(token->id);
      at = place + token->content.size();
      if (token->strips_right) at += spaces_before(text.substr(at));
    }
    return ids;
  }

 protected:
  virtual void encode_part(std::string_view text, std::vector<uint32_t>& ids) const = 0;
  void take_vocabulary(const Vocabulary& vocabulary) {
    for (const auto& [token, id] : vocabulary) vocabulary_ = std::max(vocabulary_, int64_t{id} + 1);
  }

 private:
  static bool goes_on(char byte) { return (static_cast<uint8_t>(byte) & 0xc0) == 0x80; }
  static bool is_one_space(std::string_view character) {
    const std::u32string code = from_utf8(character);
    return code.size() == 1 && is_space(code[0]);
  }
  static std::string_view without_spaces_behind(std::string_view text) {
    while (!text.empty()) {
      size_t begin = text.size() - 1;
      while (begin > 0 && goes_on(text[begin])) --begin;
      if (!is_one_space(text.substr(begin))) break;
      text = text.substr(0, begin);
    }
    return text;
  }
  static size_t spaces_before(std::string_view text) {
    size_t end = 0;
    while (end < text.size()) {
      size_t next = end + 1;
      while (next < text.size() && goes_on(text[next])) ++next;
      if (!is_one_space(text.substr(end, next - end))) break;
      end = next;
    }
    return end;
  }

  void take_processor(const Json& processor) {
    const std::string kind = processor.value("type", "");
    if (kind == "ByteLevel") return;
    if (kind == "Sequence") {
      for (const Json& one : processor.at("processors")) take_processor(one);
    } else if (kind == "BertProcessing" || kind == "RobertaProcessing") {
      before_ = {id_of(processor.at("cls").at(1))}, behind_ = {id_of(processor.at("sep").at(1))};
    } else if (kind == "TemplateProcessing") {
      bool text_seen = false;
      for (const Json& piece : processor.at("single")) {
        if (piece.contains("Sequence")) {
          text_seen = true;
          continue;
        }
        const std::string name = piece.at("SpecialToken").at("id");
        for (const Json& id : processor.at("special_tokens").at(name).at("ids"))
          (text_seen ? behind_ : before_).push_back(id_of(id));
      }
    } else {
      refuse("post_processor", kind, "TemplateProcessing, BertProcessing, RobertaProcessing or ByteLevel");
    }
  }

  std::vector<AddedToken> added_;
};

// Printable characters stand for the bytes: themselves where they are some, and else those from U+0100 on.
std::array<char32_t, 256> byte_characters() {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    characters[byte] = printable ? byte : next++;
  }
  return characters;
}

class ByteLevel final : public ReadTokenizer {
 public:
  explicit ByteLevel(const Json& file) : ReadTokenizer(file), pairs_({}) {
    const Json& model = file.at("model");
    if (const std::string kind = kind_of(file, "normalizer"); !kind.empty()) refuse("normalizer", kind, "none");
    if (const std::string kind = kind_of(file, "pre_tokenizer"); kind != "ByteLevel")
      refuse("pre_tokenizer", kind, "ByteLevel");
    const Json& before = file.at("pre_tokenizer");
    if (!before.value("use_regex", true)) refuse("pre_tokenizer", "ByteLevel without use_regex", "one with it");
    prefix_space_ = before.value("add_prefix_space", true);
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (const Json value = model.value(key, Json()); value.is_string() && value != "")
        refuse(key, value.get<std::string>(), "none");
    if (const Json dropout = model.value("dropout", Json()); !dropout.is_null() && dropout != 0)
      refuse("dropout", dropout.dump(), "none");
    if (model.value("ignore_merges", false)) refuse("ignore_merges", "true", "false");
    const Vocabulary vocabulary = vocabulary_of(model);
    take_vocabulary(vocabulary);
    const auto find = [&](const std::string& token) {
      const auto found = vocabulary.find(token);
      if (found == vocabulary.end()) throw Error("the vocabulary lacks '" + printable(token) + "'");
      return found->second;
    };
    std::vector<uint32_t> bytes;
    for (const char32_t character : byte_characters()) bytes.push_back(find(to_utf8({&character, 1})));
    pairs_ = BytePairs(std::move(bytes));
    for (const Json& merge : model.at("merges")) {
      std::string left, right;
      if (merge.is_array()) {
        left = merge.at(0), right = merge.at(1);
      } else {
        const std::string text = merge;
        const size_t space = text.find(' ');
        if (space == std::string::npos) throw Error("merge '" + printable(text) + "': two parts expected");
        left = text.substr(0, space), right = text.substr(space + 1);
      }
      const uint32_t first = find(left), second = find(right);
      pairs_.add(first, second, find(left + right));
    }
  }

 private:
  void encode_part(std::string_view text, std::vector<uint32_t>& ids) const override {
    std::string spaced;
    if (prefix_space_ && text.front() != ' ') text = spaced = " " + std::string(text);
    for (const std::string_view word : split_as_gpt2(text)) {
      constexpr size_t kLongestKept = 64, kMostKept = size_t{1} << 16;
      if (word.size() > kLongestKept) {
        pairs_.encode(word, ids);
        continue;
      }
      const std::lock_guard lock(mutex_);
      auto known = known_.find(std::string(word));
      if (known == known_.end()) {
        if (known_.size() >= kMostKept) known_.clear();
        known = known_.emplace(word, std::vector<uint32_t>()).first;
        pairs_.encode(word, known->second);
      }
      ids.insert(ids.end(), known->second.begin(), known->second.end());
    }
  }

  BytePairs pairs_;
  bool prefix_space_ = true;
  mutable std::mutex mutex_;
  mutable std::unordered_map<std::string, std::vector<uint32_t>> known_;  // words
};

bool is_chinese(char32_t c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
         (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

bool is_bert_punctuation(char32_t c) {
  return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126) ||
         is_punctuation(c);
}

class WordPiece final : public ReadTokenizer {
 public:
  explicit WordPiece(const Json& file) : ReadTokenizer(file) {
    const Json& model = file.at("model");
    if (const std::string kind = kind_of(file, "pre_tokenizer"); kind != "BertPreTokenizer")
      refuse("pre_tokenizer", kind, "BertPreTokenizer");
    const std::string normalizer = kind_of(file, "normalizer");
    if (normalizer != "BertNormalizer" && !normalizer.empty()) refuse("normalizer", normalizer, "BertNormalizer");
    if (!normalizer.empty()) {
      const Json& rules = file.at("normalizer");
      cleans_ = rules.value("clean_text", true), spaces_chinese_ = rules.value("handle_chinese_chars", true);
      lowers_ = rules.value("lowercase", true);
      const Json strips = rules.value("strip_accents", Json());
      if (!strips.is_boolean() && !strips.is_null()) refuse("strip_accents", strips.dump(), "true, false or null");
      strips_accents_ = strips.is_boolean() ? strips.get<bool>() : lowers_;
    }
    vocabulary_ids_ = vocabulary_of(model);
    take_vocabulary(vocabulary_ids_);
    for (const auto& [piece, id] : vocabulary_ids_) longest_piece_ = std::max(longest_piece_, piece.size());
    prefix_ = model.value("continuing_subword_prefix", "##");
    longest_ = model.contains("max_input_chars_per_word") ? count_in(model, "max_input_chars_per_word") : 100;
    const std::string unknown = model.value("unk_token", "[UNK]");
    const auto found = vocabulary_ids_.find(unknown);
    if (found == vocabulary_ids_.end()) throw Error("the vocabulary lacks '" + printable(unknown) + "'");
    unknown_ = found->second;
  }

 private:
  std::u32string normalized(std::string_view text) const {
    std::u32string result;
    for (char32_t c : from_utf8(text)) {
      if (cleans_) {
        const bool line = c == '\t' || c == '\n' || c == '\r';
        if (c == 0 || c == 0xfffd || (!line && is_other(c))) continue;
        if (line || is_space(c)) c = ' ';
      }
      if (spaces_chinese_ && is_chinese(c))
        result += {U' ', c, U' '};
      else
        result += c;
    }
    if (strips_accents_) {
      std::u32string parts;
      for (const char32_t c : result) append_decomposed(c, parts);
      std::erase_if(parts, is_mark);
      result = std::move(parts);
    }
    if (!lowers_) return result;
    std::u32string lower;
    for (const char32_t c : result) append_lower(c, lower);
    return lower;
  }

  void encode_part(std::string_view text, std::vector<uint32_t>& ids) const override {
    std::u32string word;
    const auto end_word = [&] {
      if (!word.empty()) encode_word(word, ids);
      word.clear();
    };
    for (const char32_t c : normalized(text)) {
      if (is_space(c)) {
        end_word();
      } else if (is_bert_punctuation(c)) {
        end_word();
        word = c;
        end_word();
      } else {
        word += c;
      }
    }
    end_word();
  }

  // The longest piece of the vocabulary first; one that no piece begins is unknown as a whole.
  void encode_word(const std::u32string& word, std::vector<uint32_t>& ids) const {
    const size_t before = ids.size();
    const auto give_up = [&] {
      ids.resize(before);
      ids.push_back(unknown_);
    };
    if (static_cast<int64_t>(word.size()) > longest_) return give_up();
    for (size_t begin = 0; begin < word.size();) {
      size_t end = std::min(word.size(), begin + longest_piece_);
      for (; end > begin; --end) {
        const std::string piece =
            (begin > 0 ? prefix_ : "") + to_utf8(std::u32string_view(word).substr(begin, end - begin));
        if (const auto found = vocabulary_ids_.find(piece); found != vocabulary_ids_.end()) {
          ids.push_back(found->second);
          break;
        }
      }
      if (end == begin) return give_up();
      begin = end;
    }
  }

  Vocabulary vocabulary_ids_;
  std::string prefix_;
  int64_t longest_ = 100;     // characters of a word
  size_t longest_piece_ = 1;  // bytes, so at least its characters
  uint32_t unknown_ = 0;
  bool cleans_ = false, spaces_chinese_ = false, lowers_ = false, strips_accents_ = false;
};

std::shared_ptr<const Tokenizer> tokenizer_of(const Json& file) {
  const Json& model = file.at("model");
  // Before, files did not say it.
  const std::string kind = model.value("type", model.contains("merges") ? "BPE" : "WordPiece");
  if (kind == "BPE") return std::make_shared<const ByteLevel>(file);
  if (kind == "WordPiece") return std::make_shared<const WordPiece>(file);
  refuse("model", kind, "BPE or WordPiece");
}

}  // namespace

std::vector<std::string_view> split_as_gpt2(std::string_view text) {
  struct Character {
    char32_t code;
    size_t bytes;
  };
  const auto at = [&](size_t place) -> Character {
    if (place >= text.size()) return {0, 0};
    size_t bytes = 1;
    while (bytes < 4 && place + bytes < text.size() && (static_cast<uint8_t>(text[place + bytes]) & 0xc0) == 0x80)
      ++bytes;
    if (static_cast<uint8_t>(text[place]) < 0x80) return {static_cast<uint8_t>(text[place]), 1};
    const std::u32string code = from_utf8(text.substr(place, bytes));
    return {code[0], code.size() == 1 ? bytes : 1};
  };
  const auto is_rest = [](char32_t c) { return !is_space(c) && !is_letter(c) && !is_number(c); };
  const auto run = [&](size_t place, const auto& holds) {
    for (Character c = at(place); c.bytes > 0 && holds(c.code); c = at(place)) place += c.bytes;
    return place;
  };
  std::vector<std::string_view> words;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    for (const std::string_view ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"})
      if (end == begin && text.substr(begin).starts_with(ending)) end = begin + ending.size();
    const size_t inside = begin + (text[begin] == ' ' ? 1 : 0);
    if (end == begin)
      if (const char32_t first = at(inside).code; inside < text.size() && !is_space(first))
        end = is_letter(first)   ? run(inside, is_letter)
              : is_number(first) ? run(inside, is_number)
                                 : run(inside, is_rest);
    if (end == begin) {
      // Spaces, but for the last before a word, which belongs to it, or stands alone.
      size_t last = begin;
      for (Character c = at(begin); c.bytes > 0 && is_space(c.code); c = at(end)) last = end, end += c.bytes;
      if (end < text.size() && last > begin) end = last;
    }
    words.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

std::shared_ptr<const Tokenizer> read_tokenizer(const std::filesystem::path& path) try {
  const Json file = parse_json_of_any_names(read_file(path, kMostFileBytes));
  if (file.is_discarded()) throw Error("JSON expected: it is corrupt, or another file");
  return tokenizer_of(file);
} catch (const Json::exception& e) {
  throw Error(fmt::format("tokenizer '{}': {}", path.string(), printable(e.what())));
} catch (const Error& e) {
  throw Error(fmt::format("tokenizer '{}': {}", path.string(), e.what()));
}

}  // namespace halfstep
