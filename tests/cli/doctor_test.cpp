// halfstep doctor through the executable: what it prints, the files that it writes and what they do, --check, bad
// input.
#include <filesystem>

#include "tests/cli/json_schema.h"
#include "tests/cli/planted_faults.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class DoctorCommand : public Cli {
 protected:
  // A product that overflows in preset torch, and data for it.
  void write_faulty() {
    const PlantedFault fault = planted_faults().front();
    write("m.onnx", fault.model);
    keys_ = fault.keys + fault_data(path(""), fault);
  }
  void write_healthy() {
    const TestModel model = Layers().linear("in", 16, 1).op("Relu", "relu").linear("out", 4, 1).done();
    write("m.onnx", model);
    keys_ = fault_data(path(""), {"", model, {}, {}, ""});
  }
  Finished doctor(const Arguments& more) const {
    return run(Arguments{"doctor", "m.onnx", "--steps", "4"} + keys_ + more);
  }
  static json schema(const std::string& name = "doctor") {
    return json::parse(read_file(std::string(HALFSTEP_SOURCE_DIR) + "/docs/schemas/" + name + ".schema.json"));
  }
  // The type that each node of the file writes.
  std::map<std::string, std::string> results(const Arguments& arguments) const {
    std::map<std::string, std::string> found;
    const json report = json::parse(succeed(Arguments{"inspect"} + arguments + Arguments{"--json"}));
    for (const json& node : report["nodes"])
      if (node["result"].is_string())
        found[node["node"]] = node["operand"].get<std::string>() + " " + node["result"].get<std::string>();
    return found;
  }
  // A shell script that says good or bad of the policy file it is given.
  void write_script(const std::string& name, const std::string& body) {
    write(name, "#!/bin/sh\n" + body + "\n");
    std::filesystem::permissions(path(name), std::filesystem::perms::owner_all);
  }

  Arguments keys_;
};

TEST_F(DoctorCommand, TellsTheFirstCauseAndWhatMendsIt) {
  write_faulty();
  const Finished done = doctor({});
  EXPECT_EQ(done.exit_code, 4) << done.err;
  EXPECT_THAT(done.out, AllOf(HasSubstr("4 steps in fp32 and in fp16 side by side"),
                              HasSubstr("  1. overflow 'down': the output of 'down' is not finite in f16"),
                              HasSubstr("remedy: keep 'down' in fp32"), HasSubstr("remedy: proven"),
                              HasSubstr("'down' in fp32\n"), HasSubstr("doctor.policy.toml\n"),
                              HasSubstr("doctor.recipe.toml\n"), HasSubstr("more tensors are well within range")));
  EXPECT_THAT(doctor({"--all"}).out, Not(HasSubstr("more tensors are well within range")));
}

TEST_F(DoctorCommand, TheJsonIsOfItsSchema) {
  write_faulty();
  const Finished done = doctor({"--json", "-o", "mended.policy.toml"});
  EXPECT_EQ(done.exit_code, 4) << done.err;
  const json report = json::parse(done.out);
  EXPECT_THAT(schema_problems(schema(), report), IsEmpty());
  EXPECT_EQ(report["healthy"], false);
  EXPECT_EQ(report["findings"][0]["node"], "down");
  EXPECT_EQ(report["proof"]["outcome"], "proven");
  EXPECT_EQ(report["policy"]["file"], path("mended.policy.toml").string());
  EXPECT_EQ(report["recipe"], path("mended.recipe.toml").string());
  EXPECT_THAT(done.err, IsEmpty());
  json changed = report;
  changed["schema_version"] = 0, changed["tensors"][0]["direction"] = "sideways", changed["proof"].erase("fp32");
  EXPECT_EQ(schema_problems(schema(), changed).size(), 3u);
}

TEST_F(DoctorCommand, OfAHealthyTrainingSaysSoAndWritesNothing) {
  write_healthy();
  const Finished done = doctor({});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.out, HasSubstr("healthy: nothing differs that precision is at fault for"));
  EXPECT_FALSE(std::filesystem::exists(path("doctor.policy.toml")));
  const Finished as_json = doctor({"--json"});
  EXPECT_EQ(as_json.exit_code, 0) << as_json.err;
  EXPECT_THAT(schema_problems(schema(), json::parse(as_json.out)), IsEmpty());
  EXPECT_EQ(json::parse(as_json.out)["healthy"], true);
}

TEST_F(DoctorCommand, NeedsNoDataForRandomInputs) {
  write("m.onnx", planted_faults().front().model);
  const Finished done = run({"doctor", "m.onnx", "--random", "3", "--batch", "8", "--preset", "torch", "--json"});
  EXPECT_EQ(done.exit_code, 4) << done.err;
  EXPECT_EQ(json::parse(done.out)["findings"][0]["node"], "down");
}

TEST_F(DoctorCommand, ItsFilesAreWhatTrainAndInspectTake) {
  write_faulty();
  EXPECT_EQ(doctor({"-o", "there.policy.toml"}).exit_code, 4);
  const auto by_policy = results({"m.onnx", "--batch", "8", "--policy", "there.policy.toml"});
  EXPECT_EQ(by_policy.at("down"), "f32 f32");
  EXPECT_EQ(by_policy.at("up"), "f16 f16");
  EXPECT_EQ(by_policy, results({"there.recipe.toml"}));
  EXPECT_NE(by_policy, results({"m.onnx", "--batch", "8", "--preset", "torch"}));
  succeed({"train", "there.recipe.toml", "--out", "mended"});
  EXPECT_THAT(read("mended/metrics.jsonl"), AllOf(HasSubstr("\"skipped\":false"), Not(HasSubstr("\"skipped\":true"))));
  EXPECT_THAT(read("mended/recipe.toml"), HasSubstr("deny = [\"down\"]"));
  EXPECT_EQ(run(Arguments{"train", "m.onnx", "--out", "faulty"} + keys_).exit_code, 1);
}

