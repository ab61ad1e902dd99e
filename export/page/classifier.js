/* A classifier that to_lite.py wrote, run by LiteRT in the browser. */

import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

/**
 * Loads the classifier of a folder.
 *
 * @returns {{facts: object, answer: (pixels: Float32Array) => Promise<object>}} What classifier.json
 *   says, and a function from pixels [h * w * c] to the class (null for none of these), the
 *   probability of each class, the nearness, and whether the picture is blank.
 */
export async function loadClassifier(folder) {
  const response = await fetch(new URL("classifier.json", folder));
  if (!response.ok) throw new Error(`classifier.json cannot be loaded (${response.status})`);
  const facts = await response.json();
  await loadLiteRt(new URL("litert/core/wasm/", folder).href);
  const model = await loadAndCompile(new URL("predict.tflite", folder).href, {
    accelerator: "wasm", // the processor, which gives the same answers everywhere
  });

  async function answer(pixels) {
    const input = new Tensor(pixels, [1, ...facts.image_shape]);
    const found = await model.run({ query_images: input });
    const probabilities = Array.from(await found.probabilities.data());
    const [nearness] = await found.nearness.data();
    for (const tensor of [input, ...Object.values(found)]) tensor.delete();
    const best = probabilities.indexOf(Math.max(...probabilities));
    const isForeign = facts.limit !== null && nearness < facts.limit;
    return {
      label: isForeign ? null : facts.class_names[best],
      probabilities,
      nearness,
      isBlank: levels(pixels) <= facts.blank_levels,
    };
  }
  return { facts, answer };
}

/** Returns the difference between the lightest and the darkest pixel. */
function levels(pixels) {
  const highest = pixels.reduce((a, b) => Math.max(a, b));
  return highest - pixels.reduce((a, b) => Math.min(a, b));
}
