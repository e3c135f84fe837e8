// What the generated code of golden/entities does: random values go through JSON, its parsers and its rows into both
// databases, and come back as they were sent.
#include "pipegen/entities.hpp"

#include <gtest/gtest.h>
#include <libpq-fe.h>
#include <sqlite3.h>

#include <bit>
#include <cmath>
#include <functional>
#include <random>

#include "customers_to_rows/rows.hpp"
#include "entity_worker/events.hpp"
#include "entity_worker/rows.hpp"
#include "entity_worker/tables.hpp"
#include "entity_worker/transforms.hpp"
#include "sql/database.hpp"
#include "support/postgres_server.hpp"

namespace entity_worker::transforms {

std::string order_label(const Order& order) { return order.order_key + " of " + order.customer_key; }
Color order_mood(const Order& order) { return order.line_items.empty() ? Color::kDefault : Color::kDarkBlue; }
std::optional<std::string> nickname(const Order& order) {
  return order.extras ? std::optional("with extras") : std::nullopt;
}
std::vector<std::string> order_tags(const Order& order) { return {order.currency, "it's"}; }
std::string item_label(const Order& order, const LineItem& line_item) {
  return order.order_key + "/" + std::to_string(line_item.line_number);
}
std::string tax_label(const Order& order, const LineItem& item) { return order.order_key + ":" + item.tax.to_string(); }

}  // namespace entity_worker::transforms

namespace {

using namespace entity_worker;
using pipegen::sql::Batch;
using Cells = std::vector<std::optional<std::string>>;

// --- values ----------------------------------------------------------------------------------------------------------

/// Random values, with those among them that are known to be hard.
class Values {
 public:
  std::int64_t number(std::int64_t least, std::int64_t most) {
    switch (pick(8)) {
      case 0:
        return least;
      case 1:
        return most;
      default:
        return std::uniform_int_distribution<std::int64_t>(least, most)(engine_);
    }
  }
  bool flag() { return pick(2) == 0; }
  double real() {
    for (;;) {
      const auto value = std::bit_cast<double>(engine_());
      if (std::isfinite(value)) return value;
    }
  }
  std::string text() {
    static const std::vector<std::string> kHard{
        "",       "'; DROP TABLE orders; --",          "\"", "\\", "\\x41",    "{}", "NULL",
        "\t\r\n", "Ünï \xf0\x9f\x9a\x80 \xe2\x80\xae", "$1", "%s", "\x01\x7f", ",;|"};
    if (flag()) return kHard[pick(kHard.size())];
    std::string out;
    for (std::size_t size = pick(60); out.size() < size;) out += static_cast<char>(' ' + pick(95));
    return out;
  }
  std::string digits(std::size_t count) {
    std::string out;
    while (out.size() < count) out += static_cast<char>('0' + pick(10));
    return out;
  }
  pipegen::Decimal decimal(int precision, int scale) {
    const std::string whole = "1" + digits(pick(static_cast<std::size_t>(precision - scale)));
    const std::string text = (flag() ? "-" : "") + whole + "." + digits(static_cast<std::size_t>(scale));
    return pipegen::Decimal::parse(text, precision, scale).value();
  }
  pipegen::Bytes bytes() {
    pipegen::Bytes out(pick(100));
    for (std::byte& octet : out) octet = static_cast<std::byte>(pick(256));
    return out;
  }
  pipegen::Uuid uuid() {
    pipegen::Uuid out;
    for (auto& octet : out.octets) octet = static_cast<std::uint8_t>(pick(256));
    return out;
  }
  pipegen::Timestamp timestamp() {
    static const auto kFirst = pipegen::parse_timestamp("0001-01-01T00:00:00Z").value().time_since_epoch().count();
    static const auto kLast =
        pipegen::parse_timestamp("9999-12-31T23:59:59.999999Z").value().time_since_epoch().count();
    return pipegen::Timestamp(std::chrono::microseconds(number(kFirst, kLast)));
  }
  pipegen::Date date() { return {std::chrono::floor<std::chrono::days>(timestamp())}; }
  pipegen::Json json() {
    switch (pick(4)) {
      case 0:
        return {"null"};
      case 1:
        return {"[1, 2.50, {\"a\":\"\\u0041\"}]"};
      default:
        return {pipegen::json::to_json(text())};
    }
  }
  Color color() { return static_cast<Color>(pick(3)); }
  Inner inner() {
    return {.class_ = static_cast<std::int32_t>(pick(100)), .new_ = maybe([&] { return text(); })};
  }
  std::size_t pick(std::size_t count) { return static_cast<std::size_t>(engine_() % count); }

