// The details of a finished upscale: sizes, time, cost and model.

import { formatBytes, formatSeconds, formatSize } from "./format.js";

const $ = (id) => document.getElementById(id);
const STAGES = {
  fetch: "Download the image",
  decode: "Decode the image",
  load: "Load the model",
  queue: "Wait in the queue",
  infer: "Upscale",
  encode: "Encode the output",
};
const SHORTEST_S = 0.0005; // less would be shown as 0 ms, and is left out

// `total`: the seconds that the request took, measured in the browser.
export function showDetails(request, response, { before, size, total, octoaiPrice }) {
  const { model, output_image_encoding: encoding } = request.fields;
  const cost = response.header("X-Upscaler-Cost-USD");
  const weights = response.header("X-Upscaler-Weights-SHA256");
  $("summary").textContent =
    `${formatSize(before)} became ${formatSize(size)} in ${formatSeconds(total)}.`;
  $("detail-list").replaceChildren();
  addDetail("Image", request.image.name);
  addDetail("Model", response.header("X-Upscaler-Model") ?? model);
  if (weights) addDetail("Weights", weights.slice(0, 12), `SHA-256 ${weights}`);
  addDetail("Output", `${encoding.toUpperCase()}, ${formatBytes(response.blob.size)}`);
  const faces = response.header("X-Upscaler-Faces");
  if (faces) addDetail("Faces", faces === "0" ? "none found" : `${faces} restored`);
  if (cost) addDetail("Cost", `$${cost} (OctoAI charged $${octoaiPrice})`);
  addDetail("Request ID", response.header("X-User-Request-ID") ?? "none");
  showStages(readStages(response.header("Server-Timing")), total);
  $("details").hidden = false;
}

// The {width, height} in a header such as 608x512, or null.
export function readSize(text) {
  const match = /^(\d+)x(\d+)$/.exec(text ?? "");
  return match ? { width: Number(match[1]), height: Number(match[2]) } : null;
}

function addDetail(name, text, title) {
  const term = document.createElement("dt");
  const value = document.createElement("dd");
  term.textContent = name;
  value.textContent = text;
  if (title) value.title = title;
  $("detail-list").append(term, value);
}

// The stages of a Server-Timing header, in order and in seconds: [["decode", 0.0123], ...].
function readStages(header) {
  return (header ?? "").split(",").flatMap((entry) => {
    const match = /^\s*([\w-]+)\s*;.*?dur=([\d.]+)/.exec(entry);
    return match ? [[match[1], Number(match[2]) / 1000]] : [];
  });
}

function showStages(stages, total) {
  const reported = stages.reduce((sum, [, duration]) => sum + duration, 0);
  const rows = stages.map(([name, duration]) => [STAGES[name] ?? name, duration]);
  rows.push(["Send and receive", total - reported]);
  const shown = rows.filter(([, duration]) => duration >= SHORTEST_S);
  $("stages").replaceChildren(...shown.map((row) => stageRow(row, total)));
}

function stageRow([name, duration], total) {
  const row = document.createElement("tr");
  const title = document.createElement("th");
  title.scope = "row";
  title.textContent = name;
  const bar = document.createElement("span");
  bar.className = "stage-bar";
  bar.style.setProperty("--share", Math.min(1, duration / total));
  row.append(title, cell(bar), cell(formatSeconds(duration)));
  return row;
}

function cell(content) {
  const element = document.createElement("td");
  element.append(content);
  return element;
}
