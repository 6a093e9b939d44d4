// The task stream: a row for each worker, a rectangle for each span of tasks.
//
// What is drawn once stays on a canvas that nobody sees, twice as wide as the view; a frame copies a
// piece of it. So a frame costs the same, however many tasks there were.

const MOST_SPANS = 40000;
const START = 0, LENGTH = 1, FUNCTION = 2, TASKS = 3, SHARE = 4, FIRST = 5;
const LIVE_SECONDS = 30, AXIS = 18;

class TaskStream {
  constructor(canvas, tooltip, text) {
    this.canvas = canvas;
    this.tooltip = tooltip;
    this.text = text;
    this.page = document.createElement("canvas");
    this.spare = document.createElement("canvas");
    this.names = [];
    this.reset();
    this.listen();
  }

  reset() {
    this.rows = new Map();
    this.order = [];
    this.total = 0;
    this.marks = [];
    this.running = [];
    this.end = 0;
    this.isOver = false;
    this.isLive = true;
    this.seconds = LIVE_SECONDS;
    this.right = 0;
    this.cursor = null;
    this.stale = true;
    this.hide();
  }

  // Add spans [worker, start, length, function, tasks, share, first position] as the program sends them.
  add(spans, failures) {
    let grown = false;
    for (const [worker, ...span] of spans) {
      if (!this.rows.has(worker)) grown = this.open(worker);
      this.rows.get(worker).push(span);
      this.total++;
      if (span[START] + span[LENGTH] > this.end) this.end = span[START] + span[LENGTH];
    }
    for (const failure of failures) this.marks.push([failure.worker, failure.at, failure.position]);
    if (this.marks.length > 500) this.marks.splice(0, this.marks.length - 400);
    if (this.total > MOST_SPANS) this.drop();
    if (grown) this.stale = true;
    else if (!this.stale) this.paint(spans.map(([worker, ...span]) => [worker, span]), failures.map((f) => [f.worker, f.at]));
  }

  open(worker) {
    this.rows.set(worker, []);
    this.order = Array.from(this.rows.keys()).sort((a, b) => a - b);
    return true;
  }

  // Take in what workers are at: [worker, process, batches, memory, phase, position, seconds, done].
  see(workers, at) {
    this.running = [];
    for (const [worker, , , , phase, , seconds] of workers) {
      if (!this.rows.has(worker)) this.stale = this.open(worker);
      if (phase === "IDLE" || !(seconds > 0)) continue;
      const row = this.rows.get(worker), last = row[row.length - 1];
      this.running.push([worker, at - seconds, last ? last[FUNCTION] : 0]);
    }
  }

  drop() {
    for (const row of this.rows.values()) {
      const excess = Math.floor(row.length / 4);
      row.splice(0, excess);
      this.total -= excess;
    }
  }

  rowHeight() {
    const rows = Math.max(this.order.length, 1);
    return rows <= 16 ? 22 : Math.max(4, Math.min(22, Math.floor(704 / rows)));
  }

  height() { return this.rowHeight() * Math.max(this.order.length, 1); }
  left() { return this.right - this.seconds; }
  rowOf(worker) { return this.order.indexOf(worker === null ? -1 : worker); }

  // Draw everything that is near what is seen onto the hidden canvas.
  rebuild() {
    this.width = this.canvas.clientWidth;
    this.scale = this.width / this.seconds;
    this.from = this.left() - (this.isLive ? 0 : this.seconds / 2);
    this.pen = prepare(this.page, this.width * 2, this.height());
    this.pen.clearRect(0, 0, this.width * 2, this.height());
    this.stale = false;
    const until = this.from + 2 * this.seconds, near = [];
    for (const [worker, row] of this.rows) {
      for (let index = this.find(row, this.from); index < row.length && row[index][START] < until; index++) {
        near.push([worker, row[index]]);
      }
    }
    this.paint(near, this.marks);
  }

  // Go on drawing to the right: what has left the view on the left makes room.
  shift() {
    const moved = this.left() - this.from, pixels = moved * this.scale;
    const context = prepare(this.spare, this.width * 2, this.height());
    context.clearRect(0, 0, this.width * 2, this.height());
    context.drawImage(this.page, -pixels, 0, this.width * 2, this.height());
    [this.page, this.spare] = [this.spare, this.page];
    this.pen = context;
    this.from = this.left();
  }

