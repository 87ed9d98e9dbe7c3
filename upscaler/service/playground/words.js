// Numbers for people. A number and its unit stay on one line.

export function times({ width, height }) {
  return `${width}\u00a0×\u00a0${height}`;
}

export function percent(share) {
  return `${Math.round(100 * share)}\u00a0%`;
}

// Three seconds and a half are 3.5 s, and half a minute and a bit is 30 s.
export function seconds(number) {
  const whole = Number.isInteger(number) || number >= 10;
  if (!whole && number < 0.1) return `${Math.round(1000 * number)}\u00a0ms`;
  return `${whole ? Math.round(number) : number.toFixed(1)}\u00a0s`;
}

export function fileSize(bytes) {
  if (bytes < 1000) return `${bytes}\u00a0bytes`;
  if (bytes < 999_500) return `${Math.round(bytes / 1e3)}\u00a0kB`;
  return `${(bytes / 1e6).toFixed(1)}\u00a0MB`;
}
