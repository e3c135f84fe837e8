// The ingestion API that a configuration file describes, without a schema:
//
//   [nats]
//   url = "nats://127.0.0.1:4222"
//
//   [ingest]
//   pipeline = "shop"                    # names what follows unless it is given
//   entities = ["Order", "Customer"]     # POST /ingest/order, /ingest/customer
//   subject = "shop.ingest.{entity}"     # {entity} is its name in lower case
//   stream = "SHOP_INGEST"               # made when it is not there
//   retention = "work-queue"             # or "limits", "interest"
//   max_age = "24h"
//   max_bytes = "1GiB"                   # full: 503 until there is room
//   duplicate_window = "2m"
//   replicas = 1
//   keys = "SHOP_INGEST_KEYS"            # key-value bucket for Idempotency-Key, whose entries live
//   keys_max_age = "24h"                 # this long
//   max_depth = 100                      # of the JSON
//
//   [ingest_api]
//   host = "127.0.0.1"
//   port = 8080
//   tokens_file = "tokens"               # and the other settings of pipegen/ingest.hpp
//
//   [database]                           # optional: where the workers of the stream note what became of messages
//   url = "sqlite:shop.db"
#pragma once

#include "pipegen/ingest.hpp"
#include "pipegen/settings.hpp"

namespace pipegen::ingest {

/// Throws ConfigError.
IngestApi generic_api(const Settings& settings);

}  // namespace pipegen::ingest
