// The page: what a person gives becomes a call, and its answer a result. All text that comes from
// the service or the user is set as text, never as markup.

import { post, problemOf, requestBody, Unreachable } from "./call.js";
import { Compare } from "./compare.js";
import { curlLine, outputName } from "./curl.js";
import { fromAddress, fromFile, limitError, measure } from "./picture.js";
import { readSize, showDetails } from "./result.js";
import { largest, outputSize, readNumber, SIZE_FIELDS } from "./sizes.js";
import { fileSize, percent, seconds, times } from "./words.js";

const $ = (id) => document.getElementById(id);
const ENDPOINT = new URL("upscaling", document.baseURI).href;
const PLACES = ["picture", "model", "size", "encoding", "token"];
const FOCUS = { picture: "file", model: "model", size: "number", encoding: "encoding", token: "token" };

const facts = await (await fetch("page/facts.json")).json();
const compare = new Compare($("view"));
let picture = null;
let numberIsOurs = true; // until a person writes a number, the scale follows the model
let running = null; // the AbortController of the call that is under way
let resultSource = null;
let countdown = null;

// -- The picture ---------------------------------------------------------------------------------

function chooseFile(file) {
  if (!running && file) choose(fromFile(file));
}

function chooseAddress(text) {
  if (running) return;
  const chosen = fromAddress(text);
  if (chosen) choose(chosen);
  else showError("picture", "Give an address that begins with http:// or https://.", $("address"));
}

async function choose(chosen) {
  setPicture(chosen);
  await measure(chosen);
  // A slow server may answer the browser after the service is done with the picture.
  if (picture === chosen && !resultSource) showPicture();
}

function setPicture(chosen) {
  if (picture?.kind === "file") URL.revokeObjectURL(picture.source);
  picture = chosen;
  if (chosen.kind === "file") $("address").value = "";
  $("file").value = ""; // so that the same file can be chosen again
  clearResult();
  clearProblem();
  showErrors({});
  showPicture();
}

function pictureError() {
  return picture ? limitError(picture, fields(), facts) : "Choose a picture first.";
}

function showPicture() {
  const shown = Boolean(picture?.size);
  $("drop").hidden = shown;
  $("view").hidden = !shown;
  if (shown) compare.showBefore(picture.source, picture.size);
  $("choose").textContent = picture ? "Choose another" : "Choose a picture";
  $("picture-note").textContent = picture?.note ?? "";
  showCaption();
  showError("picture", picture ? pictureError() : null);
  showSize();
}

function showCaption() {
  if (!picture) return ($("caption").textContent = "");
  const parts = [picture.name];
  if (picture.size) parts.push(times(picture.size));
  if (picture.file) parts.push(fileSize(picture.file.size));
  $("caption").textContent = parts.join(" · ");
}

// -- The settings --------------------------------------------------------------------------------

const kind = () => document.querySelector("input[name=kind]:checked").value;
const encoding = () => {
  const { value } = document.querySelector("input[name=encoding]:checked");
  return facts.encodings.find(({ name }) => name === value);
};
const model = () => facts.models.find(({ name }) => name === $("model").value);
const number = () => readNumber($("number").value, kind());

// The request without its picture.
function fields() {
  return {
    model: model().name,
    [SIZE_FIELDS[kind()]]: number(),
    output_image_encoding: encoding().name,
  };
}

function sizeError() {
  if (number() === null) {
    return kind() === "scale" ? "Give a number above 0, such as 2.5." : "Give a whole number of pixels.";
  }
  const limit = facts.max_output_px;
  if (!picture?.size || pictureError()) return null;
  const size = outputSize(picture.size, kind(), number());
  if (Math.max(size.width, size.height) <= limit) return null;
  const most = largest(picture.size, kind(), limit);
  return (
    `The result may have at most ${limit} pixels on each side. ` +
    `For this picture the largest ${kind()} is ${most}.`
  );
}

