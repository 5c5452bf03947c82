#include "training/recipe_groups.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace halfstep {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(RecipeGroups, AreReadAndWritten) {
  const std::string text =
      "parameters=head.*|neck.*,learning_rate=0.01;parameters=vectors,weight_decay=0,optimizer=adamw";
  const std::vector<RecipeGroup> groups = read_groups(text);
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_THAT(groups[0].parameters, testing::ElementsAre("head.*", "neck.*"));
  EXPECT_EQ(groups[0].learning_rate, 0.01);
  EXPECT_EQ(groups[1].weight_decay, 0);
  EXPECT_EQ(groups[1].optimizer, "adamw");
  EXPECT_EQ(write_groups(groups), text);
  EXPECT_EQ(read_groups(write_groups(groups)), groups);
}

TEST(RecipeGroups, MistakesNameTheirGroup) {
  const auto refuse = [](const std::string& text, const std::string& part) {
    EXPECT_THAT([&] { read_groups(text); }, ThrowsMessage<Error>(HasSubstr(part))) << text;
  };
  refuse("parameters=a,learning_rat=1", "group 1: no key 'learning_rat'; did you mean 'learning_rate'?");
  refuse("parameters=a,learning_rate=-1", "group 1: learning_rate: a number of at least 0 expected, found '-1'");
  refuse("parameters=a,weight_decay=1;learning_rate=1", "group 2: parameters are missing");
  refuse("parameters=a", "group 1: it changes nothing");
  refuse("parameters=a||b,weight_decay=1", "group 1: parameters: patterns of names expected");
  refuse("parameters", "group 1: KEY=VALUE expected, found 'parameters'");
}

TEST(RecipeGroups, UnfreezingNamesEpochs) {
  const std::vector<UnfreezeRule> rules = read_unfreeze("layer4.*=2,layer[12].*=5");
  ASSERT_EQ(rules.size(), 2u);
  EXPECT_EQ(rules[1].pattern, "layer[12].*");
  EXPECT_EQ(rules[1].epoch, 5);
  EXPECT_EQ(write_unfreeze(rules), "layer4.*=2,layer[12].*=5");
  for (const char* text : {"layer4", "layer4=0", "layer4=x", "=2", "a=1,"})
    EXPECT_THAT([&] { read_unfreeze(text); }, ThrowsMessage<Error>(HasSubstr("PATTERN=EPOCH expected"))) << text;
}

}  // namespace
}  // namespace halfstep
