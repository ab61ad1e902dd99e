/* From a file to the pixels that a classifier takes, as decoding.py does it:

     file -> decoded -> on white -> upright -> gray or color -> resized

The browser decodes, so it reads fewer kinds of files than Pillow: AVIF, BMP, GIF, JPEG, PNG and
WebP, and HEIC in some browsers. Color profiles are ignored. Files that other clients refuse are
refused in the same words. */

const MAX_PIXELS = 100e6;
const MAX_SIDE = 65535;
const MAX_SCANS = 100;
const MAX_BEFORE_FRAME = 2 ** 18;
const MAX_PARTS_BEFORE_FRAME = 10000;
const BAND = 256; // rows that are decoded to numbers at a time

const TOO_LARGE =
  "it has more than 100 million pixels, or more than 65535 in a row or column: make it smaller";
const NO_KIND = "it is damaged or no file of the kinds AVIF, BMP, GIF, JPEG, PNG or WEBP";
const HEIC = "it is a HEIC picture, as phones make them: save it as JPEG";
const HEIF_BRANDS = ["heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"];
const KINDS = [
  ["JPEG", 0, "\xff\xd8\xff"],
  ["PNG", 0, "\x89PNG"],
  ["GIF", 0, "GIF8"],
  ["BMP", 0, "BM"],
  ["WEBP", 8, "WEBP"],
  ["AVIF", 4, "ftypavif"],
  ["AVIF", 4, "ftypavis"],
  ...HEIF_BRANDS.map((brand) => ["HEIC", 4, `ftyp${brand}`]),
];

/**
 * Returns pixels 0 ... 255, Float32Array of h * w * c numbers.
 *
 * @param {Blob} file A file, whatever it is called.
 * @param {number[]} shape [h, w, c], c 1 (gray) or 3 (color).
 * @throws {Error} The file is refused; the message is the reason.
 */
export async function readPixels(file, shape) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (!bytes.length) throw new Error("the file is empty");
  const kind = KINDS.find(([, at, mark]) => text(bytes, at, mark.length) === mark)?.[0];
  if (!kind) throw new Error(NO_KIND);
  refuseOdd(kind, bytes);
  const turn = kind === "WEBP" ? takeTurn(bytes) : 1;
  const picture = await decode(new Blob([bytes]), kind);
  refuseLarge(picture.width, picture.height);
  return squeeze(turn === 1 ? picture : turned(picture, turn), shape);
}

const text = (bytes, at, length) => String.fromCharCode(...bytes.subarray(at, at + length));

async function decode(blob, kind) {
  const options = { colorSpaceConversion: "none", imageOrientation: "from-image" };
  try {
    return await createImageBitmap(blob, options);
  } catch {
    throw new Error(kind === "HEIC" ? HEIC : "it is damaged, or the browser cannot read it");
  }
}

/** Refuses what the browser would read, and other clients do not. */
function refuseOdd(kind, bytes) {
  if (kind === "GIF" && !frameIsNear(bytes)) throw new Error("it is a damaged GIF file");
  if (kind === "JPEG" && numberOfScans(bytes) > MAX_SCANS)
    throw new Error(`it is a JPEG file of more than ${MAX_SCANS} passes: save it as PNG`);
  if (kind === "PNG" && isDeepWithOneColor(bytes))
    throw new Error(
      "it is a PNG file of 16 bits with a transparent color: save it with an alpha channel",
    );
  if (kind === "PNG") refuseLarge(numberAt(bytes, 16, 4), numberAt(bytes, 20, 4));
}

function refuseLarge(width, height) {
  if (width * height > MAX_PIXELS || Math.max(width, height) > MAX_SIDE) throw new Error(TOO_LARGE);
}

/** Returns a whole number of some bytes, the highest first or last; 0 beyond the end. */
function numberAt(bytes, at, length, isBig = true) {
  const part = Array.from({ length }, (_, k) => bytes[at + (isBig ? k : length - 1 - k)] ?? 0);
  return part.reduce((sum, byte) => 256 * sum + byte, 0);
}

/** Whether the first frame of a GIF begins within its head, after few parts. */
function frameIsNear(bytes) {
  const head = bytes.subarray(0, MAX_BEFORE_FRAME);
  const flags = head[10] ?? 0;
  let at = 13 + (flags >= 128 ? 3 << ((flags % 8) + 1) : 0);
  let parts = 0;
  for (; at < head.length && head[at] !== 0x2c; at++, parts++) {
    if (head[at] !== 0x21) continue;
    for (at += 2; at < head.length && head[at]; at += head[at] + 1) parts++;
  }
  return at < head.length && parts < MAX_PARTS_BEFORE_FRAME;
}

function numberOfScans(bytes) {
  let found = 0;
  for (let at = bytes.indexOf(0xff); at >= 0; at = bytes.indexOf(0xff, at + 1))
    if (bytes[at + 1] === 0xda) found++;
  return found;
}

/** Whether a PNG has 16 bits, no alpha channel, and one transparent gray or color. */
function isDeepWithOneColor(bytes) {
  if (bytes[24] !== 16) return false;
  for (let at = 8; at < bytes.length; at += 12 + numberAt(bytes, at, 4)) {
    const name = text(bytes, at + 4, 4);
    if (name === "tRNS") return true;
    if (name === "IDAT") return false;
  }
  return false;
}