  paint(spans, marks) {
    const height = this.rowHeight(), limit = this.width * 2, byColor = PALETTE.map(() => []);
    const rowOf = new Map(this.order.map((worker, index) => [worker, index]));
    for (const entry of spans) byColor[entry[1][FUNCTION] % PALETTE.length].push(entry);
    byColor.forEach((entries, index) => {
      this.pen.fillStyle = PALETTE[index];
      for (const [worker, span] of entries) {
        const x = (span[START] - this.from) * this.scale;
        if (x > limit) continue;
        let width = span[LENGTH] * this.scale;
        if (x + width < 0) continue;
        if (width > 3) width -= 1;
        const tall = (height - 2) * Math.max(span[SHARE], 0.15);
        const y = rowOf.get(worker) * height + 1 + (height - 2 - tall);
        this.pen.fillRect(x, y, Math.max(width, 0.5), tall);
      }
    });
    this.pen.fillStyle = FAILURE;
    for (const [worker, at] of marks) {
      const x = (at - this.from) * this.scale;
      if (x < 0 || x > limit) continue;
      const row = rowOf.get(worker === null ? -1 : worker);
      if (row === undefined) this.pen.fillRect(x - 1, 0, 2, this.height());
      else this.pen.fillRect(x - 1.5, row * height, 3, height);
    }
  }

  // Draw one frame; `now` is the time of the call.
  frame(now) {
    if (!this.canvas.clientWidth) return;
    if (this.isLive) this.right = this.isOver ? this.end : now;
    if (this.isLive && this.isOver) this.seconds = Math.max(this.end, 0.01);
    const width = this.canvas.clientWidth, scale = width / this.seconds;
    if (width !== this.width || Math.abs(scale - this.scale) > 1e-9 * scale || this.shownHeight !== this.height()) this.stale = true;
    if (!this.stale && this.isLive && this.right > this.from + 2 * this.seconds) {
      if (this.left() - this.from <= this.seconds * 1.5) this.shift();
      else this.stale = true;
    }
    if (!this.stale && (this.left() < this.from || this.right > this.from + 2 * this.seconds + 1e-6)) this.stale = true;
    const shown = [this.left(), this.seconds, width, this.total, this.marks.length, this.quiet, this.cursor && this.cursor.index].join();
    if (this.isOver && !this.stale && shown === this.shown) return;
    this.shown = shown;
    if (this.stale) this.rebuild();
    const height = this.height(), view = this.view(width, height + AXIS);
    view.clearRect(0, 0, width, height + AXIS);
    view.drawImage(this.page, (this.from - this.left()) * this.scale, 0, this.width * 2, height);
    this.drawRunning(view, now);
    this.drawAxis(view, width, height);
    this.drawCursor(view);
  }

  view(width, height) {
    if (this.shownHeight !== this.height()) {
      this.canvas.style.height = height + 2 + "px";
      this.shownHeight = this.height();
    }
    return prepare(this.canvas, width, height);
  }

  // What runs now grows until it is told that it has ended.
  drawRunning(view, now) {
    if (this.isOver) return;
    const height = this.rowHeight();
    view.globalAlpha = 0.45;
    for (const [worker, began, fn] of this.running) {
      const row = this.rowOf(worker);
      if (row < 0 || now - began < 0.05) continue;
      const x = Math.max((began - this.left()) * this.scale, 0), until = (now - this.left()) * this.scale;
      view.fillStyle = PALETTE[fn % PALETTE.length];
      if (until > x) view.fillRect(x, row * height + 1, until - x, height - 2);
    }
    view.globalAlpha = 1;
  }

