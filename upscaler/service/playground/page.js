// The page: turns the form into a request, and the response into a result. All text from the
// service or the user is set as text, never as markup.

import { authorization, readProblem, requestBody, send, Unreachable } from "./api.js";
import { Compare } from "./compare.js";
import { curlCommand, outputName } from "./curl.js";
import { watch } from "./events.js";
import { formatBytes, formatPercent, formatSize } from "./format.js";
import { fromFile, fromURL, limitError, measure } from "./image.js";
import { announce, EstimatedProgress, JobProgress, setProgress } from "./progress.js";
import { readSize, showDetails } from "./result.js";
import { largestNumber, outputSize, readNumber, SIZE_FIELDS } from "./sizes.js";

const $ = (id) => document.getElementById(id);
const ENDPOINT = new URL("upscaling", document.baseURI).href;
// The sections that show errors, from top to bottom, each with the control that gets the focus.
const CONTROLS = {
  image: "file",
  model: "model",
  size: "number",
  encoding: "encoding",
  faces: "faces",
  token: "token",
};
const SECTIONS = Object.keys(CONTROLS);

const config = await (await fetch("page/config.json")).json();
const compare = new Compare($("view"));
let image = null;
let followsModel = true; // until the user types a number, the scale is the model's
let running = null; // the AbortController of the request in progress
let resultURL = null;
let countdown = null;

// -- The image -----------------------------------------------------------------------------------

function chooseFile(file) {
  if (!running && file) choose(fromFile(file));
}

function chooseURL(text) {
  if (running) return;
  const chosen = fromURL(text);
  if (chosen) choose(chosen);
  else showError("image", "Enter a URL that starts with http:// or https://.", $("image-url"));
}

async function chooseSample() {
  const response = await fetch("page/sample.jpg").catch(() => null);
  if (!response?.ok) return showError("image", "The sample cannot be loaded. Is the service running?");
  const blob = await response.blob();
  chooseFile(new File([blob], "sample.jpg", { type: blob.type }));
}

async function choose(chosen) {
  setImage(chosen);
  await measure(chosen);
  // Another image may have been chosen since. And if the image's server is slow, the browser may
  // have the image only after the result: that must stay.
  if (image === chosen && !resultURL) showImage();
}

function setImage(chosen) {
  if (image?.kind === "file") URL.revokeObjectURL(image.src);
  image = chosen;
  if (chosen.kind === "file") $("image-url").value = "";
  $("file").value = ""; // or choosing the same file again would not be a change
  clearResult();
  clearProblem();
  showErrors({});
  showImage();
}

function imageError() {
  return image ? limitError(image, fields(), config) : "Choose an image first.";
}

function showImage() {
  const shown = Boolean(image?.size);
  $("dropzone").hidden = shown;
  $("view").hidden = !shown;
  if (shown) compare.showBefore(image.src, image.size);
  $("choose").textContent = image ? "Choose another image" : "Choose an image";
  $("image-note").textContent = image?.note ?? "";
  showCaption();
  showError("image", image ? imageError() : null);
  showSize();
}

function showCaption() {
  if (!image) return ($("caption").textContent = "");
  const parts = [image.name];
  if (image.size) parts.push(formatSize(image.size));
  if (image.file) parts.push(formatBytes(image.file.size));
  $("caption").textContent = parts.join(" · ");
}

// -- The settings --------------------------------------------------------------------------------

const kind = () => document.querySelector("input[name=kind]:checked").value;
const encoding = () => {
  const { value } = document.querySelector("input[name=encoding]:checked");
  return config.encodings.find(({ name }) => name === value);
};
const model = () => config.models.find(({ name }) => name === $("model").value);
const number = () => readNumber($("number").value, kind());
const token = () => $("token").value.trim();

// `upscaler serve` prints the page's URL with its token behind #, which browsers send to no server.
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  $("token").value = given;
  showError("token", null);
  history.replaceState(null, "", location.pathname + location.search); // neither kept nor shown
}

// The request's fields but for the image.
function fields() {
  return {
    model: model().name,
    [SIZE_FIELDS[kind()]]: number(),
    output_image_encoding: encoding().name,
    ...($("faces").checked ? { face_enhance: true } : {}),
  };
}

