// Receives events over HTTPS, with nothing but Node: checks signatures, takes each event once.
//
//     WEBHOOK_SECRET=whsec_... node receive.mjs 8443 cert.pem key.pem
//
// Without a certificate it speaks HTTP, to stand behind a proxy that ends TLS.
import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

const MOST_BYTES = 1_000_000;
const MOST_SECONDS_OFF = 300;
// While a secret is replaced, put both here, separated by a blank.
const secrets = process.env.WEBHOOK_SECRET.split(" ").map((secret) =>
  Buffer.from(secret.replace(/^whsec_/, ""), "base64"),
);
// In a real receiver: a table, written in the transaction that acts on the event.
const seen = new Set();

// Over the bytes as they came: parsed and written anew they may be others.
function isGenuine(headers, body) {
  const id = headers["webhook-id"] ?? "";
  const at = headers["webhook-timestamp"] ?? "";
  if (!(Math.abs(Date.now() / 1000 - Number(at)) < MOST_SECONDS_OFF)) return false;
  const told = Buffer.concat([Buffer.from(`${id}.${at}.`), body]);
  const given = (headers["webhook-signature"] ?? "")
    .split(" ")
    .filter((one) => one.startsWith("v1,"))
    .map((one) => Buffer.from(one.slice(3), "base64"));
  return secrets.some((secret) => {
    const wanted = createHmac("sha256", secret).update(told).digest();
    return given.some((one) => one.length === wanted.length && timingSafeEqual(one, wanted));
  });
}

function take(event) {
  if (seen.has(event.id)) return;
  seen.add(event.id);
  console.log(event.type, event.subject, event.sequence);
}

function receive(request, response) {
  const parts = [];
  let length = 0;
  request.on("data", (part) => {
    length += part.length;
    if (length > MOST_BYTES) request.destroy();
    else parts.push(part);
  });
  request.on("end", () => {
    const body = Buffer.concat(parts);
    const genuine = request.method === "POST" && isGenuine(request.headers, body);
    if (genuine) take(JSON.parse(body));
    response.writeHead(genuine ? 204 : 401).end();
  });
}

const [port, cert, key] = process.argv.slice(2);
const server = cert
  ? https.createServer({ cert: readFileSync(cert), key: readFileSync(key) }, receive)
  : http.createServer(receive);
server.listen(Number(port), "127.0.0.1", () =>
  console.log(`listening on ${server.address().port}`),
);