  drawAxis(view, width, height) {
    const rough = this.seconds / Math.max(width / 110, 1), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= rough);
    view.fillStyle = this.quiet || (this.quiet = color("--quiet"));
    view.font = "11px system-ui, sans-serif";
    for (let t = Math.max(0, Math.ceil(this.left() / step) * step); t <= this.right; t += step) {
      const x = (t - this.left()) * this.scale;
      view.fillRect(x, height, 1, 4);
      if (x < width - 40) view.fillText(+t.toPrecision(12) + " s", x + 3, height + 14);
    }
    const rows = this.rowHeight();
    if (rows < 14) return;
    const back = color("--back"), front = color("--text");
    this.order.forEach((worker, index) => {
      const text = worker < 0 ? "·" : String(worker);
      view.fillStyle = back;
      view.fillRect(2, index * rows + rows / 2 - 7, view.measureText(text).width + 6, 14);
      view.fillStyle = front;
      view.fillText(text, 5, index * rows + rows / 2 + 4);
    });
  }

  drawCursor(view) {
    if (!this.cursor) return;
    const height = this.rowHeight(), span = this.cursor.span, row = this.rowOf(this.cursor.worker);
    view.strokeStyle = color("--text");
    view.lineWidth = 2;
    const x = (span[START] - this.left()) * this.scale;
    view.strokeRect(x - 1, row * height, Math.max(span[LENGTH] * this.scale, 3), height - 1);
  }

  // Return the index of the first span of a row that ends after `t`.
  find(row, t) {
    let low = 0, high = row.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (row[middle][START] + row[middle][LENGTH] <= t) low = middle + 1; else high = middle;
    }
    return low;
  }

  at(x, y) {
    const worker = this.order[Math.floor(y / this.rowHeight())];
    if (worker === undefined) return null;
    const row = this.rows.get(worker), t = this.left() + x / this.scale, slack = 2 / this.scale;
    const index = this.find(row, t - slack), span = row[index];
    if (!span || span[START] > t + slack) return null;
    return {worker, index, span};
  }

  describe({worker, span}) {
    const who = worker >= 0 ? "Worker " + worker : this.isHere ? "The program's own thread" : "Some worker";
    const many = span[TASKS] > 1, last = span[FIRST] + span[TASKS] - 1;
    const what = many ? count(span[TASKS]) + " tasks, from " + span[FIRST] + (span[SHARE] < 0.99 ? ", busy " + Math.round(span[SHARE] * 100) + " %" : " to " + last)
      : "task " + span[FIRST];
    const name = this.names[span[FUNCTION]] || "unknown function";
    return who + ": " + what + "\n" + name + "\n" + duration(span[LENGTH]) + ", from " + span[START].toFixed(3) + " s on";
  }

  show(hit) {
    const x = Math.min(Math.max((hit.span[START] - this.left()) * this.scale, 0), this.width - 200);
    say(this.tooltip, this.describe(hit));
    this.tooltip.hidden = false;
    this.tooltip.style.left = Math.max(x, 0) + "px";
    this.tooltip.style.top = (this.rowOf(hit.worker) + 1) * this.rowHeight() + 4 + "px";
  }

  hide() { this.tooltip.hidden = true; }

  setLive(isLive) {
    this.isLive = isLive;
    if (isLive) { this.seconds = LIVE_SECONDS; this.cursor = null; this.stale = true; }
    if (this.onlive) this.onlive(isLive);
  }

  move(share) { this.setLive(false); this.right += share * this.seconds; }

  zoom(factor, x) {
    const anchor = x === undefined ? 0.5 : x / this.canvas.clientWidth, t = this.left() + anchor * this.seconds;
    if (x !== undefined || this.isOver) this.setLive(false);
    this.seconds = Math.min(Math.max(this.seconds * factor, 0.002), Math.max(this.end * 1.2, 60));
    if (!this.isLive) this.right = t + (1 - anchor) * this.seconds;
  }

  fit(now) {
    this.setLive(false);
    this.right = this.isOver ? this.end : now;
    this.seconds = Math.max(this.right, 0.01);
  }

  step(rows, spans) {
    if (!this.order.length) return;
    let {worker, index} = this.cursor || {worker: this.order[0], index: this.find(this.rows.get(this.order[0]), this.left())};
    const t = this.cursor ? this.cursor.span[START] : this.left();
    const at = Math.min(Math.max(this.rowOf(worker) + rows, 0), this.order.length - 1);
    worker = this.order[at];
    const row = this.rows.get(worker);
    index = rows ? this.find(row, t) : index + spans;
    index = Math.min(Math.max(index, 0), row.length - 1);
    if (index < 0) return;
    this.setLive(false);
    this.cursor = {worker, index, span: row[index]};
    const start = row[index][START];
    if (start < this.left() || start > this.right) this.right = start + this.seconds / 2;
    say(this.text, this.describe(this.cursor));
    this.show(this.cursor);
  }

  listen() {
    const canvas = this.canvas, pointers = new Map();
    let apart = 0;
    const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, place(event));
      canvas.setPointerCapture(event.pointerId);
      apart = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = place(event), before = pointers.get(event.pointerId);
      if (before) {
        pointers.set(event.pointerId, [x, y]);
        if (pointers.size === 2) {
          const [a, b] = Array.from(pointers.values()), distance = Math.abs(a[0] - b[0]) + 1;
          if (apart) this.zoom(apart / distance, (a[0] + b[0]) / 2);
          apart = distance;
        } else if (Math.abs(x - before[0]) > 0) {
          this.move((before[0] - x) / canvas.clientWidth);
        }
      }
      const hit = this.scale ? this.at(x, y) : null;
      if (hit) this.show(hit); else this.hide();
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => this.hide());
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey) this.zoom(Math.exp(event.deltaY * 0.005), place(event)[0]);
      else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.move(event.deltaX / canvas.clientWidth);
      else return;
      event.preventDefault();
    }, {passive: false});
    canvas.addEventListener("keydown", (event) => {
      const keys = {
        ArrowLeft: () => event.shiftKey ? this.step(0, -1) : this.move(-0.15),
        ArrowRight: () => event.shiftKey ? this.step(0, 1) : this.move(0.15),
        ArrowUp: () => event.shiftKey ? this.step(-1, 0) : null,
        ArrowDown: () => event.shiftKey ? this.step(1, 0) : null,
        "+": () => this.zoom(1 / 1.5), "=": () => this.zoom(1 / 1.5), "-": () => this.zoom(1.5),
        Home: () => { this.setLive(false); this.right = this.seconds; },
        End: () => this.setLive(true),
        Escape: () => { this.cursor = null; this.hide(); },
      };
      if (!keys[event.key] || (event.key.startsWith("Arrow") && !event.shiftKey && event.key.match(/Up|Down/))) return;
      keys[event.key]();
      event.preventDefault();
    });
  }
}
