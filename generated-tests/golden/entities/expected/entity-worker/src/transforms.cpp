// Yours: pipegen wrote this once and will not touch it again.
#include "entity_worker/transforms.hpp"

namespace entity_worker::transforms {

std::string order_label([[maybe_unused]] const Order& order) {
  throw pipegen::PermanentError("entity-worker/src/transforms.cpp: order_label does nothing yet: write what it gives");
}

Color order_mood([[maybe_unused]] const Order& order) {
  throw pipegen::PermanentError("entity-worker/src/transforms.cpp: order_mood does nothing yet: write what it gives");
}

std::optional<std::string> nickname([[maybe_unused]] const Order& order) {
  throw pipegen::PermanentError("entity-worker/src/transforms.cpp: nickname does nothing yet: write what it gives");
}

std::vector<std::string> order_tags([[maybe_unused]] const Order& order) {
  throw pipegen::PermanentError("entity-worker/src/transforms.cpp: order_tags does nothing yet: write what it gives");
}

std::string item_label([[maybe_unused]] const Order& order, [[maybe_unused]] const LineItem& line_item) {
  throw pipegen::PermanentError("entity-worker/src/transforms.cpp: item_label does nothing yet: write what it gives");
}

std::string tax_label([[maybe_unused]] const Order& order, [[maybe_unused]] const LineItem& item) {
  throw pipegen::PermanentError("entity-worker/src/transforms.cpp: tax_label does nothing yet: write what it gives");
}

}  // namespace entity_worker::transforms