function sizeError() {
  if (number() === null) {
    return kind() === "scale" ? "Enter a number above 0, such as 2.5." : "Enter a whole number of pixels.";
  }
  const limit = config.max_output_px;
  if (!image?.size || imageError()) return null;
  const size = outputSize(image.size, kind(), number());
  if (Math.max(size.width, size.height) <= limit) return null;
  const largest = largestNumber(image.size, kind(), limit);
  return (
    `The output can have at most ${limit} pixels on each side. ` +
    `For this image the largest ${kind()} is ${largest}.`
  );
}

function showSize() {
  const known = image?.size && number() !== null && !imageError();
  const size = known ? outputSize(image.size, kind(), number()) : null;
  $("output-size").textContent = size
    ? `${formatSize(image.size)} becomes ${formatSize(size)} pixels.`
    : "The output size is shown here.";
  $("size-hint").hidden = !size && Boolean(sizeError());
  showError("size", sizeError());
}

function showModel() {
  $("model-hint").textContent = `${model().description} Native scale: ${model().scale}.`;
  if (kind() === "scale" && followsModel) $("number").value = model().scale;
  showError("model", null);
  showSize();
}

function showKind() {
  const labels = { scale: "Scale", width: "Width in pixels", height: "Height in pixels" };
  const scale = kind() === "scale";
  $("number-label").textContent = labels[kind()];
  $("unit").textContent = scale ? "×" : "px";
  $("number").inputMode = scale ? "decimal" : "numeric";
  // Start with the output size of the model's own scale, whichever way it is given.
  const size = image?.size ?? { width: config.max_input_px / 4, height: config.max_input_px / 4 };
  $("number").value = scale ? model().scale : outputSize(size, "scale", model().scale)[kind()];
  followsModel = true;
  showSize();
}

// A radio button for each output format. The first is the default, and gets the focus of an error.
function encodingButton({ name }, position) {
  const [label, input, text] = ["label", "input", "span"].map((tag) => document.createElement(tag));
  Object.assign(input, { type: "radio", name: "encoding", value: name, checked: position === 0 });
  if (position === 0) input.id = CONTROLS.encoding;
  text.textContent = name.toUpperCase();
  label.append(input, text);
  return label;
}

function showEncoding() {
  $("encoding-hint").textContent = encoding().description;
  showError("encoding", null);
}

// -- Errors --------------------------------------------------------------------------------------

function showError(section, message, control = controlOf(section)) {
  $(`${section}-error`).textContent = message ?? "";
  // Either of the two controls may have been marked.
  if (section === "image") for (const id of ["file", "image-url"]) $(id).removeAttribute("aria-invalid");
  if (message) control.setAttribute("aria-invalid", "true");
  else control.removeAttribute("aria-invalid");
}

// The control that the user has to change.
function controlOf(section) {
  return $(section === "image" && image?.kind === "url" ? "image-url" : CONTROLS[section]);
}

// Shows these errors and no others, and moves the focus to the first. Returns whether there is none.
function showErrors(messages) {
  for (const section of SECTIONS) showError(section, messages[section]?.join(" "));
  const first = SECTIONS.find((section) => messages[section]);
  if (first) controlOf(first).focus();
  return !first;
}

function validate() {
  const found = { image: imageError(), size: sizeError(), token: null };
  if (!token()) found.token = "Enter the service’s token. Ask whoever runs the service for it.";
  return showErrors(
    Object.fromEntries(
      Object.entries(found).flatMap(([section, message]) => (message ? [[section, [message]]] : [])),
    ),
  );
}

function showProblem({ message, sections, retry, requestId }) {
  showErrors(sections);
  $("problem").hidden = !message;
  $("problem-text").textContent = message;
  $("request-id").textContent = requestId ? `Request ID ${requestId}` : "";
  $("retry").hidden = retry === null;
  if (retry !== null) countDown(retry);
  $("problem").scrollIntoView({ block: "nearest" });
}

function clearProblem() {
  clearInterval(countdown);
  $("problem").hidden = true;
  $("request-id").textContent = "";
}

// Shows the seconds of Retry-After. The button works before they are over, too.
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

// -- The request ---------------------------------------------------------------------------------

