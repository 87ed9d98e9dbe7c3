// The API as somebody writes it with Node's own HTTP server and Express' habits: paths in any case
// and with a slash behind them, whatever Content-Type is read, and errors in a form of its own.
//
//     node plain_node.mjs PORT TOKEN MISTAKE PYTHON
//
// Node has no codecs of images, so that a child does the pixels (pixels.py).

import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const [port, token, mistake, python] = process.argv.slice(2);
const MODELS = [
  "real-esrgan-x4-plus", "real-esrgan-x4-v3", "real-esrgan-x4-v3-wdn",
  "real-esrgan-animevideo-v3", "real-esrgan-x4-plus-anime", "real-esrgan-x2-plus",
];
const SIZES = ["scale", "output_image_height", "output_image_width"];
const isText = (value) => typeof value === "string" || value === null;
const isInteger = (value) => value === null || Number.isSafeInteger(value);
const FIELDS = {
  init_image: isText,
  init_image_url: isText,
  scale: (value) => value === null || typeof value === "number",
  output_image_height: isInteger,
  output_image_width: isInteger,
  model: (value) => MODELS.includes(value),
  output_image_encoding: (value) => ["png", "jpeg"].includes(value),
  face_enhance: (value) => typeof value === "boolean",
};

const child = spawn(python, [fileURLToPath(new URL("pixels.py", import.meta.url))], {
  stdio: ["pipe", "pipe", "inherit"],
});
const waiting = [];
createInterface({ input: child.stdout }).on("line", (line) => waiting.shift()(JSON.parse(line)));
const pixels = (asked) =>
  new Promise((resolve) => {
    waiting.push(resolve);
    child.stdin.write(JSON.stringify(asked) + "\n");
  });

class HttpError extends Error {
  constructor(status, body) {
    super();
    Object.assign(this, { status, body });
  }
}
const refused = (status, error) => new HttpError(status, { error, traceId: randomUUID() });

function validated(text) {
  let fields;
  try {
    fields = JSON.parse(text);
  } catch (error) {
    throw new HttpError(400, `<!DOCTYPE html>\n<pre>SyntaxError: ${error.name}</pre>\n`);
  }
  if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
    throw refused(400, "the body is not an object");
  }
  const wrong = Object.keys(fields).filter(
    (name) => !(Object.hasOwn(FIELDS, name) && FIELDS[name](fields[name])),
  );
  if (wrong.length) {
    const detail = wrong.map((name) => ({ loc: [name], msg: "invalid", type: "schema" }));
    throw new HttpError(mistake === "schema-400" ? 400 : 422, { detail, traceId: randomUUID() });
  }
  return fields;
}

async function checked(text) {
  const fields = validated(text);
  if (Boolean(fields.init_image) === Boolean(fields.init_image_url)) {
    throw refused(400, "send either init_image or init_image_url");
  }
  let given = SIZES.filter((name) => (fields[name] ?? null) !== null);
  if (mistake === "two-sizes" && given.includes("scale")) given = ["scale"];
  if (given.length !== 1) throw refused(409, `send one of ${SIZES}`);
  if (fields.face_enhance) throw refused(400, "there is no face model");
  if (!fields.init_image) throw refused(424, "the image could not be downloaded");
  const file = Buffer.from(fields.init_image.replace(/^data:[^,]*,/, ""), "base64");
  const { error, width, height } = await pixels({ file: file.toString("base64") });
  if (error) throw refused(415, "unsupported image");
  if (Math.max(width, height) > (mistake === "input-of-4096" ? 4096 : 2048)) {
    throw refused(413, "payload too large");
  }
  if (Math.min(width, height) < 256) throw refused(400, "the image is too small");
  const asked = fields[given[0]];
  const factor = { scale: asked, output_image_height: asked / height }[given[0]] ?? asked / width;
  const size = [Math.ceil(width * factor - 1e-9), Math.ceil(height * factor - 1e-9)];
  if (!(factor > 0 && Math.max(...size) <= 8192)) throw refused(413, "the output is too large");
  const encoding = fields.output_image_encoding ?? "jpeg";
  return { file: file.toString("base64"), width: size[0], height: size[1], encoding };
}