TEST_F(DoctorCommand, TheRecipesOwnPolicyIsExtended) {
  write_faulty();
  std::filesystem::create_directory(path("mine"));
  write("mine/own.toml", "version = 1\nextends = [\"torch\"]\n[[rule]]\nnode = \"up\"\nprecision = \"fp32\"\n");
  write("r.toml", "model = \"m.onnx\"\npolicy = \"mine/own.toml\"\nbatch = 8\ndata = \"x=x.npy,labels=labels.npy\"\n");
  std::filesystem::create_directory(path("out"));
  EXPECT_EQ(run({"doctor", "r.toml", "--steps", "4", "-o", "out/all.policy.toml"}).exit_code, 4);
  const auto by_policy = results({"m.onnx", "--batch", "8", "--policy", "out/all.policy.toml"});
  EXPECT_EQ(by_policy.at("down"), "f32 f32");
  EXPECT_EQ(by_policy.at("up"), "f32 f32");
  EXPECT_EQ(by_policy, results({"out/all.recipe.toml"}));
}

TEST_F(DoctorCommand, WritesOverNothingOfTheUsers) {
  write_healthy();
  const std::string extended = "version = 1\nextends = [\"torch\"]\n",
                    extending = "version = 1\nextends = [\"own.toml\"]\n";
  write("own.toml", extended), write("doctor.policy.toml", extending);
  const Arguments doctor = Arguments{"doctor", "m.onnx", "--policy", "doctor.policy.toml"} + keys_;
  fail(1, doctor + Arguments{"--check", "true"}, {"doctor.policy.toml' is read", "-o"});
  fail(1, doctor + Arguments{"-o", "own.toml"}, {"own.toml' is read", "-o"});
  fail(1, Arguments{"doctor", "m.onnx", "--random", "2"}, {"doctor.policy.toml' is there", "not made by", "-o"});
  EXPECT_EQ(read("own.toml") + read("doctor.policy.toml"), extended + extending);

  const std::string recipe = "# made by halfstep doctor\nmodel = \"m.onnx\"\n";
  write("new.recipe.toml", recipe);
  fail(1, {"doctor", "new.recipe.toml", "--random", "2", "-o", "new.policy.toml"}, {"new.recipe.toml' is read", "-o"});
  EXPECT_EQ(read("new.recipe.toml"), recipe);
}

TEST_F(DoctorCommand, BisectsByTheUsersCommand) {
  write_healthy();
  write_script("judge.sh", "grep -q '\"out\"' \"$1\" && grep -q '\"in\"' \"$HALFSTEP_POLICY\"");
  const Finished done = doctor({"--check", "./judge.sh {policy}", "-o", "a b.toml"});
  EXPECT_EQ(done.exit_code, 4) << done.err;
  EXPECT_THAT(done.out, AllOf(HasSubstr("2 of "), HasSubstr("  'in'\n"), HasSubstr("  'out'\n")));
  const auto types = results({"m.onnx", "--policy", "a b.toml"});
  EXPECT_EQ(types.at("in") + types.at("out"), "f32 f32f32 f32");
  const Finished as_json = doctor({"--check", "./judge.sh {policy}", "--json"});
  EXPECT_EQ(json::parse(as_json.out)["policy"]["rules"], json({"in", "out"}));
  EXPECT_THAT(schema_problems(schema("doctor_check"), json::parse(as_json.out)), IsEmpty());
}

TEST_F(DoctorCommand, CommandsThatTellNothingAreRefused) {
  write_healthy();
  const auto told = [&](const std::string& command) {
    const Finished done = doctor({"--check", command});
    EXPECT_EQ(done.exit_code, 1);
    EXPECT_THAT(done.out, IsEmpty());
    return done.err;
  };
  EXPECT_THAT(told("false"), AllOf(HasSubstr("fails even with all"), HasSubstr("no precision is at fault")));
  EXPECT_THAT(told("true"), HasSubstr("succeeds with a policy that denies nothing"));
  EXPECT_THAT(told("./nothing_is_here {policy}"),
              AllOf(HasSubstr("finds no such command"), HasSubstr("./nothing_is_here")));
  EXPECT_THAT(told("kill -TERM $$"), HasSubstr("stopped by a signal"));
}

TEST_F(DoctorCommand, BadInputIsToldAtOnce) {
  write_healthy();
  fail(1, {"doctor", "m.onnx"}, {"no training data is given", "--random 20"});
  fail(1, Arguments{"doctor", "m.onnx", "--preset", "tourch"} + keys_, {"preset", "tourch", "torch"});
  fail(1, Arguments{"doctor", "m.onnx", "--precision", "fp32"} + keys_, {"precision is fp32", "fp16 or bf16"});
  fail(1, Arguments{"doctor", "m.onnx", "--random", "2", "-o", "no/such/place.toml"}, {"no/such"});
  fail(1, Arguments{"doctor", "m.onnx", "--html", "no/such/page.html", "-o", "nor/here.toml"},
       {"no training data is given", "no/such", "nor"});
  fail(1, Arguments{"doctor", "missing.onnx", "--random", "2"}, {"missing.onnx"});
  fail(2, {"doctor", "m.onnx", "--steps", "0"}, {"--steps"});
  fail(2, Arguments{"doctor", "m.onnx", "--random", "2", "--check", "true", "--html", "p.html"}, {"--html", "--check"});
}

}  // namespace
}  // namespace halfstep::test
