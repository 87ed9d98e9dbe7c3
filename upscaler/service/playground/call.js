// One request to the service, and what its answer means in words.

export class Unreachable extends Error {}

// Any answer resolves, whatever its status. Rejects with Unreachable, or, after `signal`, with an
// AbortError. XMLHttpRequest rather than fetch, which does not tell how much has been sent.
export function post(endpoint, { token, headers, body, signal, sending, sent, receiving }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", endpoint);
    request.responseType = "blob";
    request.setRequestHeader("Authorization", `Bearer ${headerText(token)}`);
    request.setRequestHeader("Content-Type", "application/json");
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => sending?.(event.loaded / event.total);
    request.upload.onload = () => sent?.();
    request.onprogress = (event) => {
      if (event.lengthComputable) receiving?.(event.loaded / event.total);
    };
    request.onload = () => resolve(new Answer(request));
    request.onerror = () => reject(new Unreachable());
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.throwIfAborted();
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

// A header has bytes, each written here as a character: those of UTF-8, as curl sends them.
function headerText(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

class Answer {
  constructor(request) {
    this.status = request.status;
    this.blob = request.response;
    this.header = (name) => request.getResponseHeader(name);
  }

  // The JSON in the body, or null if it is none: a proxy may have answered.
  async json() {
    try {
      return JSON.parse(await this.blob.text());
    } catch {
      return null;
    }
  }
}

// The JSON body of a call: the file in base64, or the address, beside the other fields.
export async function requestBody(fields, picture) {
  if (picture.kind === "url") return JSON.stringify({ ...fields, init_image_url: picture.url });
  return JSON.stringify({ ...fields, init_image: await base64(picture.file) });
}

// How many bytes the body has that holds a file of so many.
export function bodyBytes(fields, fileBytes) {
  return JSON.stringify({ ...fields, init_image: "" }).length + 4 * Math.ceil(fileBytes / 3);
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

const PLACES = {
  init_image: "picture",
  init_image_url: "picture",
  model: "model",
  scale: "size",
  output_image_width: "size",
  output_image_height: "size",
  output_image_encoding: "encoding",
};

// What to show for an answer that is not a success: `places` has sentences by the part of the page
// that they belong to, and `retry` is null, or after how many seconds to try again.
export async function problemOf(answer) {
  const { detail } = (await answer.json()) ?? {};
  const problem = {
    words: sentence(typeof detail === "string" ? detail : ""),
    places: {},
    retry: null,
    requestId: answer.header("X-User-Request-ID"),
  };
  if (answer.status === 422 && Array.isArray(detail)) return withPlaces(problem, detail);
  if (answer.status === 401) {
    const words = "The service does not know this token. Whoever runs the service has the right one.";
    return { ...problem, words: "", places: { token: [words] } };
  }
  if (answer.status === 413) {
    return { ...problem, words: "", places: { picture: [problem.words || "This file is too large."] } };
  }
  if (answer.status === 503) {
    const after = Number(answer.header("Retry-After"));
    return { ...problem, retry: after > 0 ? Math.ceil(after) : 0 };
  }
  const title = `The service answered with an error (${answer.status}).`;
  return { ...problem, words: `${title} ${problem.words}`.trim() };
}

function withPlaces(problem, detail) {
  const rest = [];
  for (const { loc, msg } of detail) {
    const field = loc?.at(-1);
    const place = PLACES[field];
    if (place) (problem.places[place] ??= []).push(sentence(msg));
    else rest.push(sentence(`${field}: ${msg}`));
  }
  return { ...problem, words: rest.join(" ") };
}

// The service's messages begin in lower case and have no full stop, for its log.
function sentence(text) {
  const plain = String(text).trim();
  if (!plain) return "";
  return plain[0].toUpperCase() + plain.slice(1) + (/[.!?]$/.test(plain) ? "" : ".");
}
