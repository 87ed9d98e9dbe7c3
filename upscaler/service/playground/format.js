// Numbers as readers see them. A no-break space keeps a number and its unit on one line.

export function formatSize({ width, height }) {
  return `${width}\u00a0×\u00a0${height}`;
}

export function formatPercent(share) {
  return `${Math.round(100 * share)}\u00a0%`;
}

// One decimal below 10 s, none from there on: 3.5 s, 30 s; milliseconds below 0.1 s.
export function formatSeconds(number) {
  const whole = Number.isInteger(number) || number >= 10;
  if (!whole && number < 0.1) return `${Math.round(1000 * number)}\u00a0ms`;
  return `${whole ? Math.round(number) : number.toFixed(1)}\u00a0s`;
}

export function formatBytes(bytes) {
  if (bytes < 1000) return `${bytes}\u00a0bytes`;
  if (bytes < 999_500) return `${Math.round(bytes / 1e3)}\u00a0kB`;
  return `${(bytes / 1e6).toFixed(1)}\u00a0MB`;
}
