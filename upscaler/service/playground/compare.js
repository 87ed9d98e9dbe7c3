// The image on the page: one alone, or before and after with a movable divider, or the result as it
// grows over the original.

export class Compare {
  constructor(root) {
    this.root = root;
    this.scroller = root.querySelector(".scroller");
    this.layers = root.querySelector(".layers");
    this.before = root.querySelector("img.before");
    this.after = root.querySelector("img.after");
    this.grown = root.querySelector("canvas");
    this.slider = root.querySelector("input");
    this.actual = false;
    this.slider.addEventListener("input", () => this.draw());
    this.scroller.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(root);
  }

  showBefore(src, size) {
    this.before.src = src;
    this.after.removeAttribute("src");
    this.setRatio(size);
    this.setMode("before");
  }

  // `compared`: whether the original can be shown beside the result.
  async showAfter(src, size, compared) {
    this.after.src = src;
    await this.after.decode().catch(() => {}); // or the result would appear row by row
    this.setRatio(size);
    this.slider.value = 50;
    this.setMode(compared ? "both" : "after");
  }

  // Paints rows of the result, which has `size`. `compared`: whether the original can be
  // shown below. Returns whether they are the first.
  async grow({ top, rows, width, jpeg }, size, compared) {
    const bytes = Uint8Array.from(atob(jpeg), (character) => character.charCodeAt(0));
    const strip = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
    const fraction = Math.ceil(width / strip.width); // pixels of the result for one of the strip
    const isFirst = this.root.dataset.mode !== "growing";
    if (isFirst) {
      this.settled = this.root.dataset.mode ?? "before";
      this.grown.width = strip.width; // which also empties it
      this.grown.height = Math.ceil(size.height / fraction);
      this.setRatio(size);
      this.setMode("growing");
      this.before.hidden = !compared;
    }
    this.grown.getContext("2d").drawImage(strip, 0, top / fraction);
    this.root.style.setProperty("--grown", `${(100 * (top + rows)) / size.height}%`);
    return isFirst;
  }

  // Shows what was shown before anything grew.
  endGrowing() {
    if (this.root.dataset.mode === "growing") this.setMode(this.settled);
  }

  // `actual`: one pixel of the result per pixel of the screen; otherwise the result fits the view.
  setActual(actual) {
    this.actual = actual;
    this.setMode(this.root.dataset.mode);
    const { scrollWidth, clientWidth, scrollHeight, clientHeight } = this.scroller;
    this.scroller.scrollTo((scrollWidth - clientWidth) / 2, (scrollHeight - clientHeight) / 2);
  }

  setRatio({ width, height }) {
    this.root.style.setProperty("--ratio", width / height);
  }

  setMode(mode) {
    const actual = this.actual && ["after", "both"].includes(mode);
    const dots = window.devicePixelRatio || 1; // pixels of the screen per CSS pixel
    this.root.dataset.mode = mode;
    this.before.hidden = false;
    this.root.classList.toggle("actual", actual);
    this.slider.hidden = mode !== "both";
    this.layers.style.width = actual ? `${this.after.naturalWidth / dots}px` : "";
    this.layers.style.height = actual ? `${this.after.naturalHeight / dots}px` : "";
    if (actual) this.scroller.tabIndex = 0; // the arrow keys scroll only what can have the focus
    else this.scroller.removeAttribute("tabindex");
    this.draw();
  }

  // The divider stays in place while the image scrolls beneath it, so where the two images are
  // clipped depends on the scroll position.
  draw() {
    const share = Number(this.slider.value) / 100;
    const x = share * this.root.clientWidth;
    const clip = x + this.scroller.scrollLeft - this.layers.offsetLeft;
    const width = this.layers.offsetWidth;
    this.root.style.setProperty("--x", `${x}px`);
    this.layers.style.setProperty("--left", `${clip}px`);
    this.layers.style.setProperty("--right", `${width - clip}px`);
    this.slider.setAttribute("aria-valuetext", `${Math.round(100 * share)} % before`);
  }
}
