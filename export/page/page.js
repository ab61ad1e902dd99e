/* The page of a classifier: pictures from files or the camera, and the answer to each. */

import { closeCamera, openCamera, takePicture } from "./camera.js";
import { loadClassifier } from "./classifier.js";
import { readPixels } from "./pixels.js";

const MOST_SHOWN = 5; // classes in an answer
const byId = (name) => document.getElementById(name);
const says = (sentence) => (byId("says").textContent = sentence);
const percent = (share) => `${(100 * share).toFixed(1)} %`;

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = kind;
  return made;
}

/** Shows an answer, the newest first. */
function show(file, lines) {
  const row = element("div", "", "answer");
  const image = element("img");
  image.alt = "";
  image.src = URL.createObjectURL(file);
  image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
  const column = element("div");
  column.append(...lines);
  row.append(image, column);
  byId("answers").prepend(row);
}

/** Returns the lines of an answer: the class, the name of the file, the most probable classes. */
function described(name, { label, probabilities, isBlank }, { class_names: classNames, blank }) {
  const lines = [element("p", label ?? "None of these", "label"), element("p", name, "name")];
  if (isBlank) lines.push(element("p", blank.replace("{name}", () => name), "warning"));
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  for (const place of order.slice(0, MOST_SHOWN)) {
    const bar = element("meter");
    bar.value = probabilities[place];
    lines.push(element("p", `${classNames[place]}: ${percent(probabilities[place])}`), bar);
  }
  return lines;
}

/** Shows the answer to a picture, or why there is none. */
async function ask({ facts, answer }, file, name) {
  let failed = "is not a readable image";
  let lines;
  try {
    const pixels = await readPixels(file, facts.image_shape);
    failed = "cannot be classified";
    lines = described(name, await answer(pixels), facts);
  } catch (error) {
    // LiteRT may also throw a number or a text.
    lines = [element("p", `${name} ${failed} (${error?.message ?? error})`, "refused")];
  }
  show(file, lines);
}

let video = null; // while the camera is on

async function switchCamera() {
  says("");
  if (video) {
    closeCamera(video);
    video.remove();
    video = null;
  } else {
    try {
      video = await openCamera();
    } catch (error) {
      return says(error.message);
    }
    byId("view").append(video);
  }
  byId("ask").hidden = !video;
  byId("camera").textContent = video ? "Stop the camera" : "Use the camera";
}

async function start() {
  const classifier = await loadClassifier(new URL(".", location.href));
  byId("classes").textContent = classifier.facts.introduction;
  byId("files").onchange = async ({ target }) => {
    for (const file of [...target.files]) await ask(classifier, file, file.name);
    target.value = ""; // so that the same file can be chosen again
  };
  byId("camera").onclick = switchCamera;
  byId("ask").onclick = () =>
    takePicture(video).toBlob((blob) =>
      blob
        ? ask(classifier, blob, "The picture of the camera")
        : says("The camera shows no picture yet. Try again."),
    );
  byId("files").disabled = byId("camera").disabled = false;
}

start().catch((error) => {
  byId("classes").textContent = "";
  says(`The classifier cannot be loaded (${error.message}). Is the folder complete?`);
});
