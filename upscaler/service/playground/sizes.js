// Which size a request asks for, and whether it is allowed: the contract's arithmetic (REQ-13 to
// REQ-16), so that the page tells the very size that the service will make.

export const SIZE_FIELDS = {
  scale: "scale",
  width: "output_image_width",
  height: "output_image_height",
};

// The number that a person wrote, or null. Some phones offer a comma and no point.
export function readNumber(text, kind) {
  const plain = text.trim().replace(",", ".");
  if (!/^(\d+\.?\d*|\.\d+)$/.test(plain)) return null;
  const number = Number(plain);
  if (!(number > 0) || !Number.isFinite(number)) return null;
  return kind === "scale" || Number.isInteger(number) ? number : null;
}

// The output's width and height for a picture of `size`, both as numbers.
export function outputSize(size, kind, number) {
  if (kind === "scale") {
    const [top, bottom] = fraction(number);
    return {
      width: halfUp(BigInt(size.width) * top, bottom),
      height: halfUp(BigInt(size.height) * top, bottom),
    };
  }
  const [asked, other] = kind === "width" ? ["width", "height"] : ["height", "width"];
  const followed = halfUp(BigInt(size[other]) * BigInt(number), BigInt(size[asked]));
  return { [asked]: number, [other]: followed };
}

// The largest number that keeps the output of this picture within the limit; a scale is told in
// thousandths. Every side below the limit and a half is rounded to the limit or less.
export function largest(size, kind, limit) {
  const reach = BigInt(2 * limit + 1);
  const width = BigInt(size.width);
  const height = BigInt(size.height);
  if (kind === "scale") {
    const longest = width > height ? width : height;
    return Number(ceiling(1000n * reach, 2n * longest) - 1n) / 1000;
  }
  const [asked, other] = kind === "width" ? [width, height] : [height, width];
  return Math.min(limit, Number(ceiling(reach * asked, 2n * other) - 1n));
}

// A number as a fraction of whole numbers, exactly as its shortest decimal says: 290 times 0.35 is
// 101.5 and becomes 102, though the binary number nearest to 0.35 is less than that.
function fraction(number) {
  const [decimal, exponent = "0"] = String(number).split("e");
  const [whole, decimals = ""] = decimal.split(".");
  const digits = BigInt(whole + decimals);
  const shift = Number(exponent) - decimals.length;
  const power = 10n ** BigInt(Math.abs(shift));
  return shift < 0 ? [digits, power] : [digits * power, 1n];
}

function halfUp(top, bottom) {
  const rounded = (2n * top + bottom) / (2n * bottom);
  return rounded < 1n ? 1 : Number(rounded);
}

function ceiling(top, bottom) {
  return (top + bottom - 1n) / bottom;
}
