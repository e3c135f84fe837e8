// examples/pdf-to-audio, as `pipegen up` runs it.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "up.hpp"

namespace pipegen::testing {

inline const std::filesystem::path kSource = PIPEGEN_SOURCE_DIR;
inline const std::filesystem::path kExample = kSource / "examples" / "pdf-to-audio";
inline const std::filesystem::path kFolder = PIPEGEN_E2E_FOLDER;
inline const std::vector<std::string> kWorkers{"pdf-to-png", "png-to-text", "tts", "pcm-to-wav", "wav-aggregator"};

inline nlohmann::json stage_of(const nlohmann::json& status, const std::string& name) {
  for (const auto& stage : status.at("stages")) {
    if (stage.at("stage") == name) return stage;
  }
  throw std::runtime_error("the status has no stage " + name + ": " + status.dump());
}

/// The example pipeline with a document that was read aloud without any disturbance. Built once for all the tests.
class PdfToAudio : public ::testing::Test {
 protected:
  static std::filesystem::path workspace() { return kFolder / "pdf-to-audio"; }
  static std::filesystem::path schema() { return kExample / "pipeline.yaml"; }
  static std::string book() { return read_file(kExample / "sample.pdf"); }

  static std::string post(const Up& up, const std::string& pdf) {
    return upload(up.api(), "/documents", pdf, "application/pdf");
  }
  static std::string audio(const Up& up, const std::string& workflow) {
    const Answer answer = get(up.api(), workflow + "/audio");
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.body;
  }

  /// Waits until `stage` has dealt with `count` messages of the workflow.
  static bool await_stage(const Up& up, const std::string& workflow, const std::string& stage, int count) {
    return await(std::chrono::minutes(3),
                 [&] { return stage_of(get(up.api(), workflow).json(), stage).at("done") >= count; });
  }

  /// The audio of sample.pdf when nothing goes wrong.
  static const std::string& undisturbed() {
    static const std::string kAudio = [] {
      Up up(schema(), workspace());
      const std::string workflow = post(up, book());
      const nlohmann::json status = finished(up.api(), workflow);
      if (status.at("state") != "completed") throw std::runtime_error(status.dump());
      return audio(up, workflow);
    }();
    return kAudio;
  }
};

}  // namespace pipegen::testing
