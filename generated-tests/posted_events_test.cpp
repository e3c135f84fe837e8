// What the generated code of golden/posted-events does: what its API lets a client leave out, compiled in as it is
// stored.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "ingest_api/api.hpp"
#include "ingest_api/events.hpp"

namespace {

using namespace ingest_api;

/// Keeps what is published.
class Kept : public pipegen::Outbox {
 public:
  const pipegen::Settings& settings() const override { return settings_; }
  pipegen::Fresh fresh() override { return pipegen::Fresh("id"); }
  void publish(pipegen::Outgoing event) override { events.push_back(std::move(event)); }

  std::vector<pipegen::Outgoing> events;

 private:
  pipegen::Settings settings_;
};

class PostedEvents : public ::testing::Test {
 protected:
  /// What is published of it; or where it is refused, "/header/tenant".
  std::string post(std::string_view event, std::string_view body) {
    return outcome([&](Kept& outbox) {
      std::ranges::find(api_.events, event, &pipegen::EventRoute::event)->publish(body, outbox);
    });
  }
  std::string upload(std::string_view fields) {
    return outcome([&](Kept& outbox) {
      api_.uploads.at(0).check(fields, "w1");
      api_.uploads.at(0).publish(fields, "w1", "the file", outbox);
    });
  }
  std::string post_account(std::string_view body) {
    return outcome([&](Kept&) { api_.entities.at(0).check(body); });
  }

 private:
  template <typename Do>
  static std::string outcome(Do act) {
    Kept outbox;
    try {
      act(outbox);
    } catch (const pipegen::json::Invalid& error) {
      std::string pointers;
      for (const auto& violation : error.violations()) pointers += (pointers.empty() ? "" : " ") + violation.pointer;
      return pointers;
    }
    return outbox.events.empty() ? "" : outbox.events.at(0).payload;
  }

  pipegen::IngestApi api_ = api(pipegen::Settings());
};

TEST_F(PostedEvents, WhatIsMadeMayBeLeftOutAndIsThereWhenItIsPublished) {
  for (const char* body : {"{}", R"({"header": {}})", R"({"header": null})", R"({"header": {"workflowId": null}})"}) {
    const Noted event = pipegen::json::parse(post("Noted", body), read_noted);
    EXPECT_EQ(event.header.workflow_id.size(), 36U) << body;
    EXPECT_NE(event.header.event_id, pipegen::Uuid{}) << body;
  }
  EXPECT_EQ(pipegen::json::parse(post("Noted", "{}"), read_noted).header.workflow_id,
            pipegen::json::parse(post("Noted", "{}"), read_noted).header.workflow_id)
      << "one request, tried twice, is one workflow";
  const std::string kept = post("Noted", R"({"header": {"workflowId": "mine", "userId": "me"}})");
  EXPECT_EQ(pipegen::json::parse(kept, read_noted).header.workflow_id, "mine");
}

TEST_F(PostedEvents, ARecordWithMoreThanTheWorkflowIdCannotBeLeftOut) {
  EXPECT_EQ(post("Rented", "{}"), "/header");
  EXPECT_EQ(post("Rented", R"({"header": {}})"), "/header/tenant");
  EXPECT_EQ(upload("{}"), "/header");
  const std::string sent = post("Rented", R"({"header": {"tenant": "t"}})");
  EXPECT_EQ(pipegen::json::parse(sent, read_rented).header.tenant, "t");
}

TEST_F(PostedEvents, TheSameRecordElsewhereIsWhole) {
  EXPECT_EQ(post("Noted", R"({"parent": {"userId": "me"}})"), "/parent/workflowId");
  EXPECT_EQ(post("Rented", R"({"header": {"tenant": "t"}, "others": [{"tenant": "u"}]})"), "/others/0/workflowId");
  EXPECT_EQ(post_account(R"({"id": "1", "header": {}, "tenancy": {"tenant": "t"}})"),
            "/header/eventId /header/workflowId /tenancy/workflowId");
}

TEST_F(PostedEvents, AnObjectKeyComesWithTheUploadAndHasToBePosted) {
  EXPECT_EQ(post("Filed", R"({"header": {"tenant": "t"}})"), "/file");
  const Filed event = pipegen::json::parse(upload(R"({"header": {"tenant": "t"}})"), read_filed);
  EXPECT_EQ(event.file.name, "the file");
  EXPECT_EQ(event.header.workflow_id, "w1");
}

TEST_F(PostedEvents, TheDescriptionSaysWhatIsRequired) {
  const auto document = nlohmann::json::parse(openapi());
  const auto& schemas = document.at("components").at("schemas");
  const auto required = [](const nlohmann::json& schema) { return schema.value("required", nlohmann::json::array()); };
  EXPECT_EQ(required(schemas.at("Noted")), nlohmann::json::array());
  EXPECT_EQ(required(schemas.at("Noted").at("properties").at("header")), nlohmann::json::array());
  EXPECT_EQ(required(schemas.at("Rented")), nlohmann::json({"header"}));
  EXPECT_EQ(required(schemas.at("Rented").at("properties").at("header")), nlohmann::json({"tenant"}));
  EXPECT_EQ(required(schemas.at("Tenancy")), nlohmann::json({"tenant", "workflowId"}));
  EXPECT_EQ(required(schemas.at("Header")), nlohmann::json({"eventId", "workflowId"}));
}

TEST_F(PostedEvents, APatternThatMeansSomethingElseInEcmaScriptIsOnlyDescribed) {
  const auto document = nlohmann::json::parse(openapi());
  const auto& code = document.at("components").at("schemas").at("Noted").at("properties").at("code");
  EXPECT_FALSE(code.contains("pattern"));
  EXPECT_EQ(code.at("description"), "Matches the POSIX extended regular expression [[:digit:]]{5}");
}

}  // namespace