function showSize() {
  const known = picture?.size && number() !== null && !pictureError();
  const size = known ? outputSize(picture.size, kind(), number()) : null;
  $("output-size").textContent = size
    ? `${times(picture.size)} becomes ${times(size)} pixels.`
    : "The size of the result is shown here.";
  $("size-hint").hidden = !size && Boolean(sizeError());
  showError("size", sizeError());
}

function showModel() {
  $("model-hint").textContent = `${model().made_for} Its own scale is ${model().scale}.`;
  if (kind() === "scale" && numberIsOurs) $("number").value = model().scale;
  showError("model", null);
  showSize();
}

function showKind() {
  const names = { scale: "Scale", width: "Width in pixels", height: "Height in pixels" };
  const scale = kind() === "scale";
  $("number-label").textContent = names[kind()];
  $("unit").textContent = scale ? "×" : "px";
  $("number").inputMode = scale ? "decimal" : "numeric";
  // Begin with the size that the model itself makes, whichever way it is given.
  const size = picture?.size ?? { width: facts.max_input_px / 4, height: facts.max_input_px / 4 };
  $("number").value = scale ? model().scale : outputSize(size, "scale", model().scale)[kind()];
  numberIsOurs = true;
  showSize();
}

// A radio button for each format of files. The first is the default, and is what an error is about.
function encodingButton({ name }, position) {
  const [label, input, text] = ["label", "input", "span"].map((tag) => document.createElement(tag));
  Object.assign(input, { type: "radio", name: "encoding", value: name, checked: position === 0 });
  if (position === 0) input.id = FOCUS.encoding;
  text.textContent = name.toUpperCase();
  label.append(input, text);
  return label;
}

function showEncoding() {
  $("encoding-hint").textContent = encoding().description;
  showError("encoding", null);
}

// -- Errors --------------------------------------------------------------------------------------

