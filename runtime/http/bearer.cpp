#include "http/bearer.hpp"

#include <algorithm>

#include "http/head.hpp"
#include "pipegen/error.hpp"

namespace pipegen::http {

namespace {

constexpr std::size_t kMinToken = 16;

bool is_between(char c) { return c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

Problem unauthorized(const std::string& detail, const char* challenge) {
  return Problem(401, detail, {{"WWW-Authenticate", challenge}});
}

}  // namespace

BearerTokens::BearerTokens(const Settings& settings, std::string_view section) {
  const std::string name = std::string(section) + ".tokens";
  const auto text = settings.secret(name);
  if (!text) return;
  for (auto at = text->begin(); at != text->end();) {
    const auto end = std::find_if(at, text->end(), is_between);
    const std::string_view token(&*at, static_cast<std::size_t>(end - at));
    if (!token.empty() && token.size() < kMinToken) {
      throw ConfigError("the setting " + name + " has a token of fewer than " + std::to_string(kMinToken) +
                        " characters: make longer ones, for example with `openssl rand -hex 32`");
    }
    if (!token.empty()) digests_.push_back(Sha256::of(bytes_of(token)));
    at = std::find_if_not(end, text->end(), is_between);
  }
  if (digests_.empty()) {
    throw ConfigError("the setting " + name + " has no token: give one or more, or take the setting out");
  }
}

void BearerTokens::check(const Request& request) const {
  if (!needed()) return;
  const auto header = request.header("Authorization");
  if (!header) throw unauthorized("this needs a token: send the header \"Authorization: Bearer …\"", "Bearer");
  constexpr std::string_view kScheme = "Bearer ";
  std::string_view given = *header;
  if (!same_word(given.substr(0, kScheme.size()), kScheme)) {
    throw unauthorized("this needs a token: send the header \"Authorization: Bearer …\"", "Bearer");
  }
  given.remove_prefix(kScheme.size());
  while (given.starts_with(' ')) given.remove_prefix(1);
  const Sha256::Digest digest = Sha256::of(bytes_of(given));
  bool known = false;
  for (const auto& token : digests_) {
    std::byte difference{};
    for (std::size_t i = 0; i < token.size(); ++i) difference |= token[i] ^ digest[i];
    known |= difference == std::byte{};
  }
  if (!known) throw unauthorized("this token is not known here", R"(Bearer error="invalid_token")");
}

}  // namespace pipegen::http