async function start() {
  if (running) return;
  clearProblem();
  if (!validate()) return;
  running = new AbortController();
  setBusy(true);
  try {
    await upscale(running.signal);
  } catch (error) {
    setBusy(false);
    showFailure(error);
  } finally {
    running = null;
    endGrowing();
  }
}

// Sends a dry run first, for the estimated time and for all errors at once. Of the progress bar,
// checking gets 8 %, sending 8 %, upscaling 74 % and receiving 10 %.
async function upscale(signal) {
  const request = { image, fields: fields(), kind: kind(), number: number(), encoding: encoding() };
  const body = await requestBody(request.fields, request.image);
  const common = { token: token(), body, signal };
  announce("Checking the image");
  setProgress(0, "Checking …");
  const dryRun = await send("POST", ENDPOINT, {
    ...common,
    headers: { [config.dry_run_header]: "1", Accept: "application/json" },
    onSending: (share) => setProgress(0.08 * share, `Checking … ${formatPercent(share)}`),
  });
  if (dryRun.status !== 200) return showErrorResponse(dryRun);
  const began = performance.now();
  const { estimated_seconds: estimate, ...found } = (await dryRun.json()) ?? {};
  const progress = new EstimatedProgress(estimate);
  const receive = (share) => {
    progress.stop();
    setProgress(0.9 + 0.1 * share, `Receiving … ${formatPercent(share)}`);
  };
  try {
    let response = await send("POST", `${ENDPOINT}?preview=1`, {
      ...common,
      headers: { Accept: `text/event-stream, ${request.encoding.media_type}` },
      onSending: (share) => setProgress(0.08 + 0.08 * share, `Sending … ${formatPercent(share)}`),
      onSent: () => progress.start(),
      onReceiving: receive,
    });
    progress.stop();
    // A service without events has sent the result.
    if (response.job) response = await follow(response.job, found, signal, receive);
    if (response.status !== 200) return showErrorResponse(response);
    await showResult(request, response, (performance.now() - began) / 1000);
  } finally {
    progress.stop();
  }
}

// Shows a job until it is completed, and returns the response with its result. Afterwards, and if
// `signal` says so, the service forgets it.
async function follow(job, { output_width: width, output_height: height }, signal, onReceiving) {
  const url = (path) => new URL(`v1/${path}`, document.baseURI).href;
  const common = { token: token(), signal };
  const forget = () => {
    const headers = { Authorization: authorization(common.token) };
    const options = { method: "DELETE", headers, keepalive: true }; // even while the page is closed
    fetch(url(`requests/${job}`), options).catch(() => {}); // else it expires
  };
  signal.addEventListener("abort", forget);
  const progress = new JobProgress();
  try {
    for await (const event of watch(url(`requests/${job}/events?preview=1`), common)) {
      if (event.name === "rows") await grow(event, { width, height });
      else progress.show(event);
    }
  } finally {
    progress.stop();
  }
  const response = await send("GET", url(`responses/${job}`), { ...common, headers: {}, onReceiving });
  signal.removeEventListener("abort", forget);
  forget();
  return response;
}

async function grow(rows, size) {
  const first = await compare.grow(rows, size, Boolean(image.size));
  $("dropzone").hidden = true;
  $("view").hidden = false;
  if (first) document.querySelector(".viewer").scrollIntoView({ block: "nearest" });
}

function endGrowing() {
  compare.endGrowing();
  const shown = Boolean(image.size || resultURL);
  $("dropzone").hidden = shown;
  $("view").hidden = !shown;
}

function setBusy(busy) {
  // A control that is disabled or hidden loses the focus to the body.
  const focusLost = [document.body, $("cancel")].includes(document.activeElement);
  $("fields").disabled = busy;
  $("start").hidden = busy;
  $("progress").hidden = !busy;
  for (const id of ["file", "image-url", "sample"]) $(id).disabled = busy;
  document.body.classList.toggle("busy", busy);
  if (busy) $("cancel").focus();
  else if (focusLost) $("start").focus();
}

async function showErrorResponse(response) {
  const problem = await readProblem(response);
  setBusy(false);
  announce("");
  showProblem(problem);
}

function showFailure(error) {
  announce(error.name === "AbortError" ? "Cancelled" : "");
  if (error.name === "AbortError") return;
  const message =
    error instanceof Unreachable
      ? "The service cannot be reached or closed the connection. Is it running?"
      : `Upscaling failed: ${error.message}`;
  showProblem({ message, sections: {}, retry: 0, requestId: null });
}