async function upscaled(asked) {
  if (mistake === "native-scale") {
    // 256 of 1024, for example, are told by its own size alone
    asked = { ...asked, width: Math.min(asked.width, 1200), height: Math.min(asked.height, 1200) };
  }
  const { file } = await pixels(asked);
  const image = mistake === "data-url" ? `data:image/${asked.encoding};base64,${file}` : file;
  return { id: randomUUID(), image_b64: image, removed_for_safety: false, seed: null };
}

const jobs = new Map();

function bodyOf(request, limit) {
  return new Promise((resolve, reject) => {
    const parts = [];
    let length = 0;
    request.on("data", (part) => {
      length += part.length;
      if (length <= limit) parts.push(part);
    });
    request.on("end", () => {
      if (length > limit) reject(refused(413, "request entity too large"));
      else resolve(Buffer.concat(parts).toString());
    });
  });
}

async function answered(request) {
  const headers = request.headers;
  const path = request.url.toLowerCase().replace(/\/{2,}/g, "/").replace(/(.)\/$/, "$1");
  if (path === "/healthcheck") {
    if (mistake === "health-503") throw refused(403, "no token");
    return [200, { status: "pass" }];
  }
  if (path === "/") return [200, "<h1>It works!</h1>"];
  const given = headers.authorization ?? "";
  if (!given) throw refused(401, "unauthorized");
  const right = mistake === "token-prefix" ? `Bearer ${token}`.startsWith(given) : given === `Bearer ${token}`;
  if (!right) throw refused(403, "forbidden");
  const prefix = headers["x-forwarded-prefix"] ?? "";
  const base = `${headers["x-forwarded-proto"] ?? "http"}://${headers.host}${prefix}`;
  if (path === "/upscaling" && request.method === "POST") {
    const asynchronous = headers["x-octoai-async"] === "1";
    const asked = await checked(await bodyOf(request, (asynchronous ? 10 : 50) * 2 ** 20));
    if (!asynchronous) return [200, await upscaled(asked)];
    const id = String(jobs.size + 1);
    jobs.set(id, upscaled(asked));
    const poll = mistake === "poll-relative" ? `/jobs/${id}` : `${base}/jobs/${id}`;
    return [202, { response_id: id, poll_url: poll, priority: 0 }];
  }
  const [, kind, id] = path.split("/");
  if (kind === "jobs" && jobs.has(id)) {
    const result = await Promise.race([jobs.get(id), new Promise((r) => setTimeout(r, 5))]);
    if (!result) return [202, { status: "running" }];
    return [200, { status: "completed", response_url: `${base}/files/${id}` }];
  }
  if (kind === "files" && jobs.has(id)) return [200, await jobs.get(id)];
  throw new HttpError(404, `<!DOCTYPE html>\n<pre>Cannot ${request.method} ${path}</pre>\n`);
}

createServer(async (request, response) => {
  let [status, body] = [500, ""];
  try {
    [status, body] = await answered(request);
  } catch (error) {
    [status, body] = error instanceof HttpError ? [error.status, error.body] : [500, String(error)];
  }
  const isText = typeof body === "string";
  const type = isText || mistake === "type-html" ? "text/html; charset=utf-8" : "application/json; charset=utf-8";
  const bytes = gzipSync(isText ? body : JSON.stringify(body), { level: 1 });
  response.writeHead(status, { "Content-Type": type, "Content-Encoding": "gzip", "X-Powered-By": "Node" });
  response.end(request.method === "HEAD" ? undefined : bytes);
}).listen(Number(port), "127.0.0.1", () => console.log("listening"));
