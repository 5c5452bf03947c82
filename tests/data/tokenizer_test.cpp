// Tokenizers against recorded encodings of Hugging Face's `tokenizers` (0.23.3), on text of many scripts.
#include "data/tokenizer.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/data_feed.h"
#include "data/table.h"
#include "tests/data/data_files.h"

namespace halfstep {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

class Tokenizers : public testing::Test {
 protected:
  static json recorded(const std::string& name) {
    return json::parse(
        read_file(std::filesystem::path(HALFSTEP_SOURCE_DIR) / "tests/data/tokenizers" / (name + ".json")));
  }
  std::string file(const json& tokenizer) { return write(directory_, "tokenizer.json", tokenizer.dump()).string(); }
  void refuse(const json& tokenizer, const std::string& message) {
    EXPECT_THAT([&] { read_tokenizer(file(tokenizer)); },
                ThrowsMessage<Error>(testing::AllOf(HasSubstr("tokenizer.json': "), HasSubstr(message))));
  }
  TemporaryDirectory directory_;
};

TEST_F(Tokenizers, EncodeAsTheirReferenceDoes) {
  for (const char* name : {"byte_level", "byte_level_prefix", "wordpiece", "wordpiece_cased"}) {
    const json all = recorded(name);
    const std::shared_ptr<const Tokenizer> tokenizer = read_tokenizer(file(all["tokenizer"]));
    ASSERT_GT(all["cases"].size(), 150u);
    for (const json& one : all["cases"])
      EXPECT_EQ(tokenizer->encode(one["text"].get<std::string>()), one["ids"].get<std::vector<uint32_t>>())
          << name << ": " << one["text"];
    std::vector<uint32_t> whole = tokenizer->before(), text = tokenizer->encode("a model");
    whole.insert(whole.end(), text.begin(), text.end());
    whole.insert(whole.end(), tokenizer->behind().begin(), tokenizer->behind().end());
    EXPECT_EQ(whole, all["whole"].get<std::vector<uint32_t>>()) << name;
  }
}

TEST_F(Tokenizers, LongWordsTakeNoLonger) {
  const std::shared_ptr<const Tokenizer> tokenizer = read_tokenizer(file(recorded("byte_level")["tokenizer"]));
  std::string text;
  for (int i = 0; i < 300000; ++i) text += "theing"[i * 7 % 6];
  EXPECT_GT(tokenizer->encode(text).size(), 50000u);  // quadratic, it would take minutes
}

TEST_F(Tokenizers, OtherKindsAreRefusedByName) {
  const json bytes = recorded("byte_level")["tokenizer"], pieces = recorded("wordpiece")["tokenizer"];
  const auto with = [](json base, const char* pointer, const json& value) {
    base[json::json_pointer(pointer)] = value;
    return base;
  };
  refuse(with(bytes, "/model/type", "Unigram"), "model 'Unigram': BPE or WordPiece expected");
  refuse(with(bytes, "/pre_tokenizer/type", "Metaspace"), "pre_tokenizer 'Metaspace': ByteLevel expected");
  refuse(with(bytes, "/pre_tokenizer/use_regex", false), "ByteLevel without use_regex");
  refuse(with(bytes, "/normalizer", {{"type", "NFKC"}}), "normalizer 'NFKC': none expected");
  refuse(with(bytes, "/model/merges/0", "t"), "merge 't': two parts expected");
  refuse(with(bytes, "/model/merges/0", "t nothere"), "the vocabulary lacks 'nothere'");
  refuse(with(bytes, "/model/vocab/a", -3), "a token has the id -3");
  refuse(with(bytes, "/model/vocab/a", 3e66), "an integer of 64 bits expected, found 3e+66");
  refuse(with(bytes, "/model/vocab", 3), "");
  refuse(with(bytes, "/added_tokens/0/single_word", true), "none of a single_word expected");
  refuse(with(pieces, "/post_processor/type", "Other"), "post_processor 'Other'");
  refuse(with(pieces, "/model/unk_token", "[no]"), "the vocabulary lacks '[no]'");
  refuse(with(pieces, "/pre_tokenizer", nullptr), "pre_tokenizer '': BertPreTokenizer expected");
  refuse(json::array(), "");
  const std::string cut = write(directory_, "cut.json", bytes.dump().substr(0, 500)).string();
  EXPECT_THAT([&] { read_tokenizer(cut); }, ThrowsMessage<Error>(HasSubstr("cut.json': ")));
}

TEST_F(Tokenizers, DeeplyNestedFilesAreRefused) {
  std::string inner;
  for (int i = 0; i < 200000; ++i) inner += R"({"type":"Sequence","processors":[)";
  inner += "null";
  for (int i = 0; i < 200000; ++i) inner += "]}";
  std::string text = recorded("byte_level")["tokenizer"].dump();
  text.insert(1, R"("post_processor":)" + inner + ",");
  const std::string deep = write(directory_, "deep.json", text).string();
  EXPECT_THAT([&] { read_tokenizer(deep); }, ThrowsMessage<Error>(HasSubstr("JSON nested more than 64 deep")));
}

// Whatever length of words the file allows, only pieces of the vocabulary are looked for.
TEST_F(Tokenizers, LongWordsOfPiecesTakeNoLonger) {
  json pieces = recorded("wordpiece")["tokenizer"];
  pieces["model"]["max_input_chars_per_word"] = 1000000;
  const std::string word(100000, 'a');
  EXPECT_GT(read_tokenizer(file(pieces))->encode(word).size(), 1u);  // cubic, it would take days
}

TEST_F(Tokenizers, TextsOfATableArePaddedAndCut) {
  const json all = recorded("wordpiece");
  const std::string tokenizer = file(all["tokenizer"]);
  const std::string path =
      write(directory_, "t.csv", "text,kind\na model,good\n\"a model, a model a model\",bad\n").string();
  const DataOptions options{.text_column = "text", .tokenizer = tokenizer};
  const Dataset data = open_dataset(path, Split::train, options);
  EXPECT_EQ(data.size(), 2);
  EXPECT_THAT(data.facts.classes, ElementsAre("bad", "good"));
  const auto whole = all["whole"].get<std::vector<double>>();
  const auto length = static_cast<int64_t>(whole.size()) + 1;
  const Program p{"train",
                  {{"input_ids", BufferKind::input, {DType::i64, {2, length}}},
                   {"attention_mask", BufferKind::input, {DType::f32, {2, length}}},
                   {"labels", BufferKind::input, {DType::i64, {2}}},
                   {"token_type_ids", BufferKind::input, {DType::i64, {2, length}}}},
                  {}};
  const DataFeed feed(data, p, {});
  std::vector<Tensor> filled;
  for (const Buffer& b : p.buffers) filled.emplace_back(b.type);
  const std::vector<std::span<std::byte>> spans{filled[0].data, filled[1].data, filled[2].data, filled[3].data};
  feed.fill(std::vector<int64_t>{0, 1}, {}, spans);
  for (int64_t i = 0; i < length; ++i) {
    const bool stands = i + 1 < length;
    EXPECT_EQ(filled[0].at(i), stands ? whole[static_cast<size_t>(i)] : 0);
    EXPECT_EQ(filled[1].at(i), stands ? 1 : 0);
    EXPECT_EQ(filled[1].at(length + i), 1);
  }
  EXPECT_EQ(filled[0].at(2 * length - 1), 3);  // [SEP] ends what is cut
  EXPECT_THAT(feed.remarks(), testing::Contains(HasSubstr("1 of 2 texts are longer than input 'input_ids'")));
  EXPECT_THAT([&] { feed.check({.rows = {{"input_ids", 100}}}); },
              ThrowsMessage<Error>(HasSubstr("has 100 rows: is it another model's?")));
  EXPECT_THAT([&] { open_dataset(path, Split::train, {.text_column = "text"}); },
              ThrowsMessage<Error>(HasSubstr("name its tokenizer.json with tokenizer")));
}

TEST_F(Tokenizers, AStreamOfTextIsEncodedAndMeasuredInBytes) {
  const std::string tokenizer = file(recorded("byte_level")["tokenizer"]);
  std::string text;
  for (int i = 0; i < 50; ++i) text += "the training of a model\n";
  const Dataset data = open_tokens(write(directory_, "t.txt", text).string(), tokenizer);
  const std::vector<uint32_t> ids = read_tokenizer(tokenizer)->encode(text);
  ASSERT_EQ(data.tokens->size(), static_cast<int64_t>(ids.size()));
  std::vector<int64_t> read(10);
  data.tokens->file->read(7, read);
  EXPECT_TRUE(std::ranges::equal(read, std::span(ids).subspan(7, 10)));
  EXPECT_DOUBLE_EQ(data.tokens->file->bytes_per_token(),
                   static_cast<double>(text.size()) / static_cast<double>(ids.size()));
  EXPECT_FALSE(data.tokens->file->is_text());
}

}  // namespace
}  // namespace halfstep
