// Whether the OpenAPI documents of the golden cases are what OpenAPI 3.1 says that they are.
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import assert from "node:assert/strict";
import { Validator } from "@seriousme/openapi-schema-validator";

const golden = fileURLToPath(new URL("../golden", import.meta.url));

/// The text of C++ string literals, each on a line of its own.
function documentIn(source) {
  const pieces = source.slice(source.indexOf("kPieces[]")).matchAll(/^ {4}"((?:[^"\\]|\\.)*)",$/gm);
  const escapes = { n: "\n", t: "\t" };
  const text = [...pieces].map(([, piece]) => piece.replace(/\\([0-7]{3}|.)/g, (_, escaped) => {
    if (escaped.length === 3) return String.fromCharCode(parseInt(escaped, 8));
    return escapes[escaped] ?? escaped;
  }));
  return JSON.parse(Buffer.from(text.join(""), "utf8").toString());
}

let checked = 0;
for (const name of readdirSync(golden)) {
  const file = join(golden, name, "expected/ingest-api/generated/openapi.cpp");
  let source;
  try {
    source = readFileSync(file, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") continue;  // a case without an API
    throw error;
  }
  const validator = new Validator();
  const result = await validator.validate(documentIn(source));
  assert.ok(result.valid, `${file}: ${JSON.stringify(result.errors, null, 2)}`);
  assert.equal(validator.version, "3.1", file);
  ++checked;
}
assert.ok(checked > 5, "the golden cases are not where they were");
console.log(`ok   ${checked} OpenAPI documents are valid`);
