// What goes wrong, done on purpose: bad documents, processes that are killed, handlers that misbehave.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <sstream>
#include <thread>

#include "nats/handles.hpp"
#include "pdf_to_audio.hpp"
#include "pipegen/nats.hpp"
#include "pipegen/object_store.hpp"
#include "support/pdf.hpp"
#include "support/soak.hpp"

namespace pipegen::testing {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

/// A book of which no two pages are the same.
std::string book_of(int pages, int lines = 2) {
  std::vector<std::string> streams;
  for (int page = 1; page <= pages; ++page) {
    std::vector<std::string> text{"This is page " + std::to_string(page) + " of the book."};
    for (int line = 1; line < lines; ++line) {
      text.push_back("The lamp was lit " + std::to_string(page * line * 7 % 100) + " times that winter.");
    }
    streams.push_back(lines_of_text(text));
  }
  return pages_of(streams, 595, 842);
}

struct Stored {
  std::string payload;
  std::string workflow;
  std::string reason;
};

/// Everything that a stream holds.
std::vector<Stored> messages_of(nats::Connection& connection, const std::string& stream) {
  jsCtx* js = connection.handles().consume_js;
  nats::StreamInfo info;
  if (js_GetStreamInfo(info.out(), js, stream.c_str(), nullptr, nullptr) != NATS_OK) {
    throw std::runtime_error("cannot look into stream " + stream);
  }
  std::vector<Stored> result;
  for (std::uint64_t sequence = info->State.FirstSeq; sequence <= info->State.LastSeq; ++sequence) {
    nats::Message message;
    if (js_GetMsg(message.out(), js, stream.c_str(), sequence, nullptr, nullptr) != NATS_OK) continue;  // removed
    const auto header = [&](const char* name) {
      const char* value = nullptr;
      return natsMsgHeader_Get(message.get(), name, &value) == NATS_OK ? std::string(value) : std::string();
    };
    result.push_back(
        {std::string(nats::payload_of(message.get())), header("Pipegen-Workflow-Id"), header("Pipegen-Error-Message")});
  }
  return result;
}

std::string id_of(const std::string& workflow) { return workflow.substr(workflow.rfind('/') + 1); }

// --- bad documents ---------------------------------------------------------------------------------------------------

/// The smallest PNG: one grey pixel.
const std::string kPng(
    "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0\x3a\x7e\x9b\x55\0\0\0\nIDATx\x9c\x63h\0\0\0\x82\0\x81"
    "\x77\xcd\x72\xb6\0\0\0\0IEND\xae\x42\x60\x82",
    67);

TEST_F(PdfToAudio, ABadDocumentEndsWithAReasonOnItsPageAndTheOthersGoOn) {
  std::string noise(50'000, '\0');
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<char>((i * 2654435761U) >> 13);
  // The first page is whole, the font of the second is not in the file.
  std::string lost_font = book();
  lost_font.replace(lost_font.rfind("/F1 3 0 R"), 3, "/F2");
  const std::string text = lines_of_text({"This page is whole."});
  const std::string linearized = linearized_pdf({text, text, text, text});
  struct Case {
    std::string what, pdf, reason;  // `reason`: its beginning
  };
  const std::vector<Case> cases{
      {"random bytes", noise, "the file is not a PDF"},
      {"a PNG called .pdf", kPng, "the file is not a PDF"},
      {"cut off in its first page", book().substr(0, 300), "the PDF is damaged and cannot be opened"},
      {"cut off in its second page", book().substr(0, book().find("7 0 obj")), ""},
      {"linearized and cut", linearized.substr(0, linearized.size() * 6 / 10), "page "},
      {"no pages", pages_of({}), "the PDF has no pages"},
      {"a password", encrypted_pdf(), "the PDF needs a password"},
      {"a page of 14,400 points", pages_of({text}, 14'400), "page 1 of the PDF is too large: 40000 x 40000 pixels"},
      {"one damaged page", pages_of({text, stream_of("this is not what zlib makes", "/Filter /FlateDecode "), text}),
       "page 2 of the PDF is damaged"},
      {"a font that is not there", lost_font, "page 2 of the PDF is damaged"},
  };

  const std::string& reference = undisturbed();
  Up up(schema(), workspace());
  std::map<std::string, pid_t> processes;
  for (const std::string& worker : kWorkers) processes[worker] = up.service(worker).value();
  processes["ingest-api"] = up.service("ingest-api").value();

  // Nothing is kept of an empty one.
  const Answer empty = testing::post(up.api(), "/documents", "", "application/pdf");
  EXPECT_EQ(empty.status, 422) << empty.body;
  EXPECT_EQ(empty.json().at("detail"), "the document is empty");

  // Good documents between the bad ones; one of them has a name that a shell would have a lot to do with.
  std::vector<std::string> good{post(up, book())}, bad;
  for (const Case& one : cases) bad.push_back(post(up, one.pdf));
  const std::string name = "; $(touch /tmp/x) & ' \xc3\xa9 /..\x2f.pdf";
  good.push_back(upload(up.api(), "/documents",
                        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + name +
                            "\"\r\nContent-Type: application/pdf\r\n\r\n" + book() + "\r\n--b--\r\n",
                        "multipart/form-data; boundary=b"));
  good.push_back(post(up, linearized));

  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(cases[i].what);
    const nlohmann::json status = finished(up.api(), bad[i]);
    EXPECT_EQ(status.at("state"), "failed") << status.dump();
    ASSERT_EQ(status.at("failures").size(), 1U) << status.dump();
    EXPECT_EQ(status["failures"][0].at("stage"), "pdf-to-png");
    const auto reason = status["failures"][0].at("reason").get<std::string>();
    EXPECT_FALSE(reason.empty());
    EXPECT_TRUE(reason.starts_with(cases[i].reason)) << reason;
    const Answer audio = get(up.api(), bad[i] + "/audio");
    EXPECT_EQ(audio.status, 404);
    EXPECT_NE(audio.json().at("detail").get<std::string>().find(reason), std::string::npos) << audio.body;
  }
  for (const std::string& workflow : good) {
    const nlohmann::json status = finished(up.api(), workflow);
    EXPECT_EQ(status.at("state"), "completed") << status.dump();
    if (workflow == good.back()) continue;
    EXPECT_TRUE(audio(up, workflow) == reference);
  }
  for (const auto& [service, pid] : processes) EXPECT_EQ(up.service(service), pid) << service << " died\n" << up.log();
  nats::Connection connection({.url = up.nats(), .name = "e2e"});
  EXPECT_EQ(messages_of(connection, "PDF_TO_AUDIO_DLQ").size(), cases.size());
}

// --- processes that are killed ---------------------------------------------------------------------------------------

/// The example, but what a dead worker had in hand is given to another after two seconds.
std::filesystem::path impatient_schema() {
  const std::filesystem::path folder = kFolder / "pdf-to-audio-impatient-schema";
  for (const auto& file : std::filesystem::directory_iterator(kExample)) {
    if (file.path().extension() != ".yaml") continue;
    std::string text = read_file(file.path());
    const std::string before = "    timeout: ";
    if (const std::size_t at = text.find(before); at != std::string::npos) text.insert(at, "    ack_wait: 2s\n");
    write_file(folder / file.path().filename(), text);
  }
  return folder / "pipeline.yaml";
}

/// Uploads until it is accepted: the API, or nats-server, may just be dead.
std::string upload_surely(const Up& up, const std::string& pdf) {
  std::string workflow;
  const bool accepted = await(1min, [&] {
    try {
      workflow = upload(up.api(), "/documents", pdf, "application/pdf");
      return true;
    } catch (const std::runtime_error&) {
      return false;
    }
  });
  if (!accepted) throw std::runtime_error("no upload was accepted:\n" + up.log());
  return workflow;
}

/// "running" also when there is nobody to ask.
nlohmann::json status_or_nothing(const Up& up, const std::string& workflow) {
  try {
    const nlohmann::json status = get(up.api(), workflow).json();
    if (status.is_object() && status.contains("state")) return status;
  } catch (const std::runtime_error&) {
  }
  return {{"state", "running"}};
}

TEST_F(PdfToAudio, EveryServiceKilledAtRandomMomentsLeavesTheSameAudioOnce) {
  const char* given = std::getenv("PIPEGEN_SEED");
  const unsigned seed = given != nullptr ? static_cast<unsigned>(std::stoul(given)) : std::random_device{}();
  print_figure("kill -9 at random moments, seed (PIPEGEN_SEED)", seed, "");
  std::mt19937 random(seed);
  const int pages = soak() ? 20 : 12;
  const std::size_t kills = soak() ? 20 : 14;

  Up up(impatient_schema(), kFolder / "pdf-to-audio-impatient");
  const std::string pdf = book_of(pages);
  const auto start = Clock::now();
  const std::string first = post(up, pdf);
  ASSERT_EQ(finished(up.api(), first).at("state"), "completed") << up.log();
  const auto undisturbed_time = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  const std::string reference = audio(up, first);

  // All seven programs, in another order each time.
  std::vector<std::string> victims;
  while (victims.size() < kills) {
    std::vector<std::string> programs = kWorkers;
    programs.insert(programs.end(), {"ingest-api", "nats-server"});
    std::shuffle(programs.begin(), programs.end(), random);
    victims.insert(victims.end(), programs.begin(), programs.end());
  }
  victims.resize(kills);

  const auto began = Clock::now();
  std::vector<std::string> workflows{upload_surely(up, pdf)};
  std::uniform_int_distribution<std::int64_t> moment(0, 2 * undisturbed_time.count() / static_cast<int>(kills));
  std::string killed;
  for (const std::string& victim : victims) {
    std::this_thread::sleep_for(std::chrono::milliseconds(moment(random)));  // a moment that nothing chooses
    if (status_or_nothing(up, workflows.back()).at("state") != "running") workflows.push_back(upload_surely(up, pdf));
    std::optional<pid_t> pid;
    ASSERT_TRUE(await(1min, [&] { return (pid = up.service(victim)).has_value(); })) << victim << "\n" << up.log();
    ASSERT_EQ(::kill(*pid, SIGKILL), 0);
    killed += " " + victim;
  }

  workflows.push_back(first);
  for (const std::string& workflow : workflows) {
    nlohmann::json status;
    ASSERT_TRUE(await(5min,
                      [&] {
                        status = status_or_nothing(up, workflow);
                        return status.at("state") != "running";
                      }))
        << get(up.api(), workflow).body << "\nkilled:" << killed << "\n"
        << up.log();
    EXPECT_EQ(status.at("state"), "completed") << status.dump() << "\nkilled:" << killed;
    EXPECT_TRUE(audio(up, workflow) == reference) << "killed:" << killed;
  }
  print_figure("kill -9 of every service, kills", kills, "");
  print_figure("kill -9 of every service, documents of " + std::to_string(pages) + " pages", workflows.size(), "");
  print_figure("kill -9 of every service, from the first upload to the last audio",
               std::chrono::duration<double>(Clock::now() - began).count(), "s");

  nats::Connection connection({.url = up.nats(), .name = "e2e"});
  std::map<std::string, int> events, objects;
  for (const Stored& event : messages_of(connection, "FINAL_AUDIO")) ++events[event.workflow];
  for (const ObjectInfo& object : ObjectStore(connection, "FINAL_AUDIO_FILES").list()) ++objects[object.name];
  for (const std::string& workflow : workflows) {
    EXPECT_EQ(events[id_of(workflow)], 1) << workflow << " killed:" << killed;
    EXPECT_EQ(objects[id_of(workflow) + ".wav"], 1) << workflow << " killed:" << killed;
  }
  EXPECT_EQ(objects.size(), events.size());
  for (const Stored& dead : messages_of(connection, "PDF_TO_AUDIO_DLQ")) {
    ADD_FAILURE() << "a message was dead-lettered: " << dead.reason << ": " << dead.payload;
  }
  // Each of them was seen to die, and was started again.
  const std::string log = up.log();
  for (const std::string& victim : victims) {
    EXPECT_NE(log.find(victim + " died ("), std::string::npos) << victim;
    EXPECT_TRUE(await(1min, [&] { return up.service(victim).has_value(); })) << victim;
  }
}

// --- large documents -------------------------------------------------------------------------------------------------

/// The most memory that a process ever had; MiB.
long peak_memory(pid_t pid) {
  std::istringstream status(read_file("/proc/" + std::to_string(pid) + "/status"));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stol(line.substr(6)) / 1024;
  }
  throw std::runtime_error("no VmHWM of process " + std::to_string(pid));
}

TEST_F(PdfToAudio, FiveHundredPagesNeedLessThan400MiBOfEveryService) {
  if (!soak()) GTEST_SKIP() << "takes minutes: PIPEGEN_SOAK=1 runs it";
  constexpr int kPages = 500;
  Up up(schema(), workspace());
  std::map<std::string, pid_t> processes;
  for (const std::string& worker : kWorkers) processes[worker] = up.service(worker).value();
  processes["ingest-api"] = up.service("ingest-api").value();
  const auto start = Clock::now();
  const std::string workflow = post(up, book_of(kPages, 12));
  nlohmann::json status;
  for (const auto deadline = start + 30min; Clock::now() < deadline; std::this_thread::sleep_for(1s)) {
    status = get(up.api(), workflow).json();  // seldom: it takes processor time from the services
    if (status.at("state") != "running") break;
  }
  ASSERT_EQ(status.at("state"), "completed") << status.dump();
  print_figure("500 pages, from upload to audio", std::chrono::duration<double>(Clock::now() - start).count(), "s");
  for (const std::string stage : {"png-to-text", "tts", "pcm-to-wav", "wav-aggregator"}) {
    EXPECT_EQ(stage_of(status, stage).at("done"), kPages) << status.dump();
  }
  for (const auto& [service, pid] : processes) {
    ASSERT_EQ(up.service(service), pid) << service << " died\n" << up.log();
    const long peak = peak_memory(pid);
    print_figure("500 pages, peak memory of " + service, peak, "MiB");
    EXPECT_LT(peak, 400) << service;
  }
  print_figure("500 pages, peak memory of nats-server", peak_memory(up.service("nats-server").value()), "MiB");

  // Nothing is lost: every page was spoken, in its place.
  nats::Connection connection({.url = up.nats(), .name = "e2e"});
  ObjectStore texts(connection, "TEXT_FILES");
  for (int page = 1; page <= kPages; ++page) {
    const Bytes bytes = texts.get(id_of(workflow) + "/" + std::to_string(page) + ".txt");
    const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    EXPECT_NE(text.find("of the book"), std::string::npos) << "page " << page << ": " << text;
  }
  EXPECT_EQ(messages_of(connection, "FINAL_AUDIO").size(), 1U);
  EXPECT_TRUE(messages_of(connection, "PDF_TO_AUDIO_DLQ").empty());
  for (const std::string stream : {"PDF_JOBS", "PNG_PROCESSING", "TTS_JOBS", "AUDIO_PROCESSING", "WAV_PROCESSING"}) {
    EXPECT_TRUE(messages_of(connection, stream).empty()) << stream;
  }
}

// --- handlers that misbehave -----------------------------------------------------------------------------------------

TEST(CustomStage, AHandlerThatHangsCrashesOrThrowsCostsOnlyItsMessage) {
  const std::filesystem::path example = kSource / "examples" / "thumbnails";
  const std::filesystem::path schema = kFolder / "misbehaving-schema" / "pipeline.yaml";
  const std::filesystem::path workspace = kFolder / "misbehaving";
  std::string text = read_file(example / "pipeline.yaml");
  const std::string patient = "    timeout: 1m\n    retry: {max_deliver: 5, backoff: [1s, 10s, 1m]}\n";
  ASSERT_NE(text.find(patient), std::string::npos);
  text.replace(text.find(patient), patient.size(),
               "    timeout: 1s\n    ack_wait: 1s\n    retry: {max_deliver: 2, backoff: [100ms]}\n");
  write_file(schema, text);
  const Ran generated =
      run_pipegen({"generate-all", "--schema", schema.string(), "--output", workspace.string(), "--quiet"});
  ASSERT_EQ(generated.status, 0) << generated.output;
  write_file(workspace / "thumbnail" / "src" / "handler.cpp", R"(#include "thumbnail/handler.hpp"

#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <thread>

namespace thumbnail {

ThumbnailCreatedEvent handle(const PictureCreatedEvent& event, pipegen::Context& context) {
  const pipegen::Bytes file = context.get(event.picture_key);
  const std::string what(pipegen::text_of(file));
  if (what == "throw") throw std::runtime_error("no thumbnail today");
  if (what == "refuse") throw pipegen::PermanentError("this picture is refused");
  if (what == "crash") std::abort();
  while (what == "hang") std::this_thread::sleep_for(std::chrono::hours(1));
  while (what == "listen") {  // hangs, but ends when it is told to
    context.throw_if_stopped();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return {.header = event.header,
          .picture_key = event.picture_key,
          .thumbnail_key = context.put<ThumbnailFiles>(context.output_key("png"), file)};
}

}  // namespace thumbnail
)");
  std::string settings = read_file(workspace / "project.toml");
  if (settings.find("deadline_grace") == std::string::npos) {
    settings.insert(settings.find('\n', settings.find("[thumbnail_service]")) + 1, "deadline_grace = \"500ms\"\n");
    write_file(workspace / "project.toml", settings);
  }

  Up up(schema, workspace);
  const std::map<std::string, std::string> reasons{{"throw", "no thumbnail today"},
                                                   {"refuse", "this picture is refused"},
                                                   {"crash", "the process died while handling it"},
                                                   {"hang", "did not react to being told to stop"},
                                                   {"listen", "timed out after 1s"}};
  std::map<std::string, std::string> bad;
  std::vector<std::string> good;
  const auto picture = [&](const std::string& content) { return upload(up.api(), "/pictures", content, "image/png"); };
  for (const auto& [what, reason] : reasons) {
    for (int i = 0; i < 4; ++i) good.push_back(picture("good"));
    bad[what] = picture(what);
  }
  for (int i = 0; i < 4; ++i) good.push_back(picture("good"));

  for (const auto& [what, workflow] : bad) {
    SCOPED_TRACE(what);
    const nlohmann::json status = finished(up.api(), workflow);
    EXPECT_EQ(status.at("state"), "failed") << status.dump();
    ASSERT_EQ(status.at("failures").size(), 1U) << status.dump();
    const auto reason = status["failures"][0].at("reason").get<std::string>();
    EXPECT_NE(reason.find(reasons.at(what)), std::string::npos) << reason;
  }
  for (const std::string& workflow : good) {
    const nlohmann::json status = finished(up.api(), workflow);
    EXPECT_EQ(status.at("state"), "completed") << status.dump() << up.log();
    EXPECT_EQ(get(up.api(), workflow + "/thumbnail").body, "good");
  }
  nats::Connection connection({.url = up.nats(), .name = "e2e"});
  std::map<std::string, std::string> dead;
  for (const Stored& message : messages_of(connection, "THUMBNAILS_DLQ")) dead[message.workflow] = message.reason;
  EXPECT_EQ(dead.size(), bad.size());
  for (const auto& [what, workflow] : bad) {
    EXPECT_NE(dead[id_of(workflow)].find(reasons.at(what)), std::string::npos) << what << ": " << dead[id_of(workflow)];
  }
  EXPECT_EQ(messages_of(connection, "THUMBNAILS").size(), good.size());
  EXPECT_TRUE(messages_of(connection, "PICTURES").empty());
}

}  // namespace
}  // namespace pipegen::testing
