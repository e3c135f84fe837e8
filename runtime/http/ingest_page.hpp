// The page of an ingestion API for a person with a browser: what it takes, and a form to try it.
#pragma once

#include "http/server.hpp"
#include "pipegen/ingest.hpp"

namespace pipegen::http {

/// Needs nothing from elsewhere, and lets the browser load and run nothing else. `needs_token`: the form asks for one.
Response ingest_page(const IngestApi& api, bool needs_token);

}  // namespace pipegen::http
