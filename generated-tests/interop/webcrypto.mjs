// Node.js 18, which Debian 12 has, keeps Web Crypto out of the global scope, where the NATS client looks for it.
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto;
