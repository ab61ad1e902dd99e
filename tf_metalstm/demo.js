/* Drawing and the camera on the page of demo.py, which puts camera.js before this file.

Both show on one canvas. Gradio may create the canvas anew at any time, so the document has the
listeners, and each frame of the camera looks for the canvas. */

const canvasOfPage = () => document.querySelector("#canvas canvas");
const isCanvas = (event) => event.target.matches?.("#canvas canvas");
let last = null;
let video = null; // while the camera is on

/** Draws a line with a brush a twentieth of the canvas wide, as the strokes of Omniglot. */
function stroke(event) {
  const area = event.target.getBoundingClientRect(), scale = event.target.width / area.width;
  const at = [(event.clientX - area.left) * scale, (event.clientY - area.top) * scale];
  const pen = event.target.getContext("2d");
  pen.lineWidth = event.target.width / 20;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...(last ?? at));
  pen.lineTo(...at);
  pen.stroke();
  last = at;
}

document.addEventListener("pointerdown", (event) => {
  if (!isCanvas(event) || video) return;
  event.preventDefault();
  event.target.setPointerCapture(event.pointerId);
  last = null;
  stroke(event);
});
document.addEventListener("pointermove", (event) => {
  if (isCanvas(event) && event.buttons && !video) stroke(event);
});

function showFrame() {
  if (!video) return;
  if (canvasOfPage()) drawSquare(video, canvasOfPage());
  requestAnimationFrame(showFrame);
}

window.clearDrawing = () => {
  const canvas = canvasOfPage();
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
};

/** Returns the drawing, or what the camera sees, as a data URL. */
window.takeDrawing = () =>
  (video ? takePicture(video) : canvasOfPage()).toDataURL("image/png");

/** Switches the camera on or off; returns "on", "off", or why it cannot be used. */
window.switchCamera = async () => {
  if (video) {
    closeCamera(video);
    video = null;
    clearDrawing();
    return "off";
  }
  try {
    video = await openCamera();
  } catch (error) {
    return error.message;
  }
  showFrame();
  return "on";
};
