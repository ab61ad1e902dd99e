/* The camera, for pages. If it cannot be used, the error's message is a sentence for the user. */

const REASONS = {
  NotAllowedError:
    "The page may not use the camera. Allow it in the browser, beside the address, and try again.",
  NotFoundError: "There is no camera. Connect one, and try again.",
  NotReadableError:
    "The camera cannot be read. Perhaps another program uses it: end that, and try again.",
};

/** Returns a video element that shows the picture of the camera; on a phone of the back camera. */
export async function openCamera() {
  if (!window.isSecureContext)
    throw new Error(
      `Browsers do not let a page of ${location.host} use the camera. Open the page with ` +
        "https://, or on the machine that serves it as http://localhost.",
    );
  if (!navigator.mediaDevices?.getUserMedia)
    throw new Error(
      "This browser cannot use a camera. Take a current Chrome, Edge, Firefox or Safari.",
    );
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  try {
    const wanted = { video: { facingMode: "environment" }, audio: false };
    video.srcObject = await navigator.mediaDevices.getUserMedia(wanted);
    await video.play();
  } catch (error) {
    closeCamera(video);
    throw new Error(REASONS[error.name] ?? `The camera cannot be used (${error.message}).`);
  }
  return video;
}

/** Switches the camera off. */
export function closeCamera(video) {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}

/** Draws the square in the middle of what the camera sees, over the whole canvas. */
export function drawSquare(video, canvas) {
  const { videoWidth: width, videoHeight: height } = video;
  const side = Math.min(width, height);
  const from = [(width - side) / 2, (height - side) / 2, side, side];
  canvas.getContext("2d").drawImage(video, ...from, 0, 0, canvas.width, canvas.height);
}

/** Returns that square as a canvas, in the camera's resolution. */
export function takePicture(video) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = Math.min(video.videoWidth, video.videoHeight);
  drawSquare(video, canvas);
  return canvas;
}