  template <typename Make>
  auto maybe(Make make) -> std::optional<decltype(make())> {
    if (flag()) return std::nullopt;
    return make();
  }
  template <typename Make>
  auto list(std::size_t least, Make make) {
    std::vector<decltype(make())> out(least + pick(4));
    for (auto& item : out) item = make();
    return out;
  }

 private:
  std::mt19937_64 engine_{20250115};
};

Everything everything(Values& values, int number) {
  Everything out;
  out.id = values.uuid();
  out.part = values.number(INT64_MIN, INT64_MAX);
  out.a_bool = values.flag();
  out.an_int32 = static_cast<std::int32_t>(values.number(-5, INT32_MAX));
  out.an_int64 = values.number(INT64_MIN, INT64_MAX);
  out.a_float = -std::abs(values.real());
  out.a_decimal = pipegen::Decimal::parse("9" + values.digits(12) + "." + values.digits(2), 15, 2).value();
  for (int rest = number + 1; rest > 0; rest /= 26) out.a_string += static_cast<char>('A' + rest % 26);
  out.some_bytes = values.bytes();
  out.a_uuid = values.uuid();
  out.a_timestamp = values.timestamp();
  out.a_date = values.date();
  out.some_json = values.json();
  out.a_color = values.color();
  out.an_object = {"key/" + std::to_string(number)};
  out.an_inner = values.inner();
  out.a_list = values.list(1, [&] { return static_cast<std::int32_t>(values.number(INT32_MIN, INT32_MAX)); });
  out.a_map = {{values.text(), values.text()}, {"x", values.text()}};
  out.inners = values.list(0, [&] { return values.inner(); });
  out.maybe_bool = values.maybe([&] { return values.flag(); });
  out.maybe_int32 = values.maybe([&] { return static_cast<std::int32_t>(values.number(INT32_MIN, INT32_MAX)); });
  out.maybe_int64 = values.maybe([&] { return values.number(INT64_MIN, INT64_MAX); });
  out.maybe_float = values.maybe([&] { return values.real(); });
  out.maybe_decimal = values.maybe([&] { return values.decimal(38, 10); });
  out.maybe_string = values.maybe([&] { return values.text(); });
  out.maybe_bytes = values.maybe([&] { return values.bytes(); });
  out.maybe_uuid = values.maybe([&] { return values.uuid(); });
  out.maybe_timestamp = values.maybe([&] { return values.timestamp(); });
  out.maybe_date = values.maybe([&] { return values.date(); });
  out.maybe_json = values.maybe([&] { return pipegen::Json{"{\"a\": " + values.digits(1) + "}"}; });
  out.maybe_color = values.maybe([&] { return values.color(); });
  out.maybe_object = values.maybe([&] { return pipegen::ObjectKey<Pictures>{"a/b"}; });
  out.maybe_inner = values.maybe([&] { return values.inner(); });
  out.maybe_list = values.maybe([&] { return values.list(0, [&] { return values.inner(); }); });
  out.maybe_map = values.maybe([&] { return std::map<std::string, pipegen::Decimal>{{"a", values.decimal(4, 1)}}; });
  out.later_text = values.text();
  out.namespace_ = values.text();
  out.select = values.text();
  out.group = values.text();
  return out;
}

// --- what they are in a database -------------------------------------------------------------------------------------

enum class Form { kText, kFlag, kReal, kBytes, kTimestamp };

struct Expected {
  std::string column;
  Form form = Form::kText;
  std::optional<std::string> text{};
};

std::string hex(const pipegen::Bytes& bytes) {
  std::string out;
  for (const std::byte octet : bytes) {
    out += "0123456789abcdef"[std::to_integer<int>(octet) >> 4];
    out += "0123456789abcdef"[std::to_integer<int>(octet) & 15];
  }
  return out;
}

std::string spelled(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

template <typename T>
Expected expect(std::string column, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return {column, Form::kFlag, value ? "1" : "0"};
  } else if constexpr (std::is_same_v<T, double>) {
    return {column, Form::kReal, spelled(value)};
  } else if constexpr (std::is_same_v<T, pipegen::Bytes>) {
    return {column, Form::kBytes, hex(value)};
  } else if constexpr (std::is_same_v<T, pipegen::Timestamp>) {
    return {column, Form::kTimestamp, pipegen::to_string(value)};
  } else if constexpr (std::is_same_v<T, pipegen::Json>) {
    return {column, Form::kText, value.text};
  } else if constexpr (requires { to_text(value); }) {
    return {column, Form::kText, to_text(value)};
  } else if constexpr (requires { pipegen::to_text(value); }) {
    return {column, Form::kText, pipegen::to_text(value)};
  } else {
    return {column, Form::kText, pipegen::json::to_json(value)};
  }
}

template <typename T>
Expected expect(std::string column, const std::optional<T>& value) {
  if (!value) return {column, Form::kText, std::nullopt};
  return expect(column, *value);
}

std::vector<Expected> expected_of(const Everything& value) {
  return {expect("id", value.id),
          expect("Part", value.part),
          expect("a_bool", value.a_bool),
          expect("an_int32", value.an_int32),
          expect("an_int64", value.an_int64),
          expect("a_float", value.a_float),
          expect("a_decimal", value.a_decimal),
          expect("a_string", value.a_string),
          expect("some_bytes", value.some_bytes),
          expect("a_uuid", value.a_uuid),
          expect("a_timestamp", value.a_timestamp),
          expect("a_date", value.a_date),
          expect("some_json", value.some_json),
          expect("a_color", value.a_color),
          expect("an_object", value.an_object),
          expect("an_inner", value.an_inner),
          expect("a_list", value.a_list),
          expect("a_map", value.a_map),
          expect("inners", value.inners),
          expect("maybe_bool", value.maybe_bool),
          expect("maybe_int32", value.maybe_int32),
          expect("maybe_int64", value.maybe_int64),
          expect("maybe_float", value.maybe_float),
          expect("maybe_decimal", value.maybe_decimal),
          expect("maybe_string", value.maybe_string),
          expect("maybe_bytes", value.maybe_bytes),
          expect("maybe_uuid", value.maybe_uuid),
          expect("maybe_timestamp", value.maybe_timestamp),
          expect("maybe_date", value.maybe_date),
          expect("maybe_json", value.maybe_json),
          expect("maybe_color", value.maybe_color),
          expect("maybe_object", value.maybe_object),
          expect("maybe_inner", value.maybe_inner),
          expect("maybe_list", value.maybe_list),
          expect("maybe_map", value.maybe_map),
          expect("with_default", value.with_default),
          expect("later_number", value.later_number),
          expect("later_text", value.later_text),
          expect("later_flag", value.later_flag),
          expect("later_price", value.later_price),
          expect("later_color", value.later_color),
          expect("namespace", value.namespace_),
          expect("select", value.select),
          expect("Order", value.group)};
}

// --- databases -------------------------------------------------------------------------------------------------------

/// A database as a person at its shell sees it.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::unique_ptr<pipegen::sql::Database> open(const pipegen::sql::Schema& schema) = 0;
  virtual std::vector<Cells> query(const std::string& sql) = 0;
  /// A column as text.
  virtual std::string as_text(const std::string& column, Form form) const = 0;
};

