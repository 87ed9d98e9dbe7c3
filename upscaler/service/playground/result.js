// What is told of a call that gave a picture: sizes, time, cost, and which model it was.

import { fileSize, seconds, times } from "./words.js";

const $ = (id) => document.getElementById(id);
const STAGES = {
  fetch: "Download the picture",
  decode: "Read the picture",
  load: "Load the model",
  queue: "Wait in line",
  infer: "Upscale",
  encode: "Write the file",
};
const SHORTEST_S = 0.0005; // what would be told as 0 ms is left out

// `total` is how many seconds the call took, seen from here.
export function showDetails(asked, answer, { before, size, total, octoaiPrice }) {
  const { model, output_image_encoding: encoding } = asked.fields;
  const cost = answer.header("X-Upscaler-Cost-USD");
  const weights = answer.header("X-Upscaler-Weights-SHA256");
  $("summary").textContent = `${times(before)} became ${times(size)} in ${seconds(total)}.`;
  $("facts").replaceChildren();
  addFact("Picture", asked.picture.name);
  addFact("Model", answer.header("X-Upscaler-Model") ?? model);
  if (weights) addFact("Weights", weights.slice(0, 12), `SHA-256 ${weights}`);
  addFact("File", `${encoding.toUpperCase()}, ${fileSize(answer.blob.size)}`);
  if (cost) addFact("Cost", `$${cost} (OctoAI charged $${octoaiPrice})`);
  addFact("Request", answer.header("X-User-Request-ID") ?? "without an id");
  showStages(stagesOf(answer.header("Server-Timing")), total);
  $("details").hidden = false;
}

// Width and height in a header such as 608x512, or null.
export function readSize(text) {
  const match = /^(\d+)x(\d+)$/.exec(text ?? "");
  return match ? { width: Number(match[1]), height: Number(match[2]) } : null;
}

function addFact(name, text, title) {
  const term = document.createElement("dt");
  const value = document.createElement("dd");
  term.textContent = name;
  value.textContent = text;
  if (title) value.title = title;
  $("facts").append(term, value);
}

// The stages of a Server-Timing header, in order and in seconds: [["decode", 0.0123], ...].
function stagesOf(header) {
  return (header ?? "").split(",").flatMap((entry) => {
    const match = /^\s*([\w-]+)\s*;.*?dur=([\d.]+)/.exec(entry);
    return match ? [[match[1], Number(match[2]) / 1000]] : [];
  });
}

function showStages(stages, total) {
  const told = stages.reduce((sum, [, passed]) => sum + passed, 0);
  const rows = stages.map(([name, passed]) => [STAGES[name] ?? name, passed]);
  rows.push(["Send and receive", total - told]);
  const seen = rows.filter(([, passed]) => passed >= SHORTEST_S);
  $("stages").replaceChildren(...seen.map((row) => stageRow(row, total)));
}

function stageRow([name, passed], total) {
  const row = document.createElement("tr");
  const title = document.createElement("th");
  title.scope = "row";
  title.textContent = name;
  const bar = document.createElement("span");
  bar.className = "share";
  bar.style.setProperty("--share", Math.min(1, passed / total));
  row.append(title, cell(bar), cell(seconds(passed)));
  return row;
}

function cell(content) {
  const element = document.createElement("td");
  element.append(content);
  return element;
}
