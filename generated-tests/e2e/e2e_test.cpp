// Whole pipelines: generated, built and run by `pipegen up`, with real servers and real work.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <map>
#include <memory>
#include <regex>
#include <set>

#include "audio.hpp"
#include "pdf_to_audio.hpp"
#include "pipegen/nats.hpp"
#include "pipegen/object_store.hpp"
#include "support/trace_collector.hpp"
#include "up.hpp"

namespace pipegen::testing {
namespace {

using namespace std::chrono_literals;

std::string text_of(const Bytes& bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

TEST_F(PdfToAudio, ThePagesOfABookAreReadSpokenAndJoinedInOrder) {
  Up up(schema(), workspace());
  const std::string workflow = post(up, book());
  const nlohmann::json status = finished(up.api(), workflow);
  ASSERT_EQ(status.at("state"), "completed") << status.dump();
  const int pages = stage_of(status, "png-to-text").at("expected");
  ASSERT_GT(pages, 1) << status.dump();
  for (const std::string stage : {"png-to-text", "tts", "pcm-to-wav", "wav-aggregator"}) {
    EXPECT_EQ(stage_of(status, stage).at("done"), pages) << status.dump();
  }

  nats::Connection connection({.url = up.nats(), .name = "e2e"});
  const std::string id = workflow.substr(workflow.rfind('/') + 1);
  ObjectStore texts(connection, "TEXT_FILES");
  ObjectStore wavs(connection, "WAV_FILES");
  std::string text, samples;
  for (int page = 1; page <= pages; ++page) {
    text += text_of(texts.get(id + "/" + std::to_string(page) + ".txt")) + "\n";
    samples += parse_wav(text_of(wavs.get(id + "/" + std::to_string(page) + ".wav"))).samples;
  }
  const std::vector<std::string> expected = words(read_file(kExample / "sample.txt"));
  EXPECT_GE(share_in_order(expected, words(text)), 0.95) << text;

  const Wav wav = parse_wav(audio(up, workflow));
  EXPECT_EQ(wav.sample_rate, 22050);
  EXPECT_EQ(wav.channels, 1);
  EXPECT_EQ(wav.bits, 16);
  EXPECT_GT(wav.peak(), 1000) << "it is silent";
  EXPECT_TRUE(wav.samples == samples) << "the pages are not joined in their order";
  const double words_a_minute = static_cast<double>(expected.size()) / wav.seconds() * 60;
  EXPECT_GT(words_a_minute, 80);
  EXPECT_LT(words_a_minute, 260);

  EXPECT_EQ(up.stop(SIGTERM), 0);
}

TEST_F(PdfToAudio, OneUploadIsOneTraceAcrossAllServices) {
  TraceCollector collector;
  ::setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url().c_str(), 1);
  const struct Unset {
    ~Unset() { ::unsetenv("OTEL_EXPORTER_OTLP_ENDPOINT"); }
  } unset;
  Up up(schema(), workspace());
  const std::string workflow = post(up, book());
  const nlohmann::json status = finished(up.api(), workflow);
  ASSERT_EQ(status.at("state"), "completed") << status.dump();
  const auto pages = stage_of(status, "tts").at("done").get<std::size_t>();
  // What is not sent yet is sent at the end.
  EXPECT_EQ(up.stop(SIGTERM), 0) << up.log();
  EXPECT_EQ(collector.problems(), std::vector<std::string>{});

  std::map<std::string, std::vector<CollectedSpan>> traces;
  for (const CollectedSpan& span : collector.spans()) traces[span.trace].push_back(span);
  std::vector<CollectedSpan> upload;
  for (const auto& [id, spans] : traces) {
    EXPECT_EQ(orphans(spans), std::multiset<std::string>{}) << id;
    EXPECT_EQ(std::ranges::count_if(spans, [](const auto& span) { return span.parent.empty(); }), 1) << id;
    if (std::ranges::any_of(spans, [](const auto& span) { return span.name == "POST /documents"; })) {
      ASSERT_TRUE(upload.empty()) << "it is in two traces";
      upload = spans;
    } else {
      for (const auto& span : spans) EXPECT_TRUE(span.name.starts_with("GET ")) << span.service << ": " << span.name;
    }
  }
  std::map<std::string, std::size_t> handled;  // by service
  std::set<std::string> services;
  for (const CollectedSpan& span : upload) {
    services.insert(span.service);
    if (span.kind == 5) ++handled[span.service];
    EXPECT_FALSE(span.failed) << span.service << ": " << span.name << ": " << span.error;
  }
  EXPECT_EQ(services.size(), kWorkers.size() + 1) << "the workers and the API";
  for (const std::string& worker : kWorkers) EXPECT_EQ(handled[worker], worker == "pdf-to-png" ? 1 : pages) << worker;
  for (const std::string& line : {std::string("traces are exported"), std::string("spans cannot be exported")}) {
    EXPECT_EQ(up.log().find(line) == std::string::npos, line.starts_with("spans")) << up.log();
  }
}

TEST_F(PdfToAudio, UpPrintsOneLineOnStdoutAndEverythingElseOnStderr) {
  Up up(schema(), workspace());
  finished(up.api(), post(up, book()));
  EXPECT_TRUE(await(10s, [&] { return up.log().find("wav-aggregator: ") != std::string::npos; })) << up.log();
  EXPECT_EQ(up.stop(SIGINT), 0);
  EXPECT_TRUE(std::regex_match(
      up.out(), std::regex("ready api=http://127\\.0\\.0\\.1:[0-9]+ nats=nats://127\\.0\\.0\\.1:[0-9]+\n")))
      << up.out();
  EXPECT_EQ(up.log().find('\x1b'), std::string::npos) << "colours, though it is not a terminal";
  EXPECT_NE(up.log().find("tts: "), std::string::npos) << up.log();
}

TEST_F(PdfToAudio, StoppedInTheMiddleAndStartedAgainItGoesOnWhereItWas) {
  const std::filesystem::path data = kFolder / "data";
  std::filesystem::remove_all(data);
  std::string workflow;
  {
    Up up(schema(), workspace(), {"--data", data.string()});
    workflow = post(up, book());
    ASSERT_TRUE(await_stage(up, workflow, "png-to-text", 1));
    const std::vector<pid_t> processes = family(up.pid());
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(up.stop(SIGTERM), 0) << up.log();
    EXPECT_LT(std::chrono::steady_clock::now() - start, 40s);
    for (const pid_t pid : processes) EXPECT_FALSE(alive(pid));
    EXPECT_EQ(up.log().find("does not stop"), std::string::npos) << up.log();
  }
  Up up(schema(), workspace(), {"--data", data.string()});
  const nlohmann::json status = finished(up.api(), workflow);
  ASSERT_EQ(status.at("state"), "completed") << status.dump();
  EXPECT_TRUE(audio(up, workflow) == undisturbed());
}

TEST_F(PdfToAudio, NothingSurvivesAPipegenThatIsKilled) {
  Up up(schema(), workspace());
  const std::vector<pid_t> processes = family(up.pid());
  ASSERT_EQ(processes.size(), 1 + kWorkers.size() + 2) << "pipegen, the workers, the API and nats-server";
  up.stop(SIGKILL);
  for (const pid_t pid : processes) {
    EXPECT_TRUE(await(10s, [&] { return !alive(pid); })) << read_file("/proc/" + std::to_string(pid) + "/cmdline");
  }
}

/// Replaces the only place of `from`.
std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  if (at == std::string::npos || text.find(from, at + 1) != std::string::npos) {
    throw std::runtime_error("expected once: " + from + " in\n" + text);
  }
  return text.replace(at, from.size(), to);
}

const std::filesystem::path kThumbnails = kSource / "examples" / "thumbnails";

/// A grey picture that every image library reads (PGM).
std::string picture(int width, int height) {
  return "P5\n" + std::to_string(width) + " " + std::to_string(height) + "\n255\n" +
         std::string(static_cast<std::size_t>(width) * static_cast<std::size_t>(height), '\x80');
}

/// Big-endian, from the header of a PNG.
int png_width(const std::string& png) {
  if (png.size() < 24 || png.substr(1, 3) != "PNG") throw std::runtime_error("not a PNG: " + png.substr(0, 200));
  int width = 0;
  for (int i = 16; i < 20; ++i) width = width * 256 + static_cast<unsigned char>(png[static_cast<std::size_t>(i)]);
  return width;
}

TEST(CustomStage, AHandlerOfTheUsersRunsAndSurvivesAChangeOfTheSchema) {
  const std::filesystem::path schema = kFolder / "thumbnails-schema" / "pipeline.yaml";
  const std::filesystem::path workspace = kFolder / "thumbnails";
  std::filesystem::remove_all(workspace);
  const std::string original = read_file(kThumbnails / "pipeline.yaml");
  write_file(schema, original);

  const auto generate = [&] {
    return run_pipegen({"generate-all", "--schema", schema.string(), "--output", workspace.string()});
  };
  const Ran first = generate();
  ASSERT_EQ(first.status, 0) << first.output;
  const std::filesystem::path handler = workspace / "thumbnail" / "src" / "handler.cpp";
  ASSERT_TRUE(std::filesystem::exists(handler)) << first.output;
  const std::string mine = "// Mine.\n" + read_file(kThumbnails / "handler.cpp");
  write_file(handler, mine);
  write_file(workspace / "thumbnail" / "src" / "sources.cmake", read_file(kThumbnails / "sources.cmake"));

  // A field that the user's handler does not know.
  write_file(schema, replaced(original, "      thumbnail_key: object<THUMBNAIL_FILES>\n",
                              "      thumbnail_key: object<THUMBNAIL_FILES>\n      note: string?\n"));
  const Ran second = generate();
  ASSERT_EQ(second.status, 0) << second.output;
  EXPECT_EQ(read_file(handler), mine);
  EXPECT_NE(read_file(workspace / "thumbnail" / "generated" / "thumbnail" / "events.hpp").find("note"),
            std::string::npos);

  Up up(schema, workspace);
  EXPECT_EQ(read_file(handler), mine);
  const std::string good = upload(up.api(), "/pictures?width=120", picture(400, 300), "image/png");
  const std::string bad = upload(up.api(), "/pictures", "no picture", "image/png");
  const nlohmann::json done = finished(up.api(), good);
  ASSERT_EQ(done.at("state"), "completed") << done.dump();
  EXPECT_EQ(png_width(get(up.api(), good + "/thumbnail").body), 120);
  const nlohmann::json failed = finished(up.api(), bad);
  ASSERT_EQ(failed.at("state"), "failed") << failed.dump();
  EXPECT_NE(failed["failures"][0].at("reason").get<std::string>().find("is not a picture"), std::string::npos);
  EXPECT_EQ(up.stop(SIGTERM), 0);
}

TEST(CustomStage, StagesComeAndGoInABuildFolderThatIsThere) {
  const std::filesystem::path schema = kFolder / "growing-schema" / "pipeline.yaml";
  const std::filesystem::path workspace = kFolder / "growing";
  std::filesystem::remove_all(workspace);
  const std::string original = read_file(kThumbnails / "pipeline.yaml");
  const std::string larger =
      replaced(original, "stages:\n", "stages:\n  audit: {consumes: ThumbnailCreatedEvent, uses: custom}\n");
  for (const std::string& text : {original, larger, original}) {
    write_file(schema, text);
    Up up(schema, workspace);
    EXPECT_EQ(std::filesystem::exists(workspace / "audit" / "generated"), text == larger);
    EXPECT_EQ(read_file(workspace / "build" / "build.ninja").find("pipegen_ocr"), std::string::npos)
        << "the runtime is configured with more than the services need";
    EXPECT_EQ(up.stop(SIGTERM), 0);
  }
}

TEST(Up, AServiceThatDoesNotCompileIsShownWithTheCompilersOwnWords) {
  const std::filesystem::path schema = kThumbnails / "pipeline.yaml";
  const std::filesystem::path workspace = kFolder / "broken";
  std::filesystem::remove_all(workspace);
  const Ran generated = run_pipegen({"generate-all", "--schema", schema.string(), "--output", workspace.string()});
  ASSERT_EQ(generated.status, 0) << generated.output;
  write_file(workspace / "thumbnail" / "src" / "handler.cpp", "this is not C++\n");
  const Ran ran = run_pipegen({"up", "--schema", schema.string(), "--output", workspace.string()});
  EXPECT_EQ(ran.status, 1);
  EXPECT_NE(ran.output.find("handler.cpp:1:1: error"), std::string::npos) << ran.output;
}

}  // namespace
}  // namespace pipegen::testing