pipegen::Settings settings_for(const std::string& url) {
  return pipegen::Settings::from("[database]\nurl = '" + url + "'\n", "project.toml", {});
}

class Sqlite final : public Backend {
 public:
  std::unique_ptr<pipegen::sql::Database> open(const pipegen::sql::Schema& schema) override {
    return pipegen::sql::open_sqlite(settings_for("sqlite:" + file()), schema);
  }
  std::vector<Cells> query(const std::string& sql) override {
    sqlite3* connection = nullptr;
    sqlite3_open(file().c_str(), &connection);
    sqlite3_stmt* statement = nullptr;
    EXPECT_EQ(sqlite3_prepare_v2(connection, sql.c_str(), -1, &statement, nullptr), SQLITE_OK) << sql;
    std::vector<Cells> rows;
    while (sqlite3_step(statement) == SQLITE_ROW) {
      Cells& row = rows.emplace_back();
      for (int i = 0; i < sqlite3_column_count(statement); ++i) {
        if (sqlite3_column_type(statement, i) == SQLITE_FLOAT) {  // whose own text is not exact
          row.emplace_back(spelled(sqlite3_column_double(statement, i)));
          continue;
        }
        const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, i));
        row.push_back(text == nullptr ? std::nullopt : std::optional<std::string>(text));
      }
    }
    sqlite3_finalize(statement);
    sqlite3_close(connection);
    return rows;
  }
  std::string as_text(const std::string& column, Form form) const override {
    const std::string name = "\"" + column + "\"";
    if (form == Form::kBytes) return "CASE WHEN " + name + " IS NOT NULL THEN lower(hex(" + name + ")) END";
    return name;
  }

 private:
  std::string file() const { return (folder_.path() / "test.db").string(); }
  pipegen::testing::TempFolder folder_;
};

