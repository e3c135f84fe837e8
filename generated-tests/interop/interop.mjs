// Objects and keys between pipegen's runtime and the official JavaScript client, both ways, over a real nats-server.
//
//   node interop.mjs          checks; exits 1 at the first difference
//   node interop.mjs bench    MB/s of both for an object of 100 MiB, memory of ours for one of 1 GiB
//
// INTEROP_TOOL names the runtime's command-line tool (built as <build>/bin/interop_tool).
import "./webcrypto.mjs";
import { spawn, execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { appendFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";
import { connect } from "@nats-io/transport-node";
import { Objm } from "@nats-io/obj";
import { Kvm } from "@nats-io/kv";

const here = fileURLToPath(new URL(".", import.meta.url));
const tool = process.env.INTEROP_TOOL ?? join(here, "../../build/dev/bin/interop_tool");
if (!existsSync(tool)) {
  console.error(`there is no ${tool}: build the target interop_tool, or set INTEROP_TOOL`);
  process.exit(2);
}

const folder = mkdtempSync(join(tmpdir(), "pipegen-interop-"));
const CHUNK = 128 * 1024;

async function startServer() {
  const server = spawn("nats-server", ["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder, "-js", "-sd", join(folder, "data")], { stdio: "ignore" });
  for (let tries = 0; tries < 1000; ++tries) {
    const file = readdirSync(folder).find((name) => name.endsWith(".ports"));
    const match = file && /nats:\/\/127\.0\.0\.1:\d+/.exec(readFileSync(join(folder, file), "utf8"));
    if (match) return { server, url: match[0] };
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("nats-server did not start");
}

let url = "";
const run = (...words) => execFileSync(tool, [url, ...words], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim();
const stream = (bytes) => new ReadableStream({ start(controller) { controller.enqueue(bytes); controller.close(); } });
const digest = (bytes) => "SHA-256=" + createHash("sha256").update(bytes).digest("base64url") + "=";

let checks = 0;
function check(what, actual, expected) {
  assert.deepEqual(actual, expected, what);
  ++checks;
}

async function checkObjects(objects, bucket, maker) {
  const sizes = [0, 1, CHUNK, CHUNK + 1, 300_001, 5 * 1024 * 1024];
  const printable = String.fromCharCode(...Array.from({ length: 95 }, (_, i) => 32 + i)); // every character that a name may have
  const names = ["plain.pdf", "folder/page 1?.png", "*", ">", "a.b > c * d / e ? f", printable.trim()];
  const cases = [...sizes.map((size) => [`size-${size}`, size]), ...names.map((name) => [name, 1000])];
  const file = join(folder, "file");
  for (const [name, size] of cases) {
    const bytes = new Uint8Array(randomBytes(size));
    writeFileSync(file, bytes);
    check(`${name}: digest printed by pipegen`, run("put", bucket, name, file), digest(bytes));
    const info = await objects.info(name);
    check(`${name}: size seen by JS`, info.size, size);
    check(`${name}: digest seen by JS`, info.digest, digest(bytes));
    check(`${name}: metadata seen by JS`, info.metadata, { "made-by": "pipegen" });
    const got = await objects.getBlob(name);
    check(`${name}: pipegen to JS`, Buffer.compare(Buffer.from(got), Buffer.from(bytes)), 0);

    const other = new Uint8Array(randomBytes(size));
    await objects.put({ name: "js " + name, metadata: { made: "js" } }, stream(other));
    check(`${name}: digest of JS`, run("get", bucket, "js " + name, file), digest(other));
    check(`${name}: JS to pipegen`, Buffer.compare(readFileSync(file), Buffer.from(other)), 0);

    // Each replaces what the other wrote.
    await objects.putBlob({ name }, other);
    run("get", bucket, name, file);
    check(`${name}: JS replaces pipegen's`, Buffer.compare(readFileSync(file), Buffer.from(other)), 0);
    writeFileSync(file, bytes);
    run("put", bucket, "js " + name, file);
    check(`${name}: pipegen replaces JS's`, Buffer.compare(Buffer.from(await objects.getBlob("js " + name)), Buffer.from(bytes)), 0);
  }
  const expected = cases.flatMap(([name]) => [name, "js " + name]).sort();
  check("list by pipegen", run("list", bucket).split("\n"), expected);
  check("list by JS", (await objects.list()).map((info) => info.name).sort(), expected);

  check("deleted by pipegen", run("delete", bucket, "plain.pdf"), "deleted");
  check("deleted by pipegen, get by JS", await objects.get("plain.pdf"), null);
  await objects.delete("js plain.pdf");
  check("deleted by JS, again by pipegen", run("delete", bucket, "js plain.pdf"), "absent");
  assert.throws(() => run("get", bucket, "js plain.pdf", file), /there is no object/);
  console.log(`objects in a bucket made by ${maker}: ${cases.length} names and sizes, both ways`);
}

async function checkKeys(keys, bucket, maker) {
  const watch = await keys.watch({ key: "job-1.>" });
  const seen = [];
  const watching = (async () => {
    for await (const entry of watch) {
      seen.push([entry.key, entry.operation, entry.string()]);
      if (seen.length === 3) break;
    }
  })();

  const revision = Number(run("kvcreate", bucket, "job-1.page=20", "one"));
  check("create by pipegen, get by JS", (await keys.get("job-1.page=20")).string(), "one");
  check("revision seen by JS", (await keys.get("job-1.page=20")).revision, revision);
  check("create of an existing key by pipegen", run("kvcreate", bucket, "job-1.page=20", "two"), "conflict");
  await assert.rejects(keys.create("job-1.page=20", "two"));
  const next = await keys.update("job-1.page=20", "two", revision);
  check("stale update by pipegen", run("kvupdate", bucket, "job-1.page=20", "three", String(revision)), "conflict");
  check("update by JS, get by pipegen", run("kvget", bucket, "job-1.page=20"), `${next} two`);
  run("kvdel", bucket, "job-1.page=20");
  await watching;
  check("watched by JS", seen, [["job-1.page=20", "PUT", "one"], ["job-1.page=20", "PUT", "two"], ["job-1.page=20", "DEL", ""]]);
  check("deleted by pipegen, seen by JS", (await keys.get("job-1.page=20")).operation, "DEL");
  check("created again by JS", typeof (await keys.create("job-1.page=20", "again")), "number");
  await keys.delete("job-1.page=20");
  check("deleted by JS, get by pipegen", run("kvget", bucket, "job-1.page=20"), "absent");
  check("deleted by JS, created by pipegen", /^\d+$/.test(run("kvcreate", bucket, "job-1.page=20", "back")), true);
  await keys.put("job-1.b", "js");
  run("kvput", bucket, "job-1.c", "c");
  await keys.purge("job-1.page=20");
  check("keys by pipegen", run("kvkeys", bucket, "job-1.*").split("\n"), ["job-1.b", "job-1.c"]);
  run("kvpurge", bucket, "job-1.c");
  const list = [];
  for await (const key of await keys.keys("job-1.>")) list.push(key);
  check("keys by JS", list, ["job-1.b"]);
  console.log(`keys in a bucket made by ${maker}: create, update, delete, purge, watch, list`);
}

async function bench(connection) {
  const size = 100 * 1024 * 1024;
  const bytes = new Uint8Array(randomBytes(size));
  const file = join(folder, "file");
  writeFileSync(file, bytes);
  const rounds = { "C++ put": [], "C++ get": [], "JS put": [], "JS get": [] };
  run("bucket", "BENCH");
  const objects = await new Objm(connection).open("BENCH");
  for (let round = 0; round < 3; ++round) {
    const [put, get, rss] = run("bench", "BENCH", file).split(" ").map(Number);
    rounds["C++ put"].push(put);
    rounds["C++ get"].push(get);
    console.log(`round ${round + 1}: C++ put ${put.toFixed(0)} MB/s, get ${get.toFixed(0)} MB/s, peak ${rss} MiB`);
    let start = performance.now();
    await objects.put({ name: "js" }, stream(bytes), { timeout: 60_000 });
    rounds["JS put"].push(size / 1e3 / (performance.now() - start));
    start = performance.now();
    const result = await objects.get("js");
    for await (const _ of result.data);
    rounds["JS get"].push(size / 1e3 / (performance.now() - start));
    console.log(`round ${round + 1}: JS put ${rounds["JS put"].at(-1).toFixed(0)} MB/s, get ${rounds["JS get"].at(-1).toFixed(0)} MB/s`);
  }
  const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
  for (const what of ["put", "get"]) {
    const cpp = median(rounds[`C++ ${what}`]);
    const js = median(rounds[`JS ${what}`]);
    console.log(`${what}: C++ ${cpp.toFixed(0)} MB/s, JS ${js.toFixed(0)} MB/s, ratio ${(cpp / js).toFixed(1)} (limit 3)`);
  }
  for (let part = 1; part * size < 1024 ** 3; ++part) appendFileSync(file, bytes);
  truncateSync(file, 1024 ** 3);
  const [put, get, rss] = run("bench", "BENCH", file).split(" ").map(Number);
  console.log(`1 GiB by C++: put ${put.toFixed(0)} MB/s, get ${get.toFixed(0)} MB/s, peak ${rss} MiB (limit 64 MiB)`);
}

let server;
let connection;
try {
  ({ server, url } = await startServer());
  connection = await connect({ servers: url });
  if (process.argv[2] === "bench") {
    await bench(connection);
  } else {
    run("bucket", "CPP");
    await checkObjects(await new Objm(connection).open("CPP"), "CPP", "pipegen");
    await checkKeys(await new Kvm(connection).open("CPP"), "CPP", "pipegen");
    const objects = await new Objm(connection).create("JS");
    const keys = await new Kvm(connection).create("JS");
    run("bucket", "JS"); // what JS made is what pipegen would have made
    await checkObjects(objects, "JS", "JS");
    await checkKeys(keys, "JS", "JS");
    console.log(`${checks} checks passed`);
  }
} catch (error) {
  console.error("FAILED:", error.message, error.stderr?.toString() ?? "");
  process.exitCode = 1;
} finally {
  await connection?.close();
  if (server) {
    const gone = new Promise((resolve) => server.once("exit", resolve));
    server.kill("SIGKILL");
    await gone;
  }
  rmSync(folder, { recursive: true, force: true });
}
