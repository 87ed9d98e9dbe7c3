// The picture on the page: alone, or before and after with a divider that can be moved.

export class Compare {
  constructor(root) {
    this.root = root;
    this.pan = root.querySelector(".pan");
    this.sheet = root.querySelector(".sheet");
    this.before = root.querySelector("img.before");
    this.after = root.querySelector("img.after");
    this.split = root.querySelector("input");
    this.actual = false;
    this.split.addEventListener("input", () => this.draw());
    this.pan.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(root);
  }

  // The picture before anything was done to it, at first sight as large as its result.
  showBefore(source, size) {
    this.before.src = source;
    this.after.removeAttribute("src");
    this.setRatio(size);
    this.setMode("before");
  }

  // `compared`: whether the original can be shown beside the result.
  async showAfter(source, size, compared) {
    this.after.src = source;
    await this.after.decode().catch(() => {}); // shown at once then, and not row by row
    this.setRatio(size);
    this.split.value = 50;
    this.setMode(compared ? "both" : "after");
  }

  // Every pixel of the result on one pixel of the screen, or as much of it as fits.
  setActual(actual) {
    this.actual = actual;
    this.setMode(this.root.dataset.mode);
    const { pan } = this;
    pan.scrollTo((pan.scrollWidth - pan.clientWidth) / 2, (pan.scrollHeight - pan.clientHeight) / 2);
  }

  setRatio({ width, height }) {
    this.root.style.setProperty("--ratio", width / height);
  }

  setMode(mode) {
    const actual = this.actual && mode !== "before";
    const dots = window.devicePixelRatio || 1;
    this.root.dataset.mode = mode;
    this.root.classList.toggle("actual", actual);
    this.split.hidden = mode !== "both";
    this.sheet.style.width = actual ? `${this.after.naturalWidth / dots}px` : "";
    this.sheet.style.height = actual ? `${this.after.naturalHeight / dots}px` : "";
    if (actual) this.pan.tabIndex = 0; // so that the arrow keys move the picture
    else this.pan.removeAttribute("tabindex");
    this.draw();
  }

  // The divider stands still while the picture is moved below it, so the place where the picture
  // is cut depends on how far it has been moved.
  draw() {
    const share = Number(this.split.value) / 100;
    const x = share * this.root.clientWidth;
    const cut = x + this.pan.scrollLeft - this.sheet.offsetLeft;
    const width = this.sheet.offsetWidth;
    this.root.style.setProperty("--x", `${x}px`);
    this.sheet.style.setProperty("--left", `${cut}px`);
    this.sheet.style.setProperty("--right", `${width - cut}px`);
    this.split.setAttribute("aria-valuetext", `${Math.round(100 * share)} % before`);
  }
}
