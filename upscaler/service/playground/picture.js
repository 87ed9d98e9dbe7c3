// A picture that a person gave: a file, or an address for the service to download from.

import { bodyBytes } from "./call.js";
import { fileSize, times } from "./words.js";

// {kind, name, source, and file or url}; `measure` adds what is found out about it.
export function fromFile(file) {
  return { kind: "file", name: file.name, file, source: URL.createObjectURL(file) };
}

// Null for what is no address on the web.
export function fromAddress(text) {
  const url = webAddress(text);
  if (!url) return null;
  const name = decoded(url.pathname.split("/").at(-1)) || url.hostname;
  return { kind: "url", name, url: url.href, source: url.href };
}

// Add `size`, upright as the service will see it; or `error`, if the service can only refuse it; or
// `note`, if nobody but the service can tell.
export async function measure(picture) {
  if (picture.file && !(await isPicture(picture.file))) {
    picture.error = `“${picture.name}” is not a PNG, JPEG or WebP picture.`;
    return;
  }
  const image = new Image();
  image.src = picture.source;
  await new Promise((resolve) => (image.onload = image.onerror = resolve));
  if (image.naturalWidth) {
    picture.size = { width: image.naturalWidth, height: image.naturalHeight };
  } else {
    const place = picture.kind === "url" ? " from there" : "";
    picture.note = `The browser cannot show this picture${place}. The service may still read it.`;
  }
}

// Which limit of the service the picture breaks, in words, or null.
export function limitError(picture, fields, facts) {
  const { min_input_px: least, max_input_px: most, max_body_bytes: room } = facts;
  if (picture.error) return picture.error;
  if (picture.file && bodyBytes(fields, picture.file.size) > room) {
    const sizes = [Math.floor(room * 0.75), picture.file.size].map(fileSize);
    return `A file may have at most ${sizes[0]}, and this one has ${sizes[1]}.`;
  }
  if (!picture.size) return null;
  const sides = Object.values(picture.size);
  if (Math.min(...sides) >= least && Math.max(...sides) <= most) return null;
  return `Each side must have ${least} to ${most} pixels, and this picture is ${times(picture.size)}.`;
}

// What a file is, by its first bytes: its name may say anything.
async function isPicture(file) {
  const empty = new ArrayBuffer(0); // what a folder that was dropped has
  const start = new Uint8Array(await file.slice(0, 12).arrayBuffer().catch(() => empty));
  const text = String.fromCharCode(...start);
  return (
    text.startsWith("\x89PNG\r\n\x1a\n") ||
    text.startsWith("\xff\xd8\xff") ||
    (text.startsWith("RIFF") && text.endsWith("WEBP"))
  );
}

function webAddress(text) {
  try {
    const url = new URL(text.trim());
    return ["http:", "https:"].includes(url.protocol) ? url : null;
  } catch {
    return null;
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
