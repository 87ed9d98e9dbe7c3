// The output size of a request, by the contract's arithmetic (REQ-14, REQ-16): the page shows exactly
// the size that the service will produce.

export const SIZE_FIELDS = {
  scale: "scale",
  width: "output_image_width",
  height: "output_image_height",
};

// The number in `text`, or null. A comma counts as a decimal point: some phones' numeric keyboards
// have no other.
export function readNumber(text, kind) {
  const plain = text.trim().replace(",", ".");
  if (!/^(\d+\.?\d*|\.\d+)$/.test(plain)) return null;
  const number = Number(plain);
  if (!(number > 0) || !Number.isFinite(number)) return null;
  return kind === "scale" || Number.isInteger(number) ? number : null;
}

// The output's {width, height} in pixels for an input of `size`; BigInt, so that nothing is rounded
// before the end.
export function outputSize(size, kind, number) {
  if (kind === "scale") {
    const [numerator, denominator] = fraction(number);
    return {
      width: divideHalfUp(BigInt(size.width) * numerator, denominator),
      height: divideHalfUp(BigInt(size.height) * numerator, denominator),
    };
  }
  const [given, other] = kind === "width" ? ["width", "height"] : ["height", "width"];
  const derived = divideHalfUp(BigInt(size[other]) * BigInt(number), BigInt(size[given]));
  return { [given]: number, [other]: derived };
}

// The largest number that keeps both sides of the output within `limit`; a scale has three
// decimals. A side rounds to `limit` or less exactly if it is below limit + 1/2: doubled, below
// 2 * limit + 1.
export function largestNumber(size, kind, limit) {
  const bound = BigInt(2 * limit + 1);
  const width = BigInt(size.width);
  const height = BigInt(size.height);
  if (kind === "scale") {
    const longest = width > height ? width : height;
    return Number(divideUp(1000n * bound, 2n * longest) - 1n) / 1000;
  }
  const [given, other] = kind === "width" ? [width, height] : [height, width];
  return Math.min(limit, Number(divideUp(bound * given, 2n * other) - 1n));
}

// A number as [numerator, denominator], exactly as its shortest decimal says: 290 times 0.35 is
// 101.5 and rounds to 102, although the binary number nearest to 0.35 is below 0.35.
function fraction(number) {
  const [decimal, exponent = "0"] = String(number).split("e");
  const [whole, decimals = ""] = decimal.split(".");
  const digits = BigInt(whole + decimals);
  const shift = Number(exponent) - decimals.length;
  const power = 10n ** BigInt(Math.abs(shift));
  return shift < 0 ? [digits, power] : [digits * power, 1n];
}

// No side is below 1 pixel (REQ-16).
function divideHalfUp(numerator, denominator) {
  const rounded = (2n * numerator + denominator) / (2n * denominator);
  return rounded < 1n ? 1 : Number(rounded);
}

function divideUp(numerator, denominator) {
  return (numerator + denominator - 1n) / denominator;
}
