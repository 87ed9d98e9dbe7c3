// The call that was just made, as a line for bash, and what its file is called.

// The token is not in it: the shell fills it in from its environment.
export function curlLine({ endpoint, fields, picture, encoding, output }) {
  const options = [
    `-H "Authorization: Bearer $UPSCALER_TOKEN"`,
    "-H 'Content-Type: application/json'",
    `-H ${quoted(`Accept: ${encoding.media_type}`)}`,
  ];
  if (picture.kind === "url") {
    options.push(`--data-raw ${quoted(JSON.stringify({ ...fields, init_image_url: picture.url }))}`);
    return joined([`curl -fsS ${quoted(endpoint)}`, ...options, `-o ${quoted(output)}`]);
  }
  // A picture is too long for an argument: it goes through a pipe, between the two ends of the JSON.
  const before = JSON.stringify(fields).replace(/}$/, ',"init_image":"');
  const body =
    `(printf '%s' ${quoted(before)}\n base64 < ${quoted(picture.name)} | tr -d '\\n';` +
    ` printf '"}') |\n  `;
  options.push("--data-binary @-");
  return body + joined([`curl -fsS ${quoted(endpoint)}`, ...options, `-o ${quoted(output)}`]);
}

// photo-x4.png, photo-1200x800.jpg
export function outputName({ picture, kind, number, encoding }, size) {
  const stem = picture.name
    .replace(/\.[^.]*$/, "")
    .replace(/[\p{C}\p{Zl}\p{Zp}/\\:*?"<>|]/gu, "_"); // what some file system does not take
  const asked = kind === "scale" ? `x${number}` : `${size.width}x${size.height}`;
  return `${stem || "picture"}-${asked}${encoding.suffix}`;
}

// Inside single quotes bash takes everything as it is, but for the single quote itself.
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function joined(parts) {
  return parts.join(" \\\n  ");
}
