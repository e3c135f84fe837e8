#include "pipegen/actions/ocr.hpp"

#include <dlfcn.h>
#include <leptonica/allheaders.h>
#include <tesseract/baseapi.h>
#include <tesseract/ocrclass.h>

#include <map>
#include <memory>

#include "media/augmentation.hpp"
#include "pipegen/error.hpp"

namespace pipegen::actions {

namespace {

/// Without this, tesseract's own threads fight over the cores: a page takes 3 to 9 times as long. Handlers are what
/// runs in parallel. The setting belongs to the calling thread, and to the OpenMP library that tesseract was linked
/// with, which need not be that of the compiler: hence looked up.
void hold_to_one_thread() {
  using SetLevels = void (*)(int);
  static const auto kSetLevels = reinterpret_cast<SetLevels>(::dlsym(RTLD_DEFAULT, "omp_set_max_active_levels"));
  if (kSetLevels != nullptr) kSetLevels(0);
}

/// The thread's engine for a language, made at its first use: loading the model takes longer than a small page.
tesseract::TessBaseAPI& engine(const std::string& language) {
  hold_to_one_thread();
  thread_local std::map<std::string, std::unique_ptr<tesseract::TessBaseAPI>> engines;
  auto& slot = engines[language];
  if (!slot) {
    auto api = std::make_unique<tesseract::TessBaseAPI>();
    if (api->Init(nullptr, language.c_str()) != 0) {
      throw ConfigError("tesseract has no language \"" + language + "\": install tesseract-ocr-" + language +
                        " or change the setting");
    }
    api->SetPageSegMode(tesseract::PSM_AUTO);
    api->SetVariable("debug_file", "/dev/null");
    slot = std::move(api);
  }
  return *slot;
}

struct PixDeleter {
  void operator()(Pix* pix) const { pixDestroy(&pix); }
};

/// For tesseract to ask, between words, whether to give up.
bool told_to_stop(void* stop, int) { return static_cast<const std::stop_token*>(stop)->stop_requested(); }

std::string read_text(const Context& context, const Bytes& image, const Ocr& options) {
  setMsgSeverity(L_SEVERITY_NONE);  // leptonica's own complaints would stand between the lines of the log
  const std::unique_ptr<Pix, PixDeleter> pix(pixReadMem(reinterpret_cast<const l_uint8*>(image.data()), image.size()));
  if (!pix) throw PermanentError(options.image.name + " is no image that can be read");
  tesseract::TessBaseAPI& api = engine(options.language);
  // What it learnt from another page must not change the text of this one.
  api.ClearAdaptiveClassifier();
  api.SetImage(pix.get());
  std::stop_token stop = context.stop_token();
  tesseract::ETEXT_DESC monitor;
  monitor.cancel = told_to_stop;
  monitor.cancel_this = &stop;
  const int result = api.Recognize(&monitor);
  const std::unique_ptr<char[]> text(result == 0 ? api.GetUTF8Text() : nullptr);
  api.Clear();
  context.throw_if_stopped();
  if (!text) throw PermanentError("tesseract cannot read " + options.image.name);
  return text.get();
}

}  // namespace

void ocr(Context& context, const Ocr& options) {
  std::string text;
  if (!options.blank.value_or(false)) {
    const Bytes image = context.objects(options.image.bucket).get(options.image.name);
    context.throw_if_stopped();
    text = read_text(context, image, options);
  }
  text = augment(context, options, std::move(text));
  context.objects(options.text.bucket).put(options.text.name, bytes_of(text), {{"media_type", "text/plain"}});
}

}  // namespace pipegen::actions