function showError(place, words, field = fieldOf(place)) {
  $(`${place}-error`).textContent = words ?? "";
  if (place === "picture") for (const id of ["file", "address"]) $(id).removeAttribute("aria-invalid");
  if (words) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

// What a person has to change.
function fieldOf(place) {
  return $(place === "picture" && picture?.kind === "url" ? "address" : FOCUS[place]);
}

// Show these and no others, and go to the first of them.
function showErrors(places) {
  for (const place of PLACES) showError(place, places[place]?.join(" "));
  const first = PLACES.find((place) => places[place]);
  if (first) fieldOf(first).focus();
  return !first;
}

function checked() {
  const found = { picture: pictureError(), size: sizeError(), token: null };
  if (!token()) found.token = "Give the service’s token. Whoever runs the service has it.";
  return showErrors(
    Object.fromEntries(
      Object.entries(found).flatMap(([place, words]) => (words ? [[place, [words]]] : [])),
    ),
  );
}

function showProblem({ words, places, retry, requestId }) {
  showErrors(places);
  $("problem").hidden = !words;
  $("problem-words").textContent = words;
  $("request-id").textContent = requestId ? `Request ${requestId}` : "";
  $("retry").hidden = retry === null;
  if (retry !== null) countDown(retry);
  $("problem").scrollIntoView({ block: "nearest" });
}

function clearProblem() {
  clearInterval(countdown);
  $("problem").hidden = true;
  $("request-id").textContent = "";
}

// What the service asks to wait is shown, and nobody is kept from trying sooner.
function countDown(seconds) {
  const show = () => {
    $("retry").textContent = seconds > 0 ? `Try again (in ${seconds} s)` : "Try again";
    if (seconds-- <= 0) clearInterval(countdown);
  };
  clearInterval(countdown);
  countdown = setInterval(show, 1000);
  show();
  $("retry").focus();
}

// -- The call ------------------------------------------------------------------------------------

const token = () => $("token").value.trim();

async function start() {
  if (running) return;
  clearProblem();
  if (!checked()) return;
  running = new AbortController();
  setBusy(true);
  try {
    await upscale(running.signal);
  } catch (error) {
    setBusy(false);
    fail(error);
  } finally {
    running = null;
  }
}

// Ask first what would come of it: that tells how long it will take, and of all errors at once.
async function upscale(signal) {
  const asked = { picture, fields: fields(), kind: kind(), number: number(), encoding: encoding() };
  const body = await requestBody(asked.fields, asked.picture);
  const call = { token: token(), body, signal };
  say("Checking the picture");
  advance(0, "Checking …");
  const plan = await post(ENDPOINT, {
    ...call,
    headers: { [facts.dry_run_header]: "1", Accept: "application/json" },
    sending: (share) => advance(0.08 * share, `Checking … ${percent(share)}`),
  });
  if (plan.status !== 200) return refuse(await problemOf(plan));
  const began = performance.now();
  const waiting = new Waiting((await plan.json())?.estimated_seconds);
  try {
    const answer = await post(ENDPOINT, {
      ...call,
      headers: { Accept: asked.encoding.media_type },
      sending: (share) => advance(0.08 + 0.08 * share, `Sending … ${percent(share)}`),
      sent: () => waiting.begin(),
      receiving: (share) => {
        waiting.end();
        advance(0.9 + 0.1 * share, `Receiving … ${percent(share)}`);
      },
    });
    if (answer.status !== 200) return refuse(await problemOf(answer));
    await showResult(asked, answer, (performance.now() - began) / 1000);
  } finally {
    waiting.end();
  }
}

// The time in which the service works and tells nothing: the bar goes by the estimate, and slower
// and slower beyond it, so that it never arrives before the picture does.
class Waiting {
  constructor(estimate) {
    this.estimate = estimate > 0 ? estimate : null;
  }

  begin() {
    const began = performance.now();
    say(this.estimate ? `Upscaling, for about ${seconds(Math.ceil(this.estimate))}` : "Upscaling");
    this.timer = setInterval(() => this.show((performance.now() - began) / 1000), 250);
    this.show(0);
  }

  show(passed) {
    const ratio = passed / (this.estimate ?? 10);
    const share = ratio < 0.8 ? ratio : 1 - 0.2 * Math.exp((0.8 - ratio) / 0.2);
    const beside = passed < this.estimate ? "of" : "instead of";
    const expected = this.estimate ? ` ${beside} about ${seconds(Math.ceil(this.estimate))}` : "";
    advance(0.16 + 0.74 * share, `Upscaling … ${seconds(Math.floor(passed))}${expected}`);
  }

  end() {
    clearInterval(this.timer);
  }
}

function setBusy(busy) {
  const left = [document.body, $("cancel")].includes(document.activeElement);
  $("fields").disabled = busy;
  $("start").hidden = busy;
  $("progress").hidden = !busy;
  for (const id of ["file", "address"]) $(id).disabled = busy;
  document.body.classList.toggle("busy", busy);
  if (busy) $("cancel").focus();
  else if (left) $("start").focus();
}

function refuse(problem) {
  setBusy(false);
  say("");
  showProblem(problem);
}

function fail(error) {
  say(error.name === "AbortError" ? "Cancelled" : "");
  if (error.name === "AbortError") return;
  const words =
    error instanceof Unreachable
      ? "The service cannot be reached, or it hung up. Is it running?"
      : `The page could not do this: ${error.message}`;
  showProblem({ words, places: {}, retry: 0, requestId: null });
}

function advance(share, words) {
  $("bar").value = share;
  $("words").textContent = words;
}

// For those who hear the page: only when something new begins.
function say(words) {
  $("status").textContent = words;
}

// -- The result ----------------------------------------------------------------------------------

async function showResult(asked, answer, total) {
  const type = answer.blob.type;
  if (!type.startsWith("image/")) throw new Error(`it got ${type || "something"} and no picture.`);
  const size = readSize(answer.header("X-Upscaler-Output-Size")) ?? (await sizeOf(answer.blob));
  const before = readSize(answer.header("X-Upscaler-Input-Size")) ?? asked.picture.size;
  const output = outputName(asked, size);
  clearResult();
  resultSource = URL.createObjectURL(answer.blob);
  $("drop").hidden = true;
  $("view").hidden = false;
  const compared = Boolean(asked.picture.size);
  if (!compared) {
    $("picture-note").textContent = "The browser cannot show the original, so this is the result alone.";
  }
  await compare.showAfter(resultSource, size, compared);
  setBusy(false);
  showDownload(output);
  showDetails(asked, answer, { before, size, total, octoaiPrice: facts.octoai_price_usd });
  $("curl").textContent = curlLine({ endpoint: ENDPOINT, output, ...asked });
  $("caption").textContent = `${times(before)} → ${times(size)} · ${fileSize(answer.blob.size)}`;
  say(`Done: ${size.width} by ${size.height} pixels`);
  document.querySelector(".stage").scrollIntoView({ block: "nearest" });
  (compared ? $("split") : $("download")).focus({ preventScroll: true });
}

function clearResult() {
  if (resultSource) URL.revokeObjectURL(resultSource);
  resultSource = null;
  $("tools").hidden = true;
  $("details").hidden = true;
}

function showDownload(name) {
  $("download").href = resultSource;
  $("download").download = name;
  $("download").title = name;
  $("tools").hidden = false;
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
    $("copy").textContent = "Copied";
  } catch {
    // Without HTTPS a page may not write there: then it is marked, to be copied by hand.
    getSelection().selectAllChildren($("curl"));
    $("copy").textContent = "Marked";
  }
  setTimeout(() => ($("copy").textContent = "Copy"), 2000);
}

