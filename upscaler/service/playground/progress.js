// The progress bar, and announcements to screen readers.

import { formatPercent, formatSeconds } from "./format.js";

const $ = (id) => document.getElementById(id);
const UNKNOWN_S = 10; // the pace of the bar when the service gives no estimate

export function setProgress(share, text) {
  $("progress-bar").value = share;
  $("progress-text").textContent = text;
}

// Only when a stage starts: a screen reader would read out every change of the progress text.
export function announce(text) {
  $("status").textContent = text;
}

// Progress by the events of a job: its place in line, and then its rows.
export class JobProgress {
  show(event) {
    clearInterval(this.timer);
    if (event.name === "queued") this.#showWaiting(event.ahead);
    else if (event.name === "progress") this.#showRows(event, performance.now());
    else if (event.name === "lost") $("progress-text").textContent = "Connection lost, trying again …";
  }

  stop() {
    clearInterval(this.timer);
  }

  #showWaiting(ahead) {
    const waiting = `Waiting … ${ahead} ${ahead === 1 ? "image" : "images"} ahead`;
    setProgress(0.16, ahead ? waiting : "Upscaling …");
    if (ahead) announce(waiting);
  }

  // The time that is left is counted down until the next event.
  #showRows({ rows_done: done, rows, seconds_left: left }, since) {
    const show = () => {
      const now = left - (performance.now() - since) / 1000;
      const about = now >= 1 ? `, about ${formatSeconds(Math.round(now))} left` : "";
      setProgress(0.16 + (0.74 * done) / rows, `Upscaling … ${formatPercent(done / rows)}${about}`);
    };
    if (!this.announced) announce(`Upscaling, about ${formatSeconds(Math.ceil(left))}`);
    this.announced = true;
    this.timer = setInterval(show, 250);
    show();
  }
}

// Progress while the service computes and sends nothing, as one without events does. The bar follows the estimate and slows
// down beyond it, so that it never reaches its end before the response does.
export class EstimatedProgress {
  constructor(estimate) {
    this.estimate = estimate > 0 ? estimate : null;
  }

  start() {
    const began = performance.now();
    const about = this.estimate ? `, about ${formatSeconds(Math.ceil(this.estimate))}` : "";
    announce(`Upscaling${about}`);
    this.timer = setInterval(() => this.show((performance.now() - began) / 1000), 250);
    this.show(0);
  }

  show(elapsed) {
    const ratio = elapsed / (this.estimate ?? UNKNOWN_S);
    // Linear up to 0.8, and then towards 1 without a kink.
    const share = ratio < 0.8 ? ratio : 1 - 0.2 * Math.exp((0.8 - ratio) / 0.2);
    const of = elapsed < this.estimate ? "of" : "instead of";
    const expected = this.estimate ? ` ${of} about ${formatSeconds(Math.ceil(this.estimate))}` : "";
    setProgress(0.16 + 0.74 * share, `Upscaling … ${formatSeconds(Math.floor(elapsed))}${expected}`);
  }

  stop() {
    clearInterval(this.timer);
  }
}
