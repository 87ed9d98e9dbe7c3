// The last request as a bash command with curl, and the name of its output file.

// The token is not part of the command: the shell reads it from UPSCALER_TOKEN.
export function curlCommand({ endpoint, fields, image, encoding, output }) {
  const options = [
    `-H "Authorization: Bearer $UPSCALER_TOKEN"`,
    "-H 'Content-Type: application/json'",
    `-H ${quote(`Accept: ${encoding.media_type}`)}`,
  ];
  if (image.kind === "url") {
    options.push(`--data-raw ${quote(JSON.stringify({ ...fields, init_image_url: image.url }))}`);
    return joinLines([`curl -fsS ${quote(endpoint)}`, ...options, `-o ${quote(output)}`]);
  }
  // A file is too long for a command-line argument, so it goes through a pipe, between the start
  // and the end of the JSON.
  const start = JSON.stringify(fields).replace(/}$/, ',"init_image":"');
  const body =
    `(printf '%s' ${quote(start)}\n base64 < ${quote(image.name)} | tr -d '\\n';` +
    ` printf '"}') |\n  `;
  options.push("--data-binary @-");
  return body + joinLines([`curl -fsS ${quote(endpoint)}`, ...options, `-o ${quote(output)}`]);
}

// photo-x4.png, photo-1200x800.jpg
export function outputName({ image, kind, number, encoding }, size) {
  const stem = image.name
    .replace(/\.[^.]*$/, "")
    .replace(/[\p{C}\p{Zl}\p{Zp}/\\:*?"<>|]/gu, "_"); // not allowed on every file system
  const requested = kind === "scale" ? `x${number}` : `${size.width}x${size.height}`;
  return `${stem || "image"}-${requested}${encoding.suffix}`;
}

// Within single quotes bash takes every character literally except the single quote itself.
function quote(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function joinLines(parts) {
  return parts.join(" \\\n  ");
}
