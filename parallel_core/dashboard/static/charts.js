// Lines over time, large and small.

function drawLine(canvas, points, options) {
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return;
  const context = prepare(canvas, width, height);
  context.clearRect(0, 0, width, height);
  if (points.length < 1) return;
  const from = points[0][0], until = Math.max(points[points.length - 1][0], from + 1);
  let most = options.most || 0;
  for (const point of points) if (point[1] > most) most = point[1];
  if (most <= 0) most = 1;
  const top = options.small ? 1 : 16, bottom = height - (options.small ? 1 : 4);
  const x = (t) => 2 + (width - 4) * (t - from) / (until - from);
  const y = (value) => bottom - (bottom - top) * value / most;
  context.strokeStyle = context.fillStyle = options.color;
  context.lineWidth = options.small ? 1 : 1.5;
  context.beginPath();
  if (options.steps) {
    for (const [t, value] of points) context.rect(x(t) - 1, y(value) - 1, 2, 2);
    context.fill();
  } else {
    points.forEach(([t, value], index) => index ? context.lineTo(x(t), y(value)) : context.moveTo(x(t), y(value)));
    context.stroke();
  }
  if (options.small) return;
  context.fillStyle = color("--quiet");
  context.font = "11px system-ui, sans-serif";
  context.fillText("up to " + count(most), 6, 12);
  const span = duration(until - from);
  context.fillText(span, width - context.measureText(span).width - 6, 12);
}

// The charts of the selected call; points are pairs of time and value.
class Series {
  constructor(canvasId, textId, steps) {
    this.canvas = $(canvasId);
    this.text = $(textId);
    this.steps = steps;
    this.points = [];
    this.stale = true;
  }
  clear() { this.points = []; this.stale = true; }
  add(points) {
    if (!points.length) return;
    this.points.push(...points);
    if (this.points.length > 1200) this.points.splice(0, this.points.length - 1000);
    this.stale = true;
  }
  draw() {
    if (!this.stale) return;
    this.stale = false;
    drawLine(this.canvas, this.points, {color: color("--accent"), steps: this.steps});
    const last = this.points[this.points.length - 1];
    say(this.text, last ? "now " + count(last[1]) : "not known");
  }
}
