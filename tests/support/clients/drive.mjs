// One of OctoAI's clients for JavaScript, unchanged, called as lines of JSON say.
//
//     node tests/clients/drive.mjs @octoai/client|@octoai/sdk FOLDER
//
// FOLDER is where the packages are.

import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const [, , name, folder] = process.argv;
const require = createRequire(join(folder, "package.json"));

function callsOfClient() {
  const { Client } = require("@octoai/client");
  const made = (asked) => new Client(asked.token);
  return {
    infer: (asked) => made(asked).infer(asked.url, asked.inputs),
    infer_async: (asked) => made(asked).inferAsync(asked.url, asked.inputs),
    is_future_ready: (asked) => made(asked).isFutureReady(asked.future),
    get_future_result: (asked) => made(asked).getFutureResult(asked.future),
    health_check: (asked) => made(asked).healthCheck(asked.url),
  };
}

// The newer one has methods for OctoAI's other endpoints alone, and none that takes a URL. What they
// all consist of is its `fetcher`, which is called here as they call it.
function callsOfSdk() {
  const { OctoAIClient, OctoAIError } = require("@octoai/sdk");
  const { fetcher } = require("@octoai/sdk/core");

  async function fetched(asked, url, more) {
    const headers = { Authorization: `Bearer ${asked.token}`, ...more.headers };
    const response = await fetcher({
      contentType: "application/json",
      timeoutMs: 60000,
      ...more,
      url,
      headers,
    });
    if (response.ok) {
      return response.body;
    }
    const { statusCode, body, rawBody, errorMessage } = response.error;
    throw new OctoAIError({ message: errorMessage, statusCode, body: body ?? rawBody });
  }

  const post = (asked, headers = {}) =>
    fetched(asked, asked.url, { method: "POST", headers, body: asked.inputs });
  const get = (asked, url) => fetched(asked, url, { method: "GET" });
  const poll = (asked) => get(asked, asked.future.poll_url);
  return {
    infer: (asked) => post(asked),
    infer_async: (asked) => post(asked, { "X-OctoAI-Async": "1" }),
    is_future_ready: async (asked) => (await poll(asked)).status === "completed",
    get_future_result: async (asked) => {
      const { status, response_url } = await poll(asked);
      return status === "completed" ? get(asked, response_url) : null;
    },
    health_check: async (asked) => (await get(asked, asked.url)) && 200,
    // A method of its own, at the URL that it is given in place of https://image.octoai.run.
    generate_sdxl: (asked) => {
      const environment = { default: asked.url, imageGen: asked.url, textGen: asked.url };
      const client = new OctoAIClient({ apiKey: asked.token, environment });
      return client.imageGen.generateSdxl(asked.inputs);
    },
  };
}

const calls = name === "@octoai/sdk" ? callsOfSdk() : callsOfClient();

async function told(asked) {
  try {
    return { answer: (await calls[asked.call](asked)) ?? null };
  } catch (error) {
    const says = [error.message, JSON.stringify(error.body)].join(" ");
    return { error: error.constructor.name, says };
  }
}

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

say(require(`${name}/package.json`).version);
for await (const line of createInterface({ input: process.stdin })) {
  say(await told(JSON.parse(line)));
}
