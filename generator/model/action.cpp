#include "model/action.hpp"

#include <algorithm>

namespace pipegen::gen {

std::span<const Action> actions() {
  using enum ActionParameter::Role;
  static const std::vector<Action> kActions{
      {.name = "ocr",
       .component = "ocr",
       .parameters =
           {{.role = kInput, .name = "image", .type = TypeKind::kObject, .required = true, .doc = "the image to read"},
            {.role = kOutput,
             .name = "text",
             .type = TypeKind::kObject,
             .required = true,
             .doc = "where its text goes"},
            {.role = kSetting, .name = "language", .fallback = "eng", .doc = "tesseract's name of the language"},
            {.role = kValue, .name = "blank", .type = TypeKind::kBool, .doc = "true: the image is known to be blank"},
            {.role = kValue, .name = "commentary", .type = TypeKind::kBool, .doc = "ask for commentary"},
            {.role = kValue, .name = "commentary_instructions", .doc = "what to tell the model about it"},
            {.role = kValue, .name = "summary", .type = TypeKind::kBool, .doc = "ask for a summary"},
            {.role = kValue, .name = "summary_placement", .doc = "top or bottom", .choices = {"top", "bottom"}},
            {.role = kValue, .name = "summary_instructions", .doc = "what to tell the model about it"},
            {.role = kSetting, .name = "chat_url", .doc = "base URL of an OpenAI-compatible API"},
            {.role = kSetting, .name = "chat_model", .doc = "model to ask for"},
            {.role = kSecret, .name = "chat_api_key", .doc = "bearer token of that API"}},
       .doc = "Reads the text of an image (tesseract)."},
      {.name = "render_pdf",
       .component = "pdf",
       .makes_many = true,
       .parameters =
           {{.role = kInput, .name = "pdf", .type = TypeKind::kObject, .required = true, .doc = "the document"},
            {.role = kOutput,
             .name = "png",
             .type = TypeKind::kObject,
             .required = true,
             .doc = "where a page's image goes"},
            {.role = kResult, .name = "page", .type = TypeKind::kInt32, .doc = "gets the page's number, from 1"},
            {.role = kResult, .name = "pages", .type = TypeKind::kInt32, .doc = "gets the number of pages"},
            {.role = kResult, .name = "blank", .type = TypeKind::kBool, .doc = "gets true for an empty page"},
            {.role = kSetting, .name = "dpi", .type = TypeKind::kFloat64, .fallback = "200", .doc = "dots per inch"}},
       .doc = "Renders every page of a PDF to a PNG (poppler)."},
      {.name = "speak",
       .component = "speech",
       .parameters =
           {{.role = kInput, .name = "text", .type = TypeKind::kObject, .required = true, .doc = "the text to speak"},
            {.role = kOutput,
             .name = "audio",
             .type = TypeKind::kObject,
             .required = true,
             .doc = "where the PCM goes"},
            {.role = kSetting,
             .name = "engine",
             .fallback = "espeak-ng",
             .doc = "espeak-ng or program",
             .choices = {"espeak-ng", "program"}},
            {.role = kSetting,
             .name = "program",
             .is_list = true,
             .doc = "argument list of the external program",
             .needed_for = {"engine", "program"}},
            {.role = kSetting,
             .name = "sample_rate",
             .type = TypeKind::kInt64,
             .fallback = "22050",
             .doc = "of raw PCM from a program"},
            {.role = kValue, .name = "voice", .doc = "voice of the engine"},
            {.role = kValue, .name = "seed", .type = TypeKind::kInt64, .doc = "for the program"},
            {.role = kValue, .name = "ngl", .type = TypeKind::kInt64, .doc = "for the program: layers on the GPU"},
            {.role = kValue, .name = "top_p", .type = TypeKind::kFloat64, .doc = "for the program"},
            {.role = kValue, .name = "repetition_penalty", .type = TypeKind::kFloat64, .doc = "for the program"},
            {.role = kValue, .name = "temperature", .type = TypeKind::kFloat64, .doc = "for the program"}},
       .doc = "Speaks a text to raw PCM (espeak-ng, or an external program)."},
      {.name = "wav_concat",
       .component = "audio",
       .collects = true,
       .parameters = {{.role = kInput,
                       .name = "wav",
                       .type = TypeKind::kObject,
                       .required = true,
                       .doc = "the WAV of each collected event"},
                      {.role = kOutput,
                       .name = "output",
                       .type = TypeKind::kObject,
                       .required = true,
                       .doc = "where the joined WAV goes"}},
       .doc = "Joins the WAVs of a group, in order (libsndfile; RF64 above 4 GiB)."},
      {.name = "wav_encode",
       .component = "audio",
       .parameters =
           {{.role = kInput,
             .name = "pcm",
             .type = TypeKind::kObject,
             .required = true,
             .doc = "raw PCM as speak makes it"},
            {.role = kOutput, .name = "wav", .type = TypeKind::kObject, .required = true, .doc = "where the WAV goes"},
            {.role = kSetting,
             .name = "sample_rate",
             .type = TypeKind::kInt64,
             .fallback = "22050",
             .doc = "when the object does not tell"}},
       .doc = "Puts raw PCM into a WAV file (libsndfile)."},
  };
  return kActions;
}

const Action* find_action(std::string_view name) {
  const auto all = actions();
  const auto found = std::ranges::find(all, name, &Action::name);
  return found == all.end() ? nullptr : &*found;
}

}  // namespace pipegen::gen
