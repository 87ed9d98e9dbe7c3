// The input image: a file, or a URL for the service to download from.

import { bodyBytes } from "./api.js";
import { formatBytes, formatSize } from "./format.js";

// An image is {kind, name, src, and file or url}; `measure` adds what it finds out.
export function fromFile(file) {
  return { kind: "file", name: file.name, file, src: URL.createObjectURL(file) };
}

// Returns null unless `text` is an http or https URL.
export function fromURL(text) {
  const url = parseWebURL(text);
  if (!url) return null;
  const name = decodePercent(url.pathname.split("/").at(-1)) || url.hostname;
  return { kind: "url", name, url: url.href, src: url.href };
}

// Adds one of these to `image`: `size`, after EXIF rotation, as the service will see it; `error`,
// if the service is certain to reject the file; or `note`, if only the service can tell.
export async function measure(image) {
  if (image.file && !(await hasKnownSignature(image.file))) {
    image.error = `“${image.name}” is not a PNG, JPEG or WebP image.`;
    return;
  }
  const element = new Image();
  element.src = image.src;
  await new Promise((resolve) => (element.onload = element.onerror = resolve));
  if (element.naturalWidth) {
    image.size = { width: element.naturalWidth, height: element.naturalHeight };
  } else {
    const from = image.kind === "url" ? " from that URL" : "";
    image.note = `The browser cannot show this image${from}. The service may still be able to read it.`;
  }
}

// A message about the first of the service's limits that the image exceeds, or null.
export function limitError(image, fields, config) {
  const { min_input_px: minPx, max_input_px: maxPx, max_body_bytes: maxBytes } = config;
  if (image.error) return image.error;
  if (image.file && bodyBytes(fields, image.file.size) > maxBytes) {
    // Base64 turns 3 bytes into 4.
    const [most, actual] = [Math.floor(maxBytes * 0.75), image.file.size].map(formatBytes);
    return `The file can have at most ${most}; this one has ${actual}.`;
  }
  if (!image.size) return null;
  const sides = Object.values(image.size);
  if (Math.min(...sides) >= minPx && Math.max(...sides) <= maxPx) return null;
  return `Each side must have ${minPx} to ${maxPx} pixels; this image is ${formatSize(image.size)}.`;
}

// Reads the first bytes, since neither the name nor the browser's media type, which follows from
// the name, says what the file contains.
async function hasKnownSignature(file) {
  const empty = new ArrayBuffer(0); // a dropped folder cannot be read
  const start = new Uint8Array(await file.slice(0, 12).arrayBuffer().catch(() => empty));
  const text = String.fromCharCode(...start);
  return (
    text.startsWith("\x89PNG\r\n\x1a\n") ||
    text.startsWith("\xff\xd8\xff") ||
    (text.startsWith("RIFF") && text.endsWith("WEBP"))
  );
}

function parseWebURL(text) {
  try {
    const url = new URL(text.trim());
    return ["http:", "https:"].includes(url.protocol) ? url : null;
  } catch {
    return null;
  }
}

function decodePercent(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
