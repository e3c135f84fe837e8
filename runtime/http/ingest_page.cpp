#include "http/ingest_page.hpp"

#include <string>
#include <string_view>

#include "core/encoding.hpp"
#include "core/sha256.hpp"

namespace pipegen::http {

namespace {

constexpr std::string_view kStyle = R"css(
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a2e }
h1, h2 { line-height: 1.2 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ccd; vertical-align: top }
code, textarea, pre, input, select { font: 14px/1.4 ui-monospace, monospace }
textarea, input, select { width: 100%; box-sizing: border-box; padding: .4rem; border: 1px solid #99a; border-radius: 4px }
label { display: block; margin: .6rem 0 }
button { font: inherit; padding: .4rem 1.2rem; border-radius: 4px; border: 1px solid #336; background: #336; color: #fff }
pre { background: #f0f0f6; padding: .8rem; overflow: auto; white-space: pre-wrap }
@media (prefers-color-scheme: dark) {
  body { background: #15151f; color: #dde } pre { background: #22222e }
  textarea, input, select { background: #22222e; color: #dde }
}
)css";

constexpr std::string_view kScript = R"js(
const form = document.getElementById("try"), out = document.getElementById("answer");
async function show(path, options) {
  const token = document.getElementById("token");
  options.headers = options.headers || {};
  if (token && token.value) options.headers["Authorization"] = "Bearer " + token.value;
  try {
    const answer = await fetch(path, options);
    const text = await answer.text();
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch (e) { /* as it came */ }
    out.textContent = answer.status + " " + answer.statusText + "\n" + shown;
    return JSON.parse(text);
  } catch (error) {
    out.textContent = out.textContent || String(error);
  }
}
form.addEventListener("submit", async event => {
  event.preventDefault();
  out.textContent = "";
  const path = document.getElementById("path").value;
  const type = path === "/ingest/batch" ? "text/plain" : "application/json";
  const made = await show(path, {method: "POST", headers: {"Content-Type": type},
                                 body: document.getElementById("body").value});
  if (made && made.message_id) document.getElementById("id").value = made.message_id;
});
document.getElementById("look").addEventListener("click", () => {
  out.textContent = "";
  show("/ingest/status/" + encodeURIComponent(document.getElementById("id").value), {});
});
)js";

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out.push_back(c);
    }
  }
  return out;
}

std::string source_of(std::string_view text) { return "'sha256-" + base64(Sha256::of(bytes_of(text))) + "'"; }

void add_endpoint(std::string& html, std::string_view method, std::string_view path, std::string_view what) {
  html.append("<tr><td><code>").append(method).append(" ").append(escaped(path)).append("</code></td><td>");
  html.append(escaped(what)).append("</td></tr>\n");
}

}  // namespace

Response ingest_page(const IngestApi& api, bool needs_token) {
  const std::string title = escaped(api.pipeline) + " ingestion API";
  std::string html = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>" + title +
                     "</title>\n<meta name=\"viewport\" content=\"width=device-width\">\n<style>" +
                     std::string(kStyle) + "</style></head><body>\n<h1>" + title + "</h1>\n";
  html += "<p>Takes messages over HTTP and answers 202 once they are stored in the stream <code>" +
          escaped(api.entity_stream) +
          "</code>. Every field is described in <a href=\"/openapi.json\">/openapi.json</a> (OpenAPI).</p>\n"
          "<h2>Entities</h2>\n<table><tr><th>Entity</th><th>Send it to</th><th>Subject</th></tr>\n";
  for (const EntityIngest& entity : api.entities) {
    html += "<tr><td>" + escaped(entity.name) + "</td><td><code>POST /ingest/" + escaped(entity.path) +
            "</code></td><td><code>" + escaped(entity.subject) + "</code></td></tr>\n";
  }
  html += "</table>\n<h2>Endpoints</h2>\n<table>\n";
  for (const EntityIngest& entity : api.entities) {
    add_endpoint(html, "POST", "/ingest/" + std::string(entity.path), "one " + std::string(entity.name) + " as JSON");
  }
  add_endpoint(html, "POST", "/ingest/message",
               "one message of the entity that ?entity= or X-Entity-Type names, else of the only one that fits");
  add_endpoint(html, "POST", "/ingest/batch", "many: one per line (NDJSON), or as a JSON array; of any size");
  add_endpoint(html, "GET", "/ingest/status/{id}", "what became of a message");
  for (const Upload& upload : api.uploads) add_endpoint(html, "POST", upload.path, "a document");
  for (const EventRoute& event : api.events) add_endpoint(html, "POST", "/events/" + event.event, "an event as JSON");
  add_endpoint(html, "GET", "/health", "200 while the process lives");
  add_endpoint(html, "GET", "/ready", "200 while messages can be taken");
  add_endpoint(html, "GET", "/metrics", "figures for Prometheus");
  html +=
      "</table>\n<p>Send an <code>Idempotency-Key</code> with a request that you may have to repeat: the same key "
      "and body give one message.</p>\n<h2>Try it</h2>\n<form id=\"try\">\n<label>Send to <select id=\"path\">";
  for (const EntityIngest& entity : api.entities) {
    html += "<option>/ingest/" + escaped(entity.path) + "</option>";
  }
  html += "<option>/ingest/message</option><option>/ingest/batch</option></select></label>\n";
  if (needs_token) {
    html += "<label>Token <input id=\"token\" type=\"password\" autocomplete=\"off\"></label>\n";
  }
  html +=
      "<label>Body <textarea id=\"body\" rows=\"8\" spellcheck=\"false\">{}</textarea></label>\n"
      "<button>Send</button>\n</form>\n<label>Message id <input id=\"id\"></label>\n"
      "<button id=\"look\" type=\"button\">What became of it?</button>\n<pre id=\"answer\"></pre>\n<script>" +
      std::string(kScript) + "</script>\n</body></html>\n";
  Response page{.content_type = "text/html; charset=utf-8", .body = std::move(html)};
  page.headers = {{"Content-Security-Policy", "default-src 'none'; style-src " + source_of(kStyle) + "; script-src " +
                                                  source_of(kScript) +
                                                  "; connect-src 'self'; base-uri 'none'; form-action 'none'; "
                                                  "frame-ancestors 'none'"},
                  {"X-Content-Type-Options", "nosniff"},
                  {"Referrer-Policy", "no-referrer"}};
  return page;
}

}  // namespace pipegen::http
