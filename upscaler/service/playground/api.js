// One request to the service, and the error messages in its response.

export class Unreachable extends Error {}

// Resolves with any response, whatever its status; with `{job}`, an id, as soon as the response
// turns out to be the events of a job. Rejects with Unreachable if there is none, or with an
// AbortError after `signal`. Uses XMLHttpRequest because fetch does not report upload progress.
export function send(method, url, { token, headers, body, signal, onSending, onSent, onReceiving }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const isEvents = () => request.getResponseHeader("Content-Type")?.startsWith("text/event-stream");
    const takeJob = () => {
      const id = /"response_id": ?"([^"]+)"/.exec(request.responseText)?.[1]; // in every event
      if (!id) return;
      resolve({ job: id });
      request.abort(); // others are read from elsewhere, where the connection may be lost
    };
    request.open(method, url);
    request.setRequestHeader("Authorization", authorization(token));
    if (body) request.setRequestHeader("Content-Type", "application/json");
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onSending?.(event.loaded / event.total);
    request.upload.onload = () => onSent?.();
    request.onreadystatechange = () => {
      // Not before the headers are there: only text can be read while it comes.
      if (request.readyState === 2 && !isEvents()) request.responseType = "blob";
    };
    request.onprogress = (event) => {
      if (isEvents()) takeJob();
      else if (event.lengthComputable) onReceiving?.(event.loaded / event.total);
    };
    request.onload = () => (isEvents() ? takeJob() : resolve(new ServiceResponse(request)));
    request.onerror = () => reject(new Unreachable());
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.throwIfAborted();
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

// Headers take one character per byte. The bytes are UTF-8, as curl sends them.
export function authorization(token) {
  return `Bearer ${String.fromCharCode(...new TextEncoder().encode(token))}`;
}

class ServiceResponse {
  constructor(request) {
    this.status = request.status;
    this.blob = request.response;
    this.header = (name) => request.getResponseHeader(name);
  }

  // The parsed body, or null if it is not JSON: the response may come from a proxy.
  async json() {
    try {
      return JSON.parse(await this.blob.text());
    } catch {
      return null;
    }
  }
}

// The request's JSON: `fields` and the image, as its URL or in base64.
export async function requestBody(fields, image) {
  if (image.kind === "url") return JSON.stringify({ ...fields, init_image_url: image.url });
  return JSON.stringify({ ...fields, init_image: await base64(image.file) });
}

// The length of the request's JSON for a file of `fileBytes`.
export function bodyBytes(fields, fileBytes) {
  return JSON.stringify({ ...fields, init_image: "" }).length + 4 * Math.ceil(fileBytes / 3);
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    // A data URL: "data:image/png;base64,...".
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

// The section of the page where the errors of a field are shown.
const SECTIONS = {
  init_image: "image",
  init_image_url: "image",
  model: "model",
  scale: "size",
  output_image_width: "size",
  output_image_height: "size",
  output_image_encoding: "encoding",
  face_enhance: "faces",
};

// What to show for an error response: `message` for the whole page, `sections` with lists of
// messages by section, and `retry`: the seconds after which to try again, or null if it is no use.
export async function readProblem(response) {
  const { detail } = (await response.json()) ?? {};
  const problem = {
    message: sentence(typeof detail === "string" ? detail : ""),
    sections: {},
    retry: null,
    requestId: response.header("X-User-Request-ID"),
  };
  if (response.status === 422 && Array.isArray(detail)) return withSections(problem, detail);
  if (response.status === 401) {
    const message =
      "The service does not accept this token. Ask whoever runs the service for the right one.";
    return { ...problem, message: "", sections: { token: [message] } };
  }
  if (response.status === 413) {
    const message = problem.message || "This file is too large.";
    return { ...problem, message: "", sections: { image: [message] } };
  }
  if (response.status === 503) {
    const after = Number(response.header("Retry-After"));
    return { ...problem, retry: after > 0 ? Math.ceil(after) : 0 };
  }
  const title = `The service returned an error (${response.status}).`;
  return { ...problem, message: `${title} ${problem.message}`.trim() };
}

function withSections(problem, detail) {
  const rest = [];
  for (const { loc, msg } of detail) {
    const field = loc?.at(-1);
    const section = SECTIONS[field];
    if (section) (problem.sections[section] ??= []).push(sentence(msg));
    else rest.push(sentence(`${field}: ${msg}`));
  }
  return { ...problem, message: rest.join(" ") };
}

// The service's messages start in lower case and have no full stop, since they are also logged.
function sentence(text) {
  const plain = String(text).trim();
  if (!plain) return "";
  return plain[0].toUpperCase() + plain.slice(1) + (/[.!?]$/.test(plain) ? "" : ".");
}