// -- The result ----------------------------------------------------------------------------------

async function showResult(request, response, total) {
  const type = response.blob.type;
  if (!type.startsWith("image/")) {
    throw new Error(`the response is ${type || "of unknown type"}, not an image.`);
  }
  // A proxy may have removed the header.
  const size =
    readSize(response.header("X-Upscaler-Output-Size")) ?? (await createImageBitmap(response.blob));
  const before = readSize(response.header("X-Upscaler-Input-Size")) ?? request.image.size;
  const output = outputName(request, size);
  clearResult();
  resultURL = URL.createObjectURL(response.blob);
  $("dropzone").hidden = true;
  $("view").hidden = false;
  const compared = Boolean(request.image.size);
  if (!compared) {
    $("image-note").textContent = "The browser cannot show the original, so only the result is shown.";
  }
  await compare.showAfter(resultURL, size, compared);
  setBusy(false);
  showDownload(output);
  showDetails(request, response, { before, size, total, octoaiPrice: config.octoai_price_usd });
  $("curl").textContent = curlCommand({ endpoint: ENDPOINT, output, ...request });
  $("caption").textContent =
    `${formatSize(before)} → ${formatSize(size)} · ${formatBytes(response.blob.size)}`;
  announce(`Done: ${size.width} by ${size.height} pixels`);
  document.querySelector(".viewer").scrollIntoView({ block: "nearest" });
  (compared ? $("slider") : $("download")).focus({ preventScroll: true });
}

function clearResult() {
  if (resultURL) URL.revokeObjectURL(resultURL);
  resultURL = null;
  $("toolbar").hidden = true;
  $("details").hidden = true;
}

function showDownload(name) {
  $("download").href = resultURL;
  $("download").download = name;
  $("download").title = name;
  $("toolbar").hidden = false;
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
    $("copy").textContent = "Copied";
  } catch {
    // Browsers have no clipboard for pages without HTTPS: select the text, to be copied by hand.
    getSelection().selectAllChildren($("curl"));
    $("copy").textContent = "Selected";
  }
  setTimeout(() => ($("copy").textContent = "Copy"), 2000);
}

// -- Events --------------------------------------------------------------------------------------

function listen() {
  $("file").addEventListener("change", () => chooseFile($("file").files[0]));
  $("sample").addEventListener("click", chooseSample);
  window.addEventListener("hashchange", takeToken);
  window.addEventListener("pagehide", () => running?.abort()); // nobody would see the result
  $("url-form").addEventListener("submit", (event) => {
    event.preventDefault();
    chooseURL($("image-url").value);
  });
  $("model").addEventListener("change", showModel);
  $("number").addEventListener("input", () => {
    followsModel = false;
    showSize();
  });
  $("token").addEventListener("input", () => showError("token", null));
  $("faces").addEventListener("change", () => showError("faces", null));
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
  listenForDropAndPaste();
}

function listenForDropAndPaste() {
  let leaving = null;
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // allows dropping
    // Fires again and again during a drag. "dragleave" will not do: it also fires between elements.
    clearTimeout(leaving);
    document.body.classList.add("dropping");
    leaving = setTimeout(() => document.body.classList.remove("dropping"), 200);
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault(); // or the browser would open the file in place of the page
    document.body.classList.remove("dropping");
    const { files } = event.dataTransfer;
    if (files.length) chooseFile(files[0]);
    else chooseURL(event.dataTransfer.getData("URL"));
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) chooseFile(event.clipboardData.files[0]);
  });
}

function initialize() {
  const { min_input_px: minPx, max_input_px: maxPx } = config;
  $("accepted").textContent = `PNG, JPEG or WebP, ${minPx} to ${maxPx} pixels on each side`;
  $("model").replaceChildren(...config.models.map(({ name }) => new Option(name, name)));
  $("model").value = config.default_model;
  $("encodings").replaceChildren(...config.encodings.map(encodingButton));
  $("faces-field").hidden = !config.face_enhance;
  listen();
  takeToken();
  showModel();
  showKind();
  showEncoding();
  chooseFile($("file").files[0]); // chosen while the configuration was loading
}

initialize();