class Postgres final : public Backend {
 public:
  std::unique_ptr<pipegen::sql::Database> open(const pipegen::sql::Schema& schema) override {
    return pipegen::sql::open_postgresql(settings_for(server_.url()), schema);
  }
  std::vector<Cells> query(const std::string& sql) override {
    PGconn* connection = PQconnectdb(server_.url().c_str());
    PGresult* result = PQexec(connection, sql.c_str());
    EXPECT_EQ(PQresultStatus(result), PGRES_TUPLES_OK) << sql << PQerrorMessage(connection);
    std::vector<Cells> rows;
    for (int row = 0; row < PQntuples(result); ++row) {
      Cells& cells = rows.emplace_back();
      for (int i = 0; i < PQnfields(result); ++i) {
        cells.push_back(PQgetisnull(result, row, i) != 0 ? std::nullopt
                                                         : std::optional<std::string>(PQgetvalue(result, row, i)));
      }
    }
    PQclear(result);
    PQfinish(connection);
    return rows;
  }
  std::string as_text(const std::string& column, Form form) const override {
    const std::string name = "\"" + column + "\"";
    if (form == Form::kBytes) return "encode(" + name + ", 'hex')";
    if (form == Form::kFlag) return name + "::int";
    if (form == Form::kTimestamp) {
      return "to_char(" + name + " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    }
    return name;
  }

 private:
  pipegen::testing::PostgresServer server_;
};

class GeneratedRows : public testing::TestWithParam<const char*> {
 protected:
  GeneratedRows() {
    if (std::string_view(GetParam()) == "sqlite") {
      backend_ = std::make_unique<Sqlite>();
    } else {
      backend_ = std::make_unique<Postgres>();
    }
    database_ = backend_->open(schema_);
    database_->migrate();
    session_ = database_->session();
  }

  /// As the worker does it.
  template <typename Read>
  void write(const std::vector<std::string>& messages, Read read) {
    Batch batch(schema_);
    for (const std::string& message : messages) {
      batch.begin_message(++version_);
      add_rows(batch, pipegen::json::parse(message, read));
    }
    EXPECT_TRUE(session_->write(batch, {}).empty());
  }
  /// Customers have a worker of their own.
  void write_customer(const std::string& key) {
    Batch batch(schema_);
    batch.begin_message(++version_);
    customers_to_rows::add_rows(batch, {.customer_key = key});
    EXPECT_TRUE(session_->write(batch, {}).empty());
  }
  std::string one(const std::string& sql) {
    const std::vector<Cells> rows = backend_->query(sql);
    return rows.empty() ? "no row" : rows[0][0].value_or("NULL");
  }

  const pipegen::sql::Schema schema_ = schema();
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<pipegen::sql::Database> database_;
  std::unique_ptr<pipegen::sql::Session> session_;
  std::int64_t version_ = 0;
};

TEST_P(GeneratedRows, random_values_of_every_type_come_back_as_they_were_sent) {
  Values values;
  std::vector<Everything> sent;
  std::vector<std::string> messages;
  for (int i = 0; i < 500; ++i) {
    sent.push_back(everything(values, i));
    messages.push_back(pipegen::json::to_json(sent.back()));
  }
  write(messages, read_everything);
  for (const Everything& value : sent) {
    const std::vector<Expected> expected = expected_of(value);
    std::string columns;
    for (const Expected& each : expected) {
      columns += (columns.empty() ? "" : ", ") + backend_->as_text(each.column, each.form);
    }
    const std::vector<Cells> rows =
        backend_->query("SELECT " + columns + " FROM everything WHERE a_string = '" + value.a_string + "'");
    ASSERT_EQ(rows.size(), 1U);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const std::optional<std::string>& found = rows[0][i];
      ASSERT_EQ(found.has_value(), expected[i].text.has_value()) << expected[i].column;
      if (!found) continue;
      if (expected[i].form == Form::kReal) {
        EXPECT_EQ(std::stod(*found), std::stod(*expected[i].text)) << expected[i].column;
      } else if (expected[i].form == Form::kTimestamp) {
        EXPECT_EQ(pipegen::parse_timestamp(*found), pipegen::parse_timestamp(*expected[i].text)) << expected[i].column;
      } else {
        EXPECT_EQ(*found, *expected[i].text) << expected[i].column;
      }
    }
  }
}