// -- What a person does --------------------------------------------------------------------------

function listen() {
  $("file").addEventListener("change", () => chooseFile($("file").files[0]));
  $("address-form").addEventListener("submit", (event) => {
    event.preventDefault();
    chooseAddress($("address").value);
  });
  $("model").addEventListener("change", showModel);
  $("number").addEventListener("input", () => {
    numberIsOurs = false;
    showSize();
  });
  $("token").addEventListener("input", () => showError("token", null));
  for (const radio of document.querySelectorAll("input[name=kind]")) {
    radio.addEventListener("change", showKind);
  }
  for (const radio of document.querySelectorAll("input[name=encoding]")) {
    radio.addEventListener("change", showEncoding);
  }
  for (const radio of document.querySelectorAll("input[name=zoom]")) {
    radio.addEventListener("change", () => compare.setActual(radio.value === "actual"));
  }
  $("settings").addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  $("retry").addEventListener("click", start);
  $("cancel").addEventListener("click", () => running?.abort());
  $("copy").addEventListener("click", copy);
  listenForDrops();
}

function listenForDrops() {
  let leaving = null;
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    clearTimeout(leaving);
    document.body.classList.add("dropping");
    leaving = setTimeout(() => document.body.classList.remove("dropping"), 200);
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const { files } = event.dataTransfer;
    if (files.length) chooseFile(files[0]);
    else chooseAddress(event.dataTransfer.getData("URL"));
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) chooseFile(event.clipboardData.files[0]);
  });
}

function begin() {
  const { min_input_px: least, max_input_px: most } = facts;
  $("accepted").textContent = `PNG, JPEG or WebP, ${least} to ${most} pixels on each side`;
  $("model").replaceChildren(...facts.models.map(({ name }) => new Option(name, name)));
  $("model").value = facts.default_model;
  $("encodings").replaceChildren(...facts.encodings.map(encodingButton));
  listen();
  showModel();
  showKind();
  showEncoding();
  chooseFile($("file").files[0]); // chosen while the facts were on their way
}

begin();
