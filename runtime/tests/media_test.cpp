// The built-in actions, with the real libraries and objects in a real nats-server.
#include <gtest/gtest.h>
#include <httplib.h>
#include <leptonica/allheaders.h>
#include <sndfile.h>
#include <zlib.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "http/status.hpp"
#include "media/wav_file.hpp"
#include "pipegen/actions/ocr.hpp"
#include "pipegen/actions/render_pdf.hpp"
#include "pipegen/actions/speak.hpp"
#include "pipegen/actions/wav.hpp"
#include "pipegen/nats.hpp"
#include "pipegen/process.hpp"
#include "support/nats_server.hpp"
#include "support/pdf.hpp"
#include "support/test_context.hpp"
#include "worker/worker.hpp"

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using actions::Page;
using testing::NatsServer;
using testing::pages_of;
using testing::pdf_of;
using testing::stream_of;
using testing::TempFolder;
using testing::TestContext;

const std::filesystem::path kSamples = PIPEGEN_SAMPLES;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  if (!out.flush()) throw std::runtime_error("cannot write " + path.string());
}

bool is_installed(const std::string& program) {
  try {
    run_program({program, "--version"});
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

/// What a PermanentError (or another) said; empty when nothing was thrown.
template <typename Error>
std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

class Media : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    server_ = std::make_unique<NatsServer>();
    connection_ = std::make_unique<nats::Connection>(nats::ConnectionOptions{.url = server_->url(), .name = "media"});
    nats::ensure(*connection_, {.object_buckets = {{.schema_name = "FILES", .name = "FILES"}}});
  }
  static void TearDownTestSuite() {
    connection_.reset();
    server_.reset();
  }

  ObjectStore& files() { return context_.objects("FILES"); }
  ObjectRef put(const std::string& name, std::string_view content, std::map<std::string, std::string> metadata = {}) {
    files().put(name, bytes_of(content), std::move(metadata));
    return at(name);
  }
  static ObjectRef at(const std::string& name) { return {"FILES", name}; }
  std::string get(const std::string& name) { return std::string(text_of(files().get(name))); }

  TestContext context_{*connection_};

  inline static std::unique_ptr<NatsServer> server_;
  inline static std::unique_ptr<nats::Connection> connection_;
};

// ---------------------------------------------------------------------------------------------------------------------

const std::string kBlackSquare = stream_of("0 g 20 20 40 40 re f");
const std::string kRedSquare = stream_of("1 0 0 rg 20 20 40 40 re f");
const std::string kNothing = stream_of("");

struct PixDeleter {
  void operator()(Pix* pix) const { pixDestroy(&pix); }
};
using Image = std::unique_ptr<Pix, PixDeleter>;

Image image_of(std::string_view png) {
  return Image(pixReadMem(reinterpret_cast<const l_uint8*>(png.data()), png.size()));
}

class RenderPdf : public Media {
 protected:
  struct Rendered {
    std::int32_t number, total;
    bool blank;
    std::string png;
  };
  std::vector<Rendered> render(std::string_view pdf, actions::RenderPdf options = {}) {
    options.pdf = put("document.pdf", pdf);
    std::vector<Rendered> pages;
    actions::render_pdf(context_, options, [&](const Page& page) {
      pages.push_back({page.number, page.total, page.blank, std::string(text_of(page.png))});
    });
    return pages;
  }
  std::string refusal(std::string_view pdf, actions::RenderPdf options = {}) {
    return message_of<PermanentError>([&] { render(pdf, options); });
  }
};

TEST_F(RenderPdf, GivesEveryPageInOrderAtTheResolutionAskedFor) {
  const auto pages = render(read_file(kSamples / "sample.pdf"), {.pdf = {}, .dpi = 72});
  ASSERT_EQ(pages.size(), 2u);
  for (std::int32_t i = 0; i < 2; ++i) {
    const Rendered& page = pages[static_cast<std::size_t>(i)];
    EXPECT_EQ(page.number, i + 1);
    EXPECT_EQ(page.total, 2);
    EXPECT_FALSE(page.blank);
    const Image image = image_of(page.png);
    ASSERT_TRUE(image);
    EXPECT_EQ(pixGetWidth(image.get()), 595);
    EXPECT_EQ(pixGetHeight(image.get()), 842);
    EXPECT_EQ(pixGetXRes(image.get()), 72);
    EXPECT_EQ(pixGetDepth(image.get()), 8) << "black on white is stored in grey";
  }
  EXPECT_NE(pages[0].png, pages[1].png);
}

TEST_F(RenderPdf, GivesThePixelsThatPdftoppmGives) {
  if (!is_installed("pdftoppm")) GTEST_SKIP() << "poppler-utils is not installed";
  const auto pages = render(read_file(kSamples / "sample.pdf"));
  const TempFolder folder;
  run_program({"pdftoppm", "-r", "200", "-png", (kSamples / "sample.pdf").string(), (folder.path() / "page").string()});
  ASSERT_EQ(pages.size(), 2u);
  for (const Rendered& page : pages) {
    const std::string number = std::to_string(page.number);
    const Image theirs(pixConvertTo32(image_of(read_file(folder.path() / ("page-" + number + ".png"))).get()));
    const Image ours(pixConvertTo32(image_of(page.png).get()));
    l_int32 same = 0;
    pixEqual(ours.get(), theirs.get(), &same);
    EXPECT_EQ(same, 1) << "page " << number;
  }
}

TEST_F(RenderPdf, GivesTheSameOctetsForTheSameDocument) {
  const std::string pdf = read_file(kSamples / "sample.pdf");
  EXPECT_EQ(render(pdf).at(1).png, render(pdf).at(1).png);
}

TEST_F(RenderPdf, KeepsColoursAndMarksPagesWithoutAny) {
  const auto pages = render(pages_of({kRedSquare, kNothing, kBlackSquare}), {.pdf = {}, .dpi = 72});
  ASSERT_EQ(pages.size(), 3u);
  EXPECT_FALSE(pages[0].blank);
  EXPECT_TRUE(pages[1].blank);
  EXPECT_FALSE(pages[2].blank);
  const Image red = image_of(pages[0].png);
  l_uint32 pixel = 0;
  pixGetPixel(red.get(), 40, 60, &pixel);
  EXPECT_EQ(pixel >> 8, 0xff0000u);
  const Image white = image_of(pages[1].png);
  pixGetPixel(white.get(), 40, 60, &pixel);
  EXPECT_EQ(pixel, 0xffu);
}

