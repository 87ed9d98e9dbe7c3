// Sends what a program in Node asks of OctoAI's real hosts to a mock instead, or refuses it.
//
//     UPSCALING_MOCK_URL=http://127.0.0.1:8001 node --require "$(upscaler-mock --node-preload)" ...
//
// For Node's fetch, and for all that is made of http.request and https.request (node-fetch, axios,
// got, @octoai/sdk). Anything else fails where it looks up the name of such a host.

"use strict";

const dns = require("node:dns");
const http = require("node:http");
const https = require("node:https");
const { syncBuiltinESMExports } = require("node:module");
const { urlToHttpOptions } = require("node:url");

const HOSTS = [".octoai.run", ".octoai.cloud", ".octo.ai"];

const isGuarded = (host) =>
  HOSTS.some((guarded) => `.${host}`.toLowerCase().replace(/\.$/, "").endsWith(guarded));

const refusal = (host, why) =>
  new Error(`a request to ${host} was kept from leaving this machine: ${why}`);

const originals = { "http:": { ...http }, "https:": { ...https } };

function mockFor(host) {
  const given = process.env.UPSCALING_MOCK_URL;
  let url;
  try {
    url = new URL(given);
  } catch {
    // Told below, as is what has another scheme: "localhost:8001" is read as one of "localhost:".
  }
  if (!url || !(url.protocol in originals)) {
    const but = given ? `, as http://127.0.0.1:8001, and not ${JSON.stringify(given)}` : "";
    throw refusal(host, `UPSCALING_MOCK_URL must be the URL that upscaler-mock prints${but}`);
  }
  return url;
}

for (const module of [http, https]) {
  for (const name of ["request", "get"]) {
    const original = module[name];
    module[name] = function (...given) {
      const [first, ...rest] = given;
      let options = first;
      if (typeof first === "string" || first instanceof URL) {
        const more = rest.length && typeof rest[0] === "object" ? rest.shift() : {};
        options = { ...urlToHttpOptions(new URL(first)), ...more };
      }
      const host = options.hostname || String(options.host || "").replace(/:\d+$/, "");
      if (!isGuarded(host)) {
        return original.apply(this, given);
      }
      const { protocol, hostname, port } = mockFor(host);
      // Neither an agent nor a port or a certificate's name of the real host is of use there.
      const { agent, defaultPort, servername, href, ...kept } = options;
      const to = { ...kept, protocol, hostname, host: hostname, port };
      return originals[protocol][name](to, ...rest);
    };
  }
}

const realFetch = globalThis.fetch;
globalThis.fetch = async function fetch(input, init) {
  const url = new URL(input instanceof Request ? input.url : input, globalThis.location?.href);
  if (!isGuarded(url.hostname)) {
    return realFetch(input, init);
  }
  const to = new URL(url.pathname + url.search, mockFor(url.hostname));
  return realFetch(input instanceof Request ? new Request(to, input) : to, init);
};

const realLookup = dns.lookup;
dns.lookup = function lookup(host, ...rest) {
  if (!isGuarded(host)) {
    return realLookup(host, ...rest);
  }
  const done = rest.pop();
  process.nextTick(done, refusal(host, "give the client the URL that upscaler-mock prints"));
};
Object.defineProperties(dns.lookup, Object.getOwnPropertyDescriptors(realLookup));

syncBuiltinESMExports();
