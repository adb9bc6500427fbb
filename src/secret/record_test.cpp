#include "secret/record.h"

#include <gtest/gtest.h>

namespace sbx::secret {
namespace {

TEST(Record, IsReadAsItWasWritten) {
  Record record;
  record.kind = Kind::kCustom;
  record.scope = "4a1c";
  record.name = "API_TOKEN";
  record.targets = {"api.example.com", "**.example.com"};
  record.placeholder = "sbx-cs-x";
  record.in_body = true;
  record.created_at = 17;
  record.value = LockedString::copy_of("v\"alue").value();
  const auto bytes = encode(record).value();
  const auto read = decode(bytes.reveal());
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->key(), "custom/4a1c/API_TOKEN");
  EXPECT_EQ(read->targets, record.targets);
  EXPECT_EQ(read->placeholder, "sbx-cs-x");
  EXPECT_TRUE(read->in_body);
  EXPECT_EQ(read->created_at, 17);
  EXPECT_EQ(read->value.reveal(), "v\"alue");
}

TEST(Record, NeverStoresAValueThatLivesElsewhere) {
  Record record;
  record.name = "openai";
  record.source = Source::kReference;
  record.reference = "op://v/i/f";
  record.environment = {{"OP_ACCOUNT", "mine"}};
  record.refresh_s = 60;
  record.value = LockedString::copy_of("fetched-value").value();
  const auto bytes = encode(record).value();
  EXPECT_EQ(bytes.reveal().find("fetched-value"), std::string_view::npos);
  const auto read = decode(bytes.reveal()).value();
  EXPECT_EQ(read.reference, "op://v/i/f");
  EXPECT_EQ(read.environment, record.environment);
  EXPECT_EQ(read.refresh_s, 60);
  EXPECT_TRUE(read.value.empty());
}

TEST(Record, RefusesWhatIsDamaged) {
  const std::string good = R"({"kind":"service","scope":"global","name":"xai","source":"value"})";
  const auto with_length = [](const std::string& head) {
    return std::string({0, 0, static_cast<char>(head.size() >> 8U), static_cast<char>(head.size())}) + head;
  };
  EXPECT_TRUE(decode(with_length(good) + "value"));
  for (const std::string& bad :
       {std::string(), std::string("\0\0\0", 3), std::string("\0\0\0\x7fx", 5), std::string("\xff\xff\xff\xff", 4),
        with_length("[]"), with_length("{}"),
        with_length(R"({"kind":"other","scope":"s","name":"n","source":"value"})"),
        with_length(R"({"kind":"service","scope":"","name":"n","source":"value"})"),
        with_length(R"({"kind":"service","scope":1,"name":"n","source":"value"})"),
        with_length(R"({"kind":"custom","scope":"s","name":"n","source":"value","targets":[1]})"),
        with_length(R"({"kind":"service","scope":"s","name":"n","source":"ref","refresh_s":-1})")})
    EXPECT_FALSE(decode(bad)) << bad;
}

}  // namespace
}  // namespace sbx::secret
