#include "pipegen/actions/http_call.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <utility>

#include "actions/text.hpp"
#include "core/trace.hpp"
#include "http/client.hpp"

namespace pipegen::actions {

namespace {

constexpr std::uint64_t kMaxObject = 512u << 20;
constexpr std::size_t kShownBody = 300;  // octets, in messages

/// Everything but the unreserved characters of RFC 3986.
std::string percent_encoded(std::string_view text) {
  static constexpr std::string_view kPlain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  std::string out;
  for (const char& c : text) {
    if (kPlain.find(c) != std::string_view::npos) {
      out += c;
    } else {
      static constexpr char kDigits[] = "0123456789ABCDEF";
      const auto octet = static_cast<unsigned char>(c);
      out.append({'%', kDigits[octet >> 4], kDigits[octet & 15]});
    }
  }
  return out;
}

std::string json_object(const Values& values) {
  json::Writer out;
  out.begin_object();
  for (const auto& [name, value] : values) {
    if (!value.json()) continue;
    out.key(name);
    out.value(Json{*value.json()});
  }
  out.end_object();
  return out.take();
}

/// Throws for an answer that does not say that it is done.
void judge(const HttpCall& options, const http::HttpResponse& answer) {
  if (answer.is_success()) return;
  std::string message =
      answer.server + " answered the " + options.method + " with status " + std::to_string(answer.status);
  if (!answer.body.empty()) message += ": " + json::repaired_utf8(answer.body.substr(0, kShownBody));
  static constexpr int kPassing[] = {408, 425, 429};
  if (answer.status >= 500 || std::ranges::find(kPassing, answer.status) != std::end(kPassing)) {
    throw TransientError(message);
  }
  throw PermanentError(message);
}

}  // namespace

HttpCallResult http_call(Context& context, const HttpCall& options) {
  static constexpr std::string_view kMethods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
  if (std::ranges::find(kMethods, options.method) == std::end(kMethods)) {
    throw ConfigError("method is \"" + options.method + "\": choose GET, POST, PUT, PATCH or DELETE");
  }
  auto url = fill(options.url, placeholders(options.values), "url", percent_encoded);
  if (!url) throw PermanentError("a value that the url needs is absent from the message");

  http::HttpRequest request;
  request.method = options.method;
  request.url = std::move(*url);
  request.bearer_token = options.bearer_token;
  request.headers.emplace_back("Idempotency-Key", context.message().id);
  trace::Span span = context.message().trace.has_trace()
                         ? trace::Span(trace::Kind::kClient, options.method, "", context.message().trace)
                         : trace::Span();
  std::map<std::string, std::string> trace_headers;
  trace::add_to(trace_headers, span.context());
  request.headers.insert(request.headers.end(), trace_headers.begin(), trace_headers.end());

  std::optional<ObjectReader> input;
  std::string content_type = options.content_type;
  if (options.input) {
    input.emplace(context.objects(options.input->bucket).open(options.input->name));
    request.body_size = input->info().size;
    request.read_body = [&](std::span<std::byte> buffer) { return input->read(buffer); };
    if (content_type.empty()) content_type = "application/octet-stream";
  } else if (options.method != "GET" && options.method != "DELETE") {
    request.body = json_object(options.values);
    if (content_type.empty()) content_type = "application/json";
  }
  if (!content_type.empty()) request.headers.emplace_back("Content-Type", content_type);

  // Destroyed before finish(), a writer leaves nothing behind.
  std::optional<ObjectWriter> output;
  HttpCallResult out;
  if (options.output) output.emplace(context.objects(options.output->bucket).create(options.output->name));
  request.max_answer = options.text ? kMaxText : kMaxObject;
  if (options.text || options.output) {
    request.take_body = [&](BytesView piece) {
      if (output) output->write(piece);
      if (options.text) out.text += text_of(piece);
    };
  } else {
    request.keep = http::HttpRequest::Keep::kStart;
  }

  // Longer than the call may take: at its deadline the stop token ends it, which counts as a try. A server that is away
  // does not.
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(context.deadline() - std::chrono::steady_clock::now());
  const http::HttpResponse answer = [&] {
    try {
      return http::call(request, std::max(left, std::chrono::milliseconds(0)) + std::chrono::seconds(5),
                        context.stop_token());
    } catch (const std::exception& error) {
      span.fail("call", error.what());
      throw;
    }
  }();
  span.set("http.request.method", options.method);
  span.set("server.address", answer.server);
  span.set("http.response.status_code", answer.status);
  if (!answer.is_success()) span.fail(std::to_string(answer.status), "the server did not accept it");
  span.end();
  judge(options, answer);
  context.throw_if_stopped();
  out.status = answer.status;
  if (options.text) out.text = checked_text(answer.server, out.text);
  if (output) output->finish();
  return out;
}

}  // namespace pipegen::actions