TEST_F(RenderPdf, RefusesWhatIsNoPdf) {
  EXPECT_EQ(refusal(""), "the file is empty, not a PDF");
  std::string noise(50'000, '\0');
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<char>((i * 2654435761u) >> 13);
  EXPECT_EQ(refusal(noise), "the file is not a PDF");
  const std::string picture = render(pages_of({kRedSquare})).at(0).png;
  EXPECT_EQ(refusal(picture), "the file is not a PDF");
}

TEST_F(RenderPdf, RefusesADocumentThatIsCutOff) {
  const std::string pdf = read_file(kSamples / "sample.pdf");
  EXPECT_NE(refusal(pdf.substr(0, 300)), "");
  // A file whose trailer is not at its end opens without the rest. The second page is in the table of pages, but what
  // is on it, or the page itself, is not in the file.
  const std::string trailer = "trailer << /Size 8 /Root 1 0 R >>\n";
  const std::size_t content = pdf.find("6 0 obj"), page = pdf.find("7 0 obj"), end = pdf.find("xref\n0");
  for (const std::string& cut :
       {pdf.substr(0, page) + trailer, pdf.substr(0, content) + pdf.substr(page, end - page) + trailer}) {
    const std::string message = refusal(cut);
    EXPECT_TRUE(message.starts_with("page 2 of the PDF is damaged")) << message;
  }
}

TEST_F(RenderPdf, RefusesADocumentThatNeedsAPassword) {
  EXPECT_EQ(refusal(testing::encrypted_pdf()), "the PDF needs a password");
}

TEST_F(RenderPdf, RefusesADocumentWithoutPages) { EXPECT_EQ(refusal(pages_of({})), "the PDF has no pages"); }

TEST_F(RenderPdf, RefusesAPageThatIsTooLargeAndNamesIt) {
  EXPECT_EQ(refusal(pages_of({kBlackSquare}, 14'400)),
            "page 1 of the PDF is too large: 40000 x 40000 pixels at 200 dpi");
  EXPECT_EQ(refusal(pages_of({kBlackSquare}), {.pdf = {}, .dpi = 72, .max_pixels = 9'999}),
            "page 1 of the PDF is too large: 100 x 100 pixels at 72 dpi");
  EXPECT_EQ(refusal(pages_of({kBlackSquare}), {.pdf = {}, .dpi = 72, .max_pixels = 10'000}), "");
}

TEST_F(RenderPdf, LooksAtTheSizesBeforeItGivesTheFirstPage) {
  const std::string content = " /Parent 2 0 R /Contents 5 0 R >>";
  const ObjectRef pdf = put(
      "document.pdf", pdf_of({"<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Count 2 /Kids [3 0 R 4 0 R] >>",
                              "<< /Type /Page /MediaBox [0 0 100 100]" + content,
                              "<< /Type /Page /MediaBox [0 0 100 101]" + content, kBlackSquare}));
  const auto refused = [&](const actions::RenderPdf& options) {
    int pages = 0;
    const std::string message =
        message_of<PermanentError>([&] { actions::render_pdf(context_, options, [&](const Page&) { ++pages; }); });
    EXPECT_EQ(pages, message.empty() ? 2 : 0);
    return message;
  };
  EXPECT_EQ(refused({.pdf = pdf, .dpi = 72, .max_pixels = 10'000}),
            "page 2 of the PDF is too large: 100 x 101 pixels at 72 dpi");
  EXPECT_EQ(refused({.pdf = pdf, .dpi = 72, .max_pages = 1}), "the PDF has 2 pages, more than the 1 that are taken");
  EXPECT_EQ(refused({.pdf = pdf, .dpi = 72, .max_pages = 2}), "");
}

TEST_F(RenderPdf, RefusesADamagedPageThatComesOutBlankAndNamesIt) {
  const std::string damaged = stream_of("this is not what zlib makes", "/Filter /FlateDecode ");
  std::vector<std::int32_t> seen;
  const ObjectRef pdf = put("document.pdf", pages_of({kBlackSquare, damaged, kBlackSquare}));
  const std::string message = message_of<PermanentError>(
      [&] { actions::render_pdf(context_, {.pdf = pdf}, [&](const Page& page) { seen.push_back(page.number); }); });
  EXPECT_TRUE(message.starts_with("page 2 of the PDF is damaged")) << message;
  EXPECT_EQ(seen, std::vector<std::int32_t>{1});
  // The complaints about one document do not make the blank page of the next one suspect.
  EXPECT_TRUE(render(pages_of({kNothing})).at(0).blank);
}

TEST_F(RenderPdf, RefusesAPageThatLostAPartOfWhatIsOnItAndNamesIt) {
  const std::string rule = "0 g 10 10 80 1 re f ";
  std::string squares;
  for (int i = 0; i < 500; ++i) squares += std::to_string(i % 83) + " " + std::to_string(i % 71) + " 3 3 re f\n";
  std::string packed(squares.size() + 64, '\0');
  uLongf size = packed.size();
  ASSERT_EQ(compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(squares.data()),
                     squares.size()),
            Z_OK);
  packed.resize(size);
  ASSERT_EQ(refusal(pages_of({stream_of(packed, "/Filter /FlateDecode ")})), "");
  const std::map<std::string, std::string> damaged{
      {"No font in show", stream_of(rule + "BT /Lost 12 Tf 10 50 Td (Hello) Tj ET")},
      {"XObject 'Lost' is unknown", stream_of(rule + "/Lost Do")},
      {"Unexpected end of file in flate stream", stream_of(packed.substr(0, size / 2), "/Filter /FlateDecode ")},
  };
  for (const auto& [complaint, page] : damaged) {
    const std::string message = refusal(pages_of({kBlackSquare, page}));
    EXPECT_TRUE(message.starts_with("page 2 of the PDF is damaged, a part of it cannot be seen: ")) << message;
    EXPECT_NE(message.find(complaint), std::string::npos) << message;
  }
  // A flaw that costs nothing is none of the sender's business.
  EXPECT_EQ(refusal(pages_of({stream_of(rule + "frobnicate")})), "");
}

TEST_F(RenderPdf, ABrokenSecondPageEndsTheWorkflowAsFailedAlthoughTheGroupWaitsForIt) {
  Topology topology;
  topology.streams = {{.name = "PDFS", .subjects = {"pdf.>"}, .retention = Retention::kWorkQueue},
                      {.name = "PAGES", .subjects = {"page.>"}, .retention = Retention::kWorkQueue},
                      {.name = "BOOKS_DLQ", .subjects = {"dlq.books.>"}}};
  topology.object_buckets = {{.schema_name = "FILES", .name = "FILES"}};
  topology.key_values = {{.schema_name = "BOOKS_STATUS", .name = "BOOKS_STATUS"},
                         {.schema_name = "BOOKS_STATE", .name = "BOOKS_STATE"}};
  nats::ensure(*connection_, topology);
  Stage render;
  render.pipeline = "books";
  render.name = "render";
  render.section = "render_service";
  render.topology = topology;
  render.stream = "PDFS";
  render.durable = "render-workers";
  render.filter_subject = "pdf.a";
  render.event = "Pdf";
  render.dead_letter_stream = "BOOKS_DLQ";
  render.dead_letter_subject = "dlq.books.render";
  render.status_bucket = "BOOKS_STATUS";
  Stage join = render;
  render.handle = [](std::string_view payload, Context& context, Outbox& outbox) {
    actions::render_pdf(context, {.pdf = at(std::string(payload)), .dpi = 72}, [&](const Page& page) {
      outbox.publish({.event = "Page", .subject = "page.a", .payload = std::to_string(page.number)});
    });
  };
  join.name = "join";
  join.section = "join_service";
  join.stream = "PAGES";
  join.durable = "join-workers";
  join.filter_subject = "page.a";
  join.event = "Page";
  join.dead_letter_subject = "dlq.books.join";
  join.collect = Collect{.state_bucket = "BOOKS_STATE",
                         .item =
                             [](std::string_view payload) {
                               Collect::Item item;
                               item.group = "job";
                               item.index = std::stoi(std::string(payload));
                               item.count = 2;
                               return item;
                             },
                         .handle = [](const auto&, Context&, Outbox&) { FAIL() << "there is no second page"; }};

  put("broken.pdf", pages_of({kBlackSquare, stream_of("this is not what zlib makes", "/Filter /FlateDecode ")}));
  KeyValue entries(*connection_, "BOOKS_STATUS");
  http::StatusEntry accepted;
  accepted.state = "done";
  accepted.at = now();
  accepted.produced["Pdf"] = 1;
  entries.put(http::status_key("job", http::kIngestStage, "m"), http::status_value(accepted));
  connection_->publish("pdf.a", "broken.pdf", "m", {{"Pipegen-Workflow-Id", "job"}});

  Metrics metrics;
  worker::Worker renderer(*connection_, render, Settings(), metrics);
  worker::Worker joiner(*connection_, join, Settings(), metrics);
  renderer.start();
  joiner.start();
  const auto status = [&] {
    return http::summarize(
        http::read_status(entries, "job"),
        {{.name = "render", .consumes = "Pdf"}, {.name = "join", .consumes = "Page", .collects = true}}, "Book");
  };
  const auto patience = std::chrono::steady_clock::now() + 60s;
  while (status().state == http::WorkflowStatus::State::kRunning && std::chrono::steady_clock::now() < patience) {
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_EQ(status().state, http::WorkflowStatus::State::kFailed);
  const auto failures = status().failures;
  ASSERT_EQ(failures.size(), 1u);
  EXPECT_EQ(failures[0].stage, "render");
  EXPECT_TRUE(failures[0].reason.starts_with("page 2 of the PDF is damaged")) << failures[0].reason;
  renderer.stop();
  joiner.stop();
}

TEST_F(RenderPdf, StopsBetweenPagesWhenToldTo) {
  const ObjectRef pdf = put("document.pdf", pages_of({kBlackSquare, kBlackSquare}));
  int pages = 0;
  EXPECT_THROW(actions::render_pdf(context_, {.pdf = pdf},
                                   [&](const Page&) {
                                     ++pages;
                                     context_.stop.request_stop();
                                   }),
               Cancelled);
  EXPECT_EQ(pages, 1);
}

TEST_F(RenderPdf, RendersInSeveralThreadsAtATime) {
  const std::string pdf = read_file(kSamples / "sample.pdf");
  const std::string expected = render(pdf).at(0).png;
  std::vector<std::string> made(4);
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < made.size(); ++i) {
      threads.emplace_back([&, i] {
        TestContext context(*connection_);
        const std::string name = "document-" + std::to_string(i) + ".pdf";
        context.objects("FILES").put(name, bytes_of(pdf));
        actions::render_pdf(context, {.pdf = at(name)}, [&](const Page& page) {
          if (page.number == 1) made[i] = text_of(page.png);
        });
      });
    }
  }
  for (const std::string& png : made) EXPECT_TRUE(png == expected);
}

// ---------------------------------------------------------------------------------------------------------------------

/// Speaks as much HTTP as an OpenAI-compatible endpoint has to, and remembers what it was asked.
class ChatServer {
 public:
  ChatServer() {
    server_.Post("/v1/chat/completions", [this](const httplib::Request& request, httplib::Response& response) {
      const std::lock_guard lock(mutex_);
      asked_.push_back(nlohmann::json::parse(request.body));
      authorization_ = request.get_header_value("Authorization");
      response.status = status;
      const std::string answer = "answer " + std::to_string(asked_.size());
      response.set_content(
          nlohmann::json{{"choices", {{{"message", {{"role", "assistant"}, {"content", answer}}}}}}}.dump(),
          "application/json");
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::jthread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::yield();
  }
  ~ChatServer() { server_.stop(); }

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/v1"; }
  std::vector<nlohmann::json> asked() const {
    const std::lock_guard lock(mutex_);
    return asked_;
  }
  std::string authorization() const {
    const std::lock_guard lock(mutex_);
    return authorization_;
  }

  std::atomic<int> status{200};

 private:
  httplib::Server server_;
  int port_ = 0;
  mutable std::mutex mutex_;
  std::vector<nlohmann::json> asked_;
  std::string authorization_;
  std::jthread thread_;
};

std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> result(1);
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      result.back().push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    } else if (!result.back().empty()) {
      result.emplace_back();
    }
  }
  if (result.back().empty()) result.pop_back();
  return result;
}

class Ocr : public Media {
 protected:
  /// The pages of the sample as PNGs.
  const std::vector<std::string>& pages() {
    static const std::vector<std::string> kPages = [this] {
      std::vector<std::string> result;
      const ObjectRef pdf = put("sample.pdf", read_file(kSamples / "sample.pdf"));
      actions::render_pdf(context_, {.pdf = pdf}, [&](const Page& page) { result.emplace_back(text_of(page.png)); });
      return result;
    }();
    return kPages;
  }
  actions::Ocr options(const std::string& png) {
    actions::Ocr result{};
    result.image = put("page.png", png);
    result.text = at("page.txt");
    return result;
  }
  std::string read(const std::string& png) {
    actions::ocr(context_, options(png));
    return get("page.txt");
  }
  /// Two words, small enough to be read in no time.
  const std::string& two_words() {
    static const std::string kPng = [this] {
      std::string result;
      const std::string font = "/Resources << /Font << /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>";
      std::string pdf = pdf_of({"<< /Type /Catalog /Pages 2 0 R >>",
                                "<< /Type /Pages /Count 1 /MediaBox [0 0 300 60] /Kids [3 0 R] >>",
                                "<< /Type /Page /Parent 2 0 R /Contents 4 0 R " + font + " >>",
                                stream_of("BT /F 24 Tf 30 20 Td (Hello world) Tj ET")});
      actions::render_pdf(context_, {.pdf = put("words.pdf", pdf)},
                          [&](const Page& page) { result = text_of(page.png); });
      return result;
    }();
    return kPng;
  }
};

TEST_F(Ocr, ReadsTheWordsOfTheSample) {
  std::string text;
  for (const std::string& page : pages()) text += read(page) + "\n";
  const std::vector<std::string> found = words(text);
  const std::multiset<std::string> found_set(found.begin(), found.end());
  std::multiset<std::string> left = found_set;
  std::size_t hits = 0;
  const std::vector<std::string> expected = words(read_file(kSamples / "sample.txt"));
  for (const std::string& word : expected) {
    if (const auto hit = left.find(word); hit != left.end()) {
      left.erase(hit);
      ++hits;
    }
  }
  EXPECT_GE(static_cast<double>(hits), 0.97 * static_cast<double>(expected.size())) << text;
  EXPECT_LE(found.size(), expected.size() + expected.size() / 20) << text;
}

TEST_F(Ocr, GivesWhatTheTesseractProgramGivesWhateverWasReadBefore) {
  if (!is_installed("tesseract")) GTEST_SKIP() << "tesseract-ocr is not installed";
  ASSERT_EQ(pages().size(), 2u);
  const TempFolder folder;
  for (const std::size_t page : {1u, 0u, 1u}) {
    write_file(folder.path() / "page.png", pages()[page]);
    const ProgramResult theirs =
        run_program({"tesseract", (folder.path() / "page.png").string(), "stdout", "-l", "eng"});
    EXPECT_EQ(read(pages()[page]), text_of(theirs.output));
  }
}

TEST_F(Ocr, DoesNotLookAtAPageThatIsKnownToBeBlank) {
  actions::Ocr blank = options("not an image");
  blank.blank = true;
  actions::ocr(context_, blank);
  EXPECT_EQ(get("page.txt"), "");
}

TEST_F(Ocr, RefusesWhatIsNoImageAndALanguageThatIsNotThere) {
  EXPECT_NE(message_of<PermanentError>([&] { read("not an image"); }).find("page.png"), std::string::npos);
  actions::Ocr klingon = options(two_words());
  klingon.language = "klingon";
  EXPECT_NE(message_of<ConfigError>([&] { actions::ocr(context_, klingon); }).find("klingon"), std::string::npos);
  EXPECT_EQ(words(read(two_words())), (std::vector<std::string>{"hello", "world"}));
}

TEST_F(Ocr, GivesUpWhenToldTo) {
  const actions::Ocr page = options(two_words());
  files().remove("page.txt");
  context_.stop.request_stop();
  EXPECT_THROW(actions::ocr(context_, page), Cancelled);
  EXPECT_FALSE(files().info("page.txt"));
}

TEST_F(Ocr, LooksAtTheStopTokenWhileItReads) {
  // Of all who ask for the token, only tesseract's gets one that is triggered: so it is tesseract that stops.
  class OneToken : public TestContext {
   public:
    OneToken(nats::Connection& connection, int triggered) : TestContext(connection), triggered_(triggered) {}
    std::stop_token stop_token() const override {
      std::stop_source source;
      if (++asked == triggered_) source.request_stop();
      return source.get_token();
    }
    mutable int asked = 0;

   private:
    const int triggered_;
  };
  OneToken undisturbed(*connection_, 0);
  actions::ocr(undisturbed, options(two_words()));
  EXPECT_EQ(words(get("page.txt")), (std::vector<std::string>{"hello", "world"}));
  int stopped_within = 0;
  for (int i = 1; i <= undisturbed.asked; ++i) {
    OneToken context(*connection_, i);
    const std::string unread = message_of<PermanentError>([&] {
      try {
        actions::ocr(context, options(two_words()));
        ADD_FAILURE() << "nobody looked at token " << i;
      } catch (const Cancelled&) {
      }
    });
    if (unread.starts_with("tesseract cannot read")) ++stopped_within;
  }
  EXPECT_EQ(stopped_within, 1);
}

TEST_F(Ocr, AsksNoModelUnlessItIsTold) {
  const ChatServer chat;
  actions::Ocr page = options(two_words());
  page.chat_url = chat.url();
  page.commentary = false;
  page.summary_instructions = "short";
  actions::ocr(context_, page);
  EXPECT_TRUE(chat.asked().empty());
}

TEST_F(Ocr, PutsTheCommentaryBehindTheTextAndTheSummaryWhereItIsWanted) {
  const ChatServer chat;
  actions::Ocr page = options(two_words());
  page.chat_url = chat.url() + "/";
  page.chat_model = "small";
  page.chat_api_key = "secret";
  page.commentary = true;
  page.commentary_instructions = "Be kind.";
  page.summary = true;
  page.summary_placement = "top";
  actions::ocr(context_, page);
  EXPECT_EQ(get("page.txt"), "Summary: answer 2\n\nHello world\n\nCommentary: answer 1\n");
  const auto asked = chat.asked();
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_EQ(chat.authorization(), "Bearer secret");
  EXPECT_EQ(asked[0].at("model"), "small");
  EXPECT_EQ(asked[0].at("messages").at(0).at("role"), "system");
  EXPECT_TRUE(asked[0].at("messages").at(0).at("content").get<std::string>().ends_with("\nBe kind."));
  for (const auto& request : asked) {
    EXPECT_EQ(request.at("messages").at(1).at("role"), "user");
    EXPECT_EQ(request.at("messages").at(1).at("content"), "Hello world\n") << "the model is asked about the page alone";
  }

  page.commentary = false;
  page.summary_placement.reset();
  actions::ocr(context_, page);
  EXPECT_EQ(get("page.txt"), "Hello world\n\nSummary: answer 3\n");
}

TEST_F(Ocr, TellsAnEndpointThatAnswersBadlyFromOneThatIsAway) {
  auto chat = std::make_unique<ChatServer>();
  actions::Ocr page = options(two_words());
  page.summary = true;
  EXPECT_NE(message_of<PermanentError>([&] { actions::ocr(context_, page); }).find("chat_url"), std::string::npos)
      << "one upload that asks for what this service has not must not hold up the others";
  page.chat_url = chat->url();
  chat->status = 500;
  EXPECT_THROW(actions::ocr(context_, page), TransientError);
  chat->status = 401;
  EXPECT_THROW(actions::ocr(context_, page), TransientError);
  chat->status = 400;
  EXPECT_THROW(actions::ocr(context_, page), PermanentError);
  for (const int away : {429, 502, 503, 504}) {
    chat->status = away;
    const std::string message = message_of<Unavailable>([&] { actions::ocr(context_, page); });
    EXPECT_NE(message.find(std::to_string(away)), std::string::npos) << away << ": " << message;
  }
  chat.reset();
  EXPECT_THROW(actions::ocr(context_, page), Unavailable);
}

// ---------------------------------------------------------------------------------------------------------------------

std::string samples_of(const std::vector<std::int16_t>& samples) {
  return {reinterpret_cast<const char*>(samples.data()), samples.size() * 2};
}

/// A WAV (or another sound) as other programs make it.
std::string wav_of(const std::vector<std::int16_t>& samples, int rate = 22050, int channels = 1,
                   int format = SF_FORMAT_WAV | SF_FORMAT_PCM_16) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "part.wav";
  SF_INFO info{};
  info.samplerate = rate;
  info.channels = channels;
  info.format = format;
  SNDFILE* file = sf_open(path.c_str(), SFM_WRITE, &info);
  if (file == nullptr) throw std::runtime_error(sf_strerror(nullptr));
  sf_write_short(file, samples.data(), static_cast<sf_count_t>(samples.size()));
  sf_close(file);
  return read_file(path);
}

struct Decoded {
  SF_INFO info{};
  std::vector<std::int16_t> samples;
};

Decoded decode(std::string_view wav) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "whole.wav";
  write_file(path, wav);
  Decoded result;
  SNDFILE* file = sf_open(path.c_str(), SFM_READ, &result.info);
  if (file == nullptr) throw std::runtime_error(sf_strerror(nullptr));
  result.samples.resize(static_cast<std::size_t>(result.info.frames * result.info.channels));
  sf_readf_short(file, result.samples.data(), result.info.frames);
  sf_close(file);
  return result;
}

class Speak : public Media {
 protected:
  actions::Speak options(std::string_view text) {
    actions::Speak result{};
    result.text = put("page.txt", text);
    result.audio = at("page.pcm");
    return result;
  }
  std::string speak(const actions::Speak& options) {
    actions::speak(context_, options);
    return get("page.pcm");
  }
  std::map<std::string, std::string> metadata() { return files().info("page.pcm").value().metadata; }

  /// A program that the test brings along.
  std::string script(const std::string& body) {
    const std::filesystem::path path = scripts_.path() / "speech";
    write_file(path, "#!/bin/sh\n" + body);
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path.string();
  }
  std::filesystem::path scripts() const { return scripts_.path(); }

 private:
  TempFolder scripts_;
};

const std::string kSentence = "The keeper climbed the stairs at dusk. He wrote the weather in a thick book.\n";

TEST_F(Speak, GivesTheSamplesThatTheEspeakProgramGives) {
  if (!is_installed("espeak-ng")) GTEST_SKIP() << "espeak-ng is not installed";
  const TempFolder folder;
  const std::filesystem::path wav = folder.path() / "speech.wav";
  for (const std::string& text : {read_file(kSamples / "sample.txt"), kSentence}) {
    write_file(folder.path() / "text.txt", text);
    run_program({"espeak-ng", "-v", "en", "-f", (folder.path() / "text.txt").string(), "-w", wav.string()});
    EXPECT_TRUE(speak(options(text)) == samples_of(decode(read_file(wav)).samples));
  }
}

TEST_F(Speak, SaysHowFastItsSamplesAreAndIsTheSameEachTime) {
  const std::string first = speak(options(kSentence));
  EXPECT_EQ(metadata().at("sample_rate"), "22050");
  EXPECT_EQ(metadata().at("channels"), "1");
  const double seconds = static_cast<double>(first.size()) / 2 / 22050;
  EXPECT_GT(seconds, 3);
  EXPECT_LT(seconds, 12);
  speak(options("Something else, in between."));
  EXPECT_TRUE(speak(options(kSentence)) == first);
}

TEST_F(Speak, ListensToTheVoice) {
  actions::Speak english = options(kSentence);
  actions::Speak german = english;
  german.voice = "de";
  EXPECT_TRUE(speak(german) != speak(english));
  actions::Speak nobody = english;
  nobody.voice = "no-such-voice";
  EXPECT_NE(message_of<PermanentError>([&] { speak(nobody); }).find("no-such-voice"), std::string::npos);
  EXPECT_FALSE(speak(english).empty());
}

TEST_F(Speak, KeepsSilentWhereThereAreNoWords) {
  const std::string silence(static_cast<std::size_t>(22050 * 7 / 10) * 2, '\0');
  for (const std::string text : {"", "\n\f\n", " -- * --"}) {
    EXPECT_TRUE(speak(options(text)) == silence) << text;
  }
}

TEST_F(Speak, SpeaksInSeveralThreadsAtATime) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP()
      << "each text is spoken in a fork, and AddressSanitizer's own locks do not survive one that is made while "
         "another thread begins";
#endif
  const std::string expected = speak(options(kSentence));
  std::vector<std::string> made(4);
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < made.size(); ++i) {
      threads.emplace_back([&, i] {
        TestContext context(*connection_);
        actions::Speak call{};
        call.text = at("page.txt");
        call.audio = at("page-" + std::to_string(i) + ".pcm");
        actions::speak(context, call);
        made[i] = text_of(context.objects("FILES").get(call.audio.name));
      });
    }
  }
  for (const std::string& audio : made) EXPECT_TRUE(audio == expected);
}

TEST_F(Speak, StopsInTheMiddleWhenToldTo) {
  class StopsLater : public TestContext {
   public:
    StopsLater(nats::Connection& connection, int at) : TestContext(connection), at_(at) {}
    std::stop_token stop_token() const override {
      if (++asked == at_) stop_.request_stop();
      return stop_.get_token();
    }
    mutable int asked = 0;

   private:
    const int at_;
    mutable std::stop_source stop_;
  };
  // It looks at the token before each piece that it reads from espeak-ng, the last of which is the end.
  const actions::Speak call = options(read_file(kSamples / "sample.txt"));
  StopsLater undisturbed(*connection_, 0);
  actions::speak(undisturbed, call);
  ASSERT_GT(undisturbed.asked, 4);
  files().remove("page.pcm");
  StopsLater stopped(*connection_, 4);
  EXPECT_THROW(actions::speak(stopped, call), Cancelled);
  EXPECT_EQ(stopped.asked, 4) << "it went on";
  EXPECT_FALSE(files().info("page.pcm"));
}

/// The most memory that this process had in RAM, in MiB.
long peak_of_memory() {
  std::istringstream status(read_file("/proc/self/status"));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stol(line.substr(6)) / 1024;
  }
  throw std::runtime_error("no VmHWM");
}

TEST_F(Speak, NeedsNoMoreMemoryForALongText) {
  std::string text;
  while (text.size() < 20'000) text += kSentence;
  actions::Speak program = options(text);
  program.engine = "program";
  program.program = {"head", "-c", "64000000", "/dev/zero"};
  speak(options(kSentence));
  write_file("/proc/self/clear_refs", "5");  // the peak is what it has now
  const long before = peak_of_memory();
  actions::speak(context_, options(text));
  EXPECT_GT(files().info("page.pcm")->size, 40'000'000u);
  actions::speak(context_, program);
  EXPECT_EQ(files().info("page.pcm")->size, 64'000'000u);
  EXPECT_LT(peak_of_memory() - before, 24) << "MiB";
}

TEST_F(Speak, GivesAProgramItsTextAndValuesAndLeavesOutWhatIsAbsent) {
  const std::filesystem::path seen = scripts() / "seen";
  actions::Speak call = options(kSentence);
  call.engine = "program";
  call.voice = "two words; $(touch x)";
  call.seed = 7;
  call.top_p = 0.5;
  call.program = {script("printf '%s\\n' \"$@\" > " + seen.string() + "\ncat \"$2\" >> " + seen.string() +
                         "\nwhile [ \"$1\" != --out ]; do shift; done\nprintf 'abcdefgh' > \"$2\"\n"),
                  "--text",
                  "{text}",
                  "-v",
                  "{voice}",
                  "--seed={seed}",
                  "--top-p",
                  "{top_p}",
                  "--ngl",
                  "{ngl}",
                  "--temperature={temperature}",
                  "--penalty",
                  "x{repetition_penalty}",
                  "{{other}}",
                  "--out",
                  "{output}"};
  call.sample_rate = 24000;
  EXPECT_EQ(speak(call), "abcdefgh");
  EXPECT_EQ(metadata().at("sample_rate"), "24000");

  std::string lines = read_file(seen);
  const std::string text_file = lines.substr(lines.find('\n') + 1, lines.find('\n', 7) - lines.find('\n') - 1);
  const std::string output_file = [&] {
    const std::size_t start = lines.find("--out\n") + 6;
    return lines.substr(start, lines.find('\n', start) - start);
  }();
  EXPECT_EQ(lines, "--text\n" + text_file + "\n-v\ntwo words; $(touch x)\n--seed=7\n--top-p\n0.5\n{other}\n--out\n" +
                       output_file + "\n" + kSentence);
}

TEST_F(Speak, TalksToAProgramThroughPipes) {
  actions::Speak call = options("abcd");
  call.engine = "program";
  call.program = {script("tr a-d e-h\n")};
  EXPECT_EQ(speak(call), "efgh");
  EXPECT_EQ(metadata().at("sample_rate"), "22050");
}

TEST_F(Speak, TakesTheRateOfAProgramThatMakesWav) {
  const std::vector<std::int16_t> samples{1, -2, 300, -30'000};
  write_file(scripts() / "speech.wav", wav_of(samples, 48'000));
  actions::Speak call = options(kSentence);
  call.engine = "program";
  call.program = {"cat", (scripts() / "speech.wav").string()};
  EXPECT_EQ(speak(call), samples_of(samples));
  EXPECT_EQ(metadata().at("sample_rate"), "48000");

  write_file(scripts() / "speech.wav", wav_of(samples, 48'000, 2));
  EXPECT_THROW(speak(call), PermanentError);
}

TEST_F(Speak, TellsHowAProgramFailed) {
  actions::Speak call = options(kSentence);
  call.engine = "program";
  EXPECT_THROW(speak(call), ConfigError);
  call.program = {script("echo 'no model here' >&2\nexit 3\n")};
  const std::string message = message_of<TransientError>([&] { speak(call); });
  EXPECT_NE(message.find("3"), std::string::npos) << message;
  EXPECT_NE(message.find("no model here"), std::string::npos) << message;
  call.program = {script("exit 0\n")};
  EXPECT_THROW(speak(call), TransientError) << "it made nothing of a text with words";
  call.program = {script("exit 0\n"), "{output}"};
  EXPECT_THROW(speak(call), TransientError) << "it did not write the file";
  call.program = {(scripts() / "nothing").string()};
  EXPECT_THROW(speak(call), ConfigError) << "whoever installs it finds the page waiting";
  call.engine = "gramophone";
  EXPECT_THROW(speak(call), ConfigError);
}

TEST_F(Speak, DoesNotRunAProgramForNothing) {
  actions::Speak call = options(" \n");
  call.engine = "program";
  call.program = {script("touch " + (scripts() / "ran").string() + "\n")};
  EXPECT_EQ(speak(call), "");
  EXPECT_FALSE(std::filesystem::exists(scripts() / "ran"));
}

TEST_F(Speak, EndsAProgramWhenToldTo) {
  actions::Speak call = options(kSentence);
  call.engine = "program";
  call.program = {script("touch " + (scripts() / "running").string() + "\nsleep 60\n")};
  std::jthread stopper([&] {
    while (!std::filesystem::exists(scripts() / "running")) std::this_thread::sleep_for(5ms);
    context_.stop.request_stop();
  });
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THROW(speak(call), Cancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 20s);
}

// ---------------------------------------------------------------------------------------------------------------------

class Wav : public Media {
 protected:
  std::string encode(std::string_view pcm, std::map<std::string, std::string> metadata = {}) {
    actions::wav_encode(context_, {.pcm = put("page.pcm", pcm, std::move(metadata)), .wav = at("page.wav")});
    return get("page.wav");
  }
  std::string concat(const std::vector<std::string>& parts) {
    actions::WavConcat options{.wavs = {}, .output = at("all.wav")};
    for (std::size_t i = 0; i < parts.size(); ++i) {
      options.wavs.push_back(put("part-" + std::to_string(i + 1) + ".wav", parts[i]));
    }
    actions::wav_concat(context_, options);
    return get("all.wav");
  }
  /// A ramp that is told apart from any other.
  static std::vector<std::int16_t> ramp(int start, std::size_t count) {
    std::vector<std::int16_t> samples(count);
    for (std::size_t i = 0; i < count; ++i) samples[i] = static_cast<std::int16_t>(start + static_cast<int>(i % 1000));
    return samples;
  }
};

TEST_F(Wav, EncodingKeepsEverySampleBehindThePlainestHeader) {
  // More than a few blocks, and an odd number of everything.
  const std::vector<std::int16_t> samples = ramp(5, 1'000'003);
  const std::string wav = encode(samples_of(samples), {{"sample_rate", "24000"}});
  EXPECT_EQ(wav.size(), 44 + samples.size() * 2);
  EXPECT_EQ(wav.substr(0, 4), "RIFF");
  EXPECT_EQ(wav.substr(36, 4), "data");
  const Decoded decoded = decode(wav);
  EXPECT_EQ(decoded.info.samplerate, 24000);
  EXPECT_EQ(decoded.info.channels, 1);
  EXPECT_EQ(decoded.info.format & SF_FORMAT_SUBMASK, SF_FORMAT_PCM_16);
  EXPECT_TRUE(decoded.samples == samples);
}

TEST_F(Wav, EncodingTakesTheRateOfTheOptionsWhenTheObjectHasNone) {
  EXPECT_EQ(decode(encode(samples_of(ramp(0, 10)))).info.samplerate, 22050);
  EXPECT_EQ(decode(encode("")).info.frames, 0);
}

TEST_F(Wav, EncodingRefusesHalfASampleAndARateThatIsNone) {
  EXPECT_NE(message_of<PermanentError>([&] { encode("abc"); }).find("half a sample"), std::string::npos);
  EXPECT_THROW(encode("abcd", {{"sample_rate", "fast"}}), PermanentError);
  EXPECT_THROW(encode("abcd", {{"sample_rate", "-1"}}), PermanentError);
}

TEST_F(Wav, JoiningKeepsTheOrderAndEverySample) {
  std::vector<std::string> parts;
  std::vector<std::int16_t> expected;
  for (int i = 0; i < 7; ++i) {
    const std::vector<std::int16_t> samples = ramp(i * 1000, 100'001 + static_cast<std::size_t>(i));
    parts.push_back(wav_of(samples));
    expected.insert(expected.end(), samples.begin(), samples.end());
  }
  const std::string all = concat(parts);
  EXPECT_EQ(all.size(), 44 + expected.size() * 2);
  EXPECT_TRUE(decode(all).samples == expected);
  EXPECT_EQ(decode(all).info.samplerate, 22050);
  EXPECT_TRUE(concat(parts) == all);
}

TEST_F(Wav, JoiningKeepsChannelsAndRateOfTheParts) {
  const std::vector<std::int16_t> first{1, 2, 3, 4}, second{5, 6};
  const Decoded all = decode(concat({wav_of(first, 48'000, 2), wav_of(second, 48'000, 2)}));
  EXPECT_EQ(all.info.samplerate, 48'000);
  EXPECT_EQ(all.info.channels, 2);
  EXPECT_EQ(all.samples, (std::vector<std::int16_t>{1, 2, 3, 4, 5, 6}));
}

TEST_F(Wav, JoiningNamesThePartThatDoesNotFit) {
  const std::string good = wav_of(ramp(0, 10));
  const std::string message = message_of<PermanentError>([&] { concat({good, wav_of(ramp(0, 10), 16'000), good}); });
  EXPECT_TRUE(message.starts_with("part-2.wav (16000 Hz, 1 channel, ")) << message;
  EXPECT_NE(message.find("part-1.wav (22050 Hz"), std::string::npos) << message;
  EXPECT_NE(message_of<PermanentError>([&] { concat({good, wav_of(ramp(0, 10), 22050, 2)}); }), "");
  EXPECT_TRUE(message_of<PermanentError>([&] { concat({good, good, "not a WAV"}); }).starts_with("part-3.wav"));
  EXPECT_THROW(concat({}), PermanentError);
  EXPECT_NE(message_of<PermanentError>([&] {
              actions::wav_concat(context_, {.wavs = {at("part-1.wav"), at("missing.wav")}, .output = at("all.wav")});
            }).find("missing.wav"),
            std::string::npos);
}

TEST_F(Wav, JoiningRefusesWhatCannotBeCopiedAsItIs) {
  const std::string good = wav_of(ramp(0, 1000));
  const std::map<std::string, int> others{{"AIFF", SF_FORMAT_AIFF | SF_FORMAT_PCM_16},
                                          {"AU", SF_FORMAT_AU | SF_FORMAT_PCM_16},
                                          {"RIFX", SF_ENDIAN_BIG | SF_FORMAT_WAV | SF_FORMAT_PCM_16},
                                          {"ADPCM", SF_FORMAT_WAV | SF_FORMAT_IMA_ADPCM},
                                          {"GSM", SF_FORMAT_WAV | SF_FORMAT_GSM610}};
  for (const auto& [name, format] : others) {
    const std::string other = wav_of(ramp(0, 1000), 22050, 1, format);
    const std::string message = message_of<PermanentError>([&] { concat({good, other}); });
    EXPECT_TRUE(message.starts_with("part-2.wav is not a WAV file of plain samples")) << name << ": " << message;
    EXPECT_NE(message_of<PermanentError>([&] { concat({other, other}); }), "") << name;
    // Also one without samples: it may say what the joined file is like.
    const std::string empty = wav_of({}, 22050, 1, format);
    EXPECT_NE(message_of<PermanentError>([&] { concat({empty}); }), "") << name;
  }
  for (const int format : {SF_FORMAT_WAVEX, SF_FORMAT_RF64}) {
    const std::string other = wav_of(ramp(7, 1000), 22050, 1, format | SF_FORMAT_PCM_16);
    std::vector<std::int16_t> expected = ramp(0, 1000), more = ramp(7, 1000);
    expected.insert(expected.end(), more.begin(), more.end());
    EXPECT_TRUE(decode(concat({good, other})).samples == expected) << format;
  }
}

TEST_F(Wav, HalfASampleAtTheEndOfAPartDoesNotShiftTheNext) {
  const std::vector<std::int16_t> first = ramp(0, 1000), second = ramp(7, 1000);
  for (const int type : {SF_FORMAT_WAV, SF_FORMAT_RF64}) {
    const std::string whole = wav_of(first, 22050, 1, type | SF_FORMAT_PCM_16);
    std::vector<std::int16_t> expected(first.begin(), first.end() - 50);
    expected.insert(expected.end(), second.begin(), second.end());
    const std::string cut = whole.substr(0, whole.size() - 99);
    EXPECT_TRUE(decode(concat({cut, wav_of(second)})).samples == expected) << type;
  }
}

TEST_F(Wav, APartWithoutSamplesFitsToEverythingAndBecomesASilence) {
  const std::string empty = wav_of({}, 16'000);
  const std::vector<std::int16_t> samples = ramp(1, 10);
  const Decoded all = decode(concat({empty, empty, wav_of(samples, 24'000), empty, wav_of(samples, 24'000)}));
  const std::size_t silence = 24'000 * 7 / 10;
  std::vector<std::int16_t> expected(2 * silence);
  expected.insert(expected.end(), samples.begin(), samples.end());
  expected.insert(expected.end(), silence, 0);
  expected.insert(expected.end(), samples.begin(), samples.end());
  EXPECT_EQ(all.info.samplerate, 24'000);
  EXPECT_TRUE(all.samples == expected) << all.samples.size();

  const Decoded nothing = decode(concat({empty, empty}));
  EXPECT_EQ(nothing.info.samplerate, 16'000);
  EXPECT_TRUE(nothing.samples == std::vector<std::int16_t>(2 * 16'000 * 7 / 10)) << nothing.samples.size();
}

TEST_F(Wav, ASilenceIsSilentInEveryEncodingAndAsManyChannels) {
  for (const int encoding : {SF_FORMAT_PCM_U8, SF_FORMAT_PCM_24, SF_FORMAT_PCM_32, SF_FORMAT_FLOAT, SF_FORMAT_DOUBLE}) {
    const std::vector<std::int16_t> samples{512, 1024, 2048, 4096};
    const std::string part = wav_of(samples, 8000, 2, SF_FORMAT_WAV | encoding);
    const Decoded all = decode(concat({part, wav_of({}), part}));
    ASSERT_EQ(all.info.frames, 2 + 8000 * 7 / 10 + 2) << encoding;
    const std::vector<std::int16_t> silence(all.samples.begin() + 4, all.samples.end() - 4);
    EXPECT_TRUE(silence == std::vector<std::int16_t>(silence.size())) << encoding;
    EXPECT_EQ(std::vector<std::int16_t>(all.samples.end() - 4, all.samples.end()), decode(part).samples) << encoding;
  }
}

TEST_F(Wav, MoreThanFourGibibytesBecomeAnRf64AndNoLess) {
  const TempFolder folder;
  const actions::SoundFormat format{22050, 1, SF_FORMAT_PCM_16};
  const std::string samples = samples_of(ramp(0, 1000));
  for (const std::uint64_t expected : {2000ull, 0xfff00000ull, 0x100000000ull, 5ull << 30}) {
    const std::filesystem::path path = folder.path() / "large.wav";
    actions::SoundFile file = actions::create_wav(path, format, expected);
    actions::append_samples(file.get(), bytes_of(samples));
    file.reset();
    const std::string wav = read_file(path);
    EXPECT_EQ(wav.substr(0, 4), expected > 0xfff00000ull ? "RF64" : "RIFF");
    EXPECT_TRUE(wav.ends_with(samples));
    EXPECT_EQ(decode(wav).info.frames, 1000);
  }
}

TEST_F(Wav, WhatLiesBeyondFourGibibytesCanBeRead) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "large.wav";
  const std::vector<std::int16_t> samples = ramp(7, 1000);
  constexpr sf_count_t kHole = (sf_count_t{1} << 31) + 12'345;  // samples; the file is sparse
  actions::SoundFile file = actions::create_wav(path, {22050, 1, SF_FORMAT_PCM_16}, 2 * kHole + 2000);
  ASSERT_EQ(sf_seek(file.get(), kHole, SEEK_SET), kHole);
  actions::append_samples(file.get(), bytes_of(samples_of(samples)));
  file.reset();
  ASSERT_GT(std::filesystem::file_size(path), std::uintmax_t{1} << 32);

  SF_INFO info{};
  const actions::SoundFile read(sf_open(path.c_str(), SFM_READ, &info));
  ASSERT_TRUE(read) << sf_strerror(nullptr);
  EXPECT_EQ(info.frames, kHole + 1000);
  ASSERT_EQ(sf_seek(read.get(), -1001, SEEK_END), kHole - 1);
  std::vector<std::int16_t> last(1002);
  ASSERT_EQ(sf_readf_short(read.get(), last.data(), 1002), 1001);
  last.pop_back();
  std::vector<std::int16_t> expected{0};
  expected.insert(expected.end(), samples.begin(), samples.end());
  EXPECT_TRUE(last == expected);
}

TEST_F(Wav, StopsWhenToldTo) {
  const ObjectRef pcm = put("page.pcm", samples_of(ramp(0, 100)));
  const ObjectRef wav = put("page.wav", wav_of(ramp(0, 100)));
  context_.stop.request_stop();
  EXPECT_THROW(actions::wav_encode(context_, {.pcm = pcm, .wav = at("never.wav")}), Cancelled);
  EXPECT_THROW(actions::wav_concat(context_, {.wavs = {wav}, .output = at("never.wav")}), Cancelled);
  EXPECT_FALSE(files().info("never.wav"));
}

}  // namespace
}  // namespace pipegen