/** Returns the orientation of a WebP file, 1 ... 8, and hides it: only some browsers apply it. */
function takeTurn(bytes) {
  for (let at = 12, size; at < bytes.length; at += 8 + size + (size % 2)) {
    size = numberAt(bytes, at + 4, 4, false);
    if (text(bytes, at, 4) !== "EXIF") continue;
    bytes[at] = "X".charCodeAt(0);
    return orientation(bytes, at + (text(bytes, at + 8, 4) === "Exif" ? 14 : 8));
  }
  return 1;
}

/** Returns the orientation in an EXIF entry; 1 (upright) if there is none or it is damaged. */
function orientation(bytes, start) {
  const isBig = text(bytes, start, 2) === "MM";
  const number = (at, length) => numberAt(bytes, start + at, length, isBig);
  const table = number(4, 4);
  for (let entry = 0; entry < number(table, 2); entry++) {
    const at = table + 2 + 12 * entry;
    const value = number(at + 8, 2);
    if (number(at, 2) === 0x0112) return value >= 1 && value <= 8 ? value : 1;
    if (start + at > bytes.length) break;
  }
  return 1;
}

/** Returns a picture upright, as a canvas; the turn is 2 ... 8 as in EXIF. */
function turned(picture, turn) {
  const { width: w, height: h } = picture;
  const canvas = turn < 5 ? new OffscreenCanvas(w, h) : new OffscreenCanvas(h, w);
  const pen = canvas.getContext("2d");
  pen.setTransform(
    ...{
      2: [-1, 0, 0, 1, w, 0],
      3: [-1, 0, 0, -1, w, h],
      4: [1, 0, 0, -1, 0, h],
      5: [0, 1, 1, 0, 0, 0],
      6: [0, 1, -1, 0, h, 0],
      7: [0, -1, -1, 0, h, w],
      8: [0, -1, 1, 0, 0, w],
    }[turn],
  );
  pen.drawImage(picture, 0, 0);
  return canvas;
}

/** Returns the pixels of a decoded picture in the size of the classifier, with the LANCZOS filter. */
function squeeze(picture, [height, width, channels]) {
  const rows = new Uint8ClampedArray(picture.height * width * channels);
  const canvas = new OffscreenCanvas(picture.width, Math.min(BAND, picture.height));
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const across = weights(picture.width, width);
  for (let top = 0; top < picture.height; top += BAND) {
    const count = Math.min(BAND, picture.height - top);
    pen.fillStyle = "white";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(picture, 0, -top);
    const seen = pen.getImageData(0, 0, picture.width, count).data;
    const values = channels === 1 ? luma(seen) : withoutAlpha(seen);
    rows.set(resampled(values, count, picture.width, channels, across), top * width * channels);
  }
  const down = weights(picture.height, height);
  return Float32Array.from(resampled(rows, 1, picture.height, width * channels, down));
}

/** Returns the gray of ITU-R 601 of pixels with alpha, in whole numbers as Pillow has it. */
function luma(seen) {
  const found = new Uint8ClampedArray(seen.length / 4);
  for (let i = 0, at = 0; i < found.length; i++, at += 4)
    found[i] = (seen[at] * 19595 + seen[at + 1] * 38470 + seen[at + 2] * 7471 + 0x8000) >> 16;
  return found;
}

function withoutAlpha(seen) {
  const found = new Uint8ClampedArray((seen.length / 4) * 3);
  for (let i = 0, at = 0; i < found.length; at += 4) {
    found[i++] = seen[at];
    found[i++] = seen[at + 1];
    found[i++] = seen[at + 2];
  }
  return found;
}

/** Returns, for each new place, the first old place and the weights from there on. */
function weights(before, after) {
  const step = before / after;
  const stretch = Math.max(step, 1);
  return Array.from({ length: after }, (_, place) => {
    if (before === after) return { first: place, of: [1] };
    const center = (place + 0.5) * step;
    const first = Math.max(0, Math.trunc(center - 3 * stretch + 0.5));
    const end = Math.min(before, Math.trunc(center + 3 * stretch + 0.5));
    const of = Array.from({ length: end - first }, (_, k) =>
      lanczos((first + k + 0.5 - center) / stretch),
    );
    const sum = of.reduce((a, b) => a + b);
    return { first, of: of.map((one) => one / sum) };
  });
}

/** sinc(x) sinc(x / 3) for |x| < 3, else 0. */
function lanczos(x) {
  const sinc = (y) => (y === 0 ? 1 : Math.sin(Math.PI * y) / (Math.PI * y));
  return Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
}

/** Returns values [outer, size, inner] with another number of places in the middle. */
function resampled(values, outer, size, inner, weightsOfPlaces) {
  const found = new Uint8ClampedArray(outer * weightsOfPlaces.length * inner);
  let to = 0;
  for (let row = 0; row < outer; row++)
    for (const { first, of } of weightsOfPlaces)
      for (let i = 0, from = (row * size + first) * inner; i < inner; i++, from++) {
        let sum = 0;
        for (let k = 0, at = from; k < of.length; k++, at += inner) sum += of[k] * values[at];
        found[to++] = sum; // rounded, and kept within 0 ... 255
      }
  return found;
}