constexpr const char* kOrder = R"({"orderKey": "O'1", "customerKey": "C1", "orderDate": "2025-01-15", "currency": "EUR",
  "sender": {"name": "Ada", "address": {"city": "Å", "lines": ["first", "second"]}, "scores": [1, 2]},
  "header": {"name": "Bob", "favourite": "dark-blue"},
  "lineItems": [
    {"lineNumber": 7, "tax": "1.50", "discounts": [{"code": "X", "amount": "0.10"}, {"code": "Y", "amount": 1}],
     "notes": [{"text": "one", "words": [{"text": "a"}, {"text": "b"}]}, {"text": "two", "words": [{"text": "c"}]}]},
    {"lineNumber": 8, "tax": "2", "discounts": []}],
  "extras": [{}, {"ignored": true}]})";

TEST_P(GeneratedRows, columns_are_made_of_paths_parents_constants_and_transforms) {
  write_customer("C1");
  write({kOrder}, read_order);
  const Cells order = backend_->query(
      "SELECT order_key, city, first_line, favourite, sender_name, sender_address, second_score, first_tax, "
      "first_code, "
      "channel, version, weight, rate, fresh_color, opened, " +
      backend_->as_text("is_new", Form::kFlag) + ", label, nickname, tags, mood, order_date FROM orders")[0];
  EXPECT_EQ(order, (Cells{"O'1",
                          "Å",
                          "first",
                          "dark-blue",
                          "Ada",
                          R"({"city":"Å","lines":["first","second"]})",
                          "2",
                          "1.50",
                          "X",
                          "web",
                          "3",
                          "1",
                          "1.50",
                          "red",
                          "2025-01-15",
                          "1",
                          "O'1 of C1",
                          "with extras",
                          R"(["EUR","it's"])",
                          "dark-blue",
                          "2025-01-15"}));
  EXPECT_EQ(backend_->query("SELECT line_number, tax, currency, channel, label, discounts FROM line_items ORDER BY 1"),
            (std::vector<Cells>{
                {"7", "1.50", "EUR", "web", "O'1/7", R"([{"amount":"0.10","code":"X"},{"amount":"1.00","code":"Y"}])"},
                {"8", "2.00", "EUR", "web", "O'1/8", "[]"}}));
  EXPECT_EQ(backend_->query("SELECT order_ref, line_number, amount, label FROM tax_entry ORDER BY 2"),
            (std::vector<Cells>{{"O'1", "7", "1.50", "O'1:1.50"}, {"O'1", "8", "2.00", "O'1:2.00"}}));
}

TEST_P(GeneratedRows, children_of_children_are_rows_too_and_all_of_them_are_replaced_as_a_set) {
  write_customer("C1");
  const auto counts = [&] {
    std::string out;
    for (const char* table : {"orders", "line_items", "tax_entry", "discount_entry", "note", "word", "extra"}) {
      out += one("SELECT count(*) FROM " + std::string(table)) + " ";
    }
    return out;
  };
  write({kOrder}, read_order);
  EXPECT_EQ(counts(), "1 2 2 2 2 3 2 ");
  write({kOrder, kOrder}, read_order);
  EXPECT_EQ(counts(), "1 2 2 2 2 3 2 ");
  Order order = pipegen::json::parse(kOrder, read_order);
  order.line_items.erase(order.line_items.begin());
  order.extras.reset();
  write({pipegen::json::to_json(order)}, read_order);
  EXPECT_EQ(counts(), "1 1 1 0 0 0 0 ");
  EXPECT_EQ(backend_->query("SELECT city, nickname, first_tax, first_code FROM orders"),
            (std::vector<Cells>{{"Å", std::nullopt, "2.00", std::nullopt}}));
}

TEST_P(GeneratedRows, names_that_mean_something_in_sql_or_in_the_generated_code_are_columns_like_others) {
  write({R"({"row": "r", "class": "c"})"}, read_batch);
  write({R"({"batch": "b"})"}, read_row);
  write({R"({"name": "n", "schema": "s"})"}, read_class);
  write({R"({"color": "default"})"}, read_to_text);
  write({R"({"addRows": "a", "rows": [{"text": "1"}, {"text": "2"}]})"}, read_rows);
  write({R"({"name": "f"})"}, read_fixed);
  EXPECT_EQ(backend_->query("SELECT \"row\", class FROM batch"), (std::vector<Cells>{{"r", "c"}}));
  EXPECT_EQ(one("SELECT batch FROM \"row\""), "b");
  EXPECT_EQ(one("SELECT \"schema\" FROM classes"), "s");
  EXPECT_EQ(one("SELECT color FROM to_text"), "default");
  EXPECT_EQ(one("SELECT count(*) FROM row_part WHERE add_rows = 'a'"), "2");
  EXPECT_EQ(one("SELECT source FROM fixed"), "fixed");
}

INSTANTIATE_TEST_SUITE_P(Databases, GeneratedRows, testing::Values("sqlite", "postgresql"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
