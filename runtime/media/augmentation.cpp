#include "media/augmentation.hpp"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "http/client.hpp"
#include "pipegen/error.hpp"

namespace pipegen::actions {

namespace {

using nlohmann::json;

std::string ask(Context& context, const Ocr& options, const std::string& task,
                const std::optional<std::string>& instructions, const std::string& text) {
  if (options.chat_url.empty()) {
    // Not a ConfigError: that would hold up the uploads that ask for nothing of the kind.
    throw PermanentError("the upload asks for a language model, but no chat_url is set for this service");
  }
  json request = {{"messages",
                   {{{"role", "system"}, {"content", instructions ? task + "\n" + *instructions : task}},
                    {{"role", "user"}, {"content", text}}}}};
  if (!options.chat_model.empty()) request["model"] = options.chat_model;

  std::string url = options.chat_url;
  while (url.ends_with('/')) url.pop_back();
  // Longer than the call may take: at its deadline the stop token ends it, which counts as a try. An endpoint that is
  // away does not.
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(context.deadline() - std::chrono::steady_clock::now());
  const http::HttpResponse response = http::post_json(
      url + "/chat/completions", request.dump(-1, ' ', false, json::error_handler_t::replace), options.chat_api_key,
      std::max(left, std::chrono::milliseconds(0)) + std::chrono::seconds(5), context.stop_token());
  const int status = response.status;
  if (status != 200) {
    const std::string what = "the chat endpoint answered with status " + std::to_string(status);
    // What a proxy or the endpoint itself says while it is away or has too much to do.
    if (status == 429 || status == 502 || status == 503 || status == 504) throw Unavailable(what);
    // These say that the request is at fault; anything else may pass, or be a setting that somebody mends.
    if (status == 400 || status == 413 || status == 422) throw PermanentError(what);
    throw TransientError(what);
  }
  const json answer = json::parse(response.body, nullptr, false);
  const json::json_pointer content("/choices/0/message/content");
  if (answer.is_discarded() || !answer.contains(content) || !answer[content].is_string()) {
    throw TransientError("the chat endpoint's answer has no /choices/0/message/content");
  }
  return answer[content].get<std::string>();
}

}  // namespace

std::string augment(Context& context, const Ocr& options, std::string text) {
  const bool commentary = options.commentary.value_or(false);
  const bool summary = options.summary.value_or(false);
  if (text.empty() || (!commentary && !summary)) return text;

  // Both are asked about the page alone, before either changes the text.
  std::string comment;
  std::string short_text;
  if (commentary) {
    comment = ask(context, options, "Comment on this page of a document, for a listener. Answer with plain text.",
                  options.commentary_instructions, text);
  }
  if (summary) {
    short_text = ask(context, options, "Summarise this page of a document, for a listener. Answer with plain text.",
                     options.summary_instructions, text);
  }
  if (commentary) text += "\nCommentary: " + comment + "\n";
  if (summary) {
    const bool top = options.summary_placement == "top";
    text = top ? "Summary: " + short_text + "\n\n" + text : text + "\nSummary: " + short_text + "\n";
  }
  return text;
}

}  // namespace pipegen::actions
