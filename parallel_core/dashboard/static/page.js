// The page: what the server tells goes to its places; buttons ask the server for something.

const BASE = document.body.dataset.base;
const calls = new Map();
const stream = new TaskStream($("stream"), $("tooltip"), $("stream-text"));
const batches = new Series("batch-chart", "batch-now", true);
const queue = new Series("queue-chart", "queue-now", false);
let selected = null, wasChosen = false, source = null, offset = null, changed = true;
let details = emptyDetails();

function emptyDetails() {
  return {functions: [], workers: [], failures: [], news: [], usage: new Map(), error: null, leftOut: 0, at: 0};
}

// --- what the server tells ---

function connect() {
  if (source) source.close();
  source = new EventSource(BASE + "events" + (selected === null ? "" : "?call=" + selected));
  source.onopen = () => connection("live");
  source.onmessage = (event) => take(JSON.parse(event.data));
  source.onerror = () => {
    connection("lost");
    if (source.readyState === EventSource.CLOSED) explain();
  };
}

// An event source does not tell why it was refused.
async function explain() {
  source.close();
  let words = "The dashboard has ended.", again = 3000;
  try {
    const answer = await fetch(BASE + "events");
    if (answer.status !== 200) words = (await answer.text()).trim();
    if (answer.status === 401) again = 0;
    if (answer.body) answer.body.cancel().catch(() => null);
  } catch { /* nobody is there */ }
  say($("connection"), words);
  if (again) setTimeout(connect, again);
}

function connection(state) {
  $("connection").dataset.state = state;
  say($("connection"), state === "live" ? "live" : "Connection lost; trying again");
}

function take(message) {
  if (message.kind === "snapshot") {
    calls.clear();
    clearDetails();
  }
  const fresh = message.clock - performance.now() / 1000;
  offset = offset === null || Math.abs(fresh - offset) > 0.5 ? fresh : offset + (fresh - offset) * 0.1;
  for (const call of message.calls) {
    const before = calls.get(call.id);
    calls.set(call.id, call);
    if (before && before.state === "running" && call.state !== "running") announce(call);
  }
  for (const id of message.gone || []) calls.delete(id);
  if (message.details && message.details.id === selected) takeDetails(message.details);
  const call = calls.get(selected);
  stream.isOver = call ? call.state !== "running" : false;
  stream.isHere = call ? call.backend === "sequential" : false;
  if (call && call.seconds > stream.end && stream.isOver) stream.end = call.seconds;
  changed = true;
}

function announce(call) {
  const words = {finished: "finished", failed: "failed: " + call.error, cancelled: "was cancelled", lost: "was lost: its program has ended"};
  say($("announcements"), nameOf(call) + " " + words[call.state]);
}

// Look at the newest call, one that runs if there is any, as long as nobody has chosen one.
function choose(all, now) {
  const current = calls.get(selected);
  if (now < chooseAgain || (current && (wasChosen || current.state === "running"))) return;
  const running = all.filter((call) => call.state === "running");
  const next = running.length ? running[running.length - 1] : all[all.length - 1];
  if (!next || next.id === selected) return;
  chooseAgain = now + 1000;  // short calls may come one after the other
  select(next.id, false);
}

function select(id, isChoice) {
  wasChosen = isChoice;
  if (id === selected) return;
  selected = id;
  clearDetails();
  connect();
  changed = true;
}

function clearDetails() {
  details = emptyDetails();
  stream.reset();
  batches.clear();
  queue.clear();
  setLiveButton(true);
}

function takeDetails(news) {
  details.at = news.at;
  details.error = news.error;
  details.leftOut = news.left_out;
  details.workers = news.workers;
  details.functions.push(...news.functions);
  details.failures.push(...news.failures);
  details.failures = details.failures.slice(-100);
  details.news.push(...news.news);
  details.news = details.news.slice(-100);
  for (const [pid, points] of Object.entries(news.usage)) {
    const many = Array.isArray(points[0]) ? points : [points];
    details.usage.set(pid, (details.usage.get(pid) || []).concat(many).slice(-120));
  }
  stream.names = details.functions;
  stream.add(news.spans, news.failures);
  stream.see(news.workers, news.at);
  batches.add(news.batches);
  queue.add(news.queue);
}

// --- what is shown ---

function figuresOf(call) {
  const of = call.total === null ? "" : " of " + count(call.total);
  return [
    count(call.completed) + of, rate(call.rate),
    call.remaining === null ? "" : duration(call.remaining) + " left",
    call.workers ? call.busy + "/" + call.workers + " busy" : "",
    call.failed ? count(call.failed) + " failed" : "",
    call.retried ? count(call.retried) + " retried" : "",
    call.resumed ? count(call.resumed) + " resumed" : "",
    call.quiet > 3 ? "no news for " + duration(call.quiet) : "",
  ].filter((x) => x).join(" · ");
}

function showRunning(all) {
  const running = all.filter((call) => call.state === "running");
  $("none-running").hidden = running.length > 0;
  say($("counts"), running.length + " running, " + (all.length - running.length) + " past");
  keep($("running"), running.map((call) => call.id), (id) => {
    const item = make("li");
    const button = make("button", item, "call");
    button.type = "button";
    for (const name of ["name", "figures", "where"]) make("span", button, name);
    const track = make("span", button, "track");
    make("progress", track);
    button.addEventListener("click", () => { select(id, true); $("details").focus(); });
    return item;
  }, (item, id) => {
    const call = calls.get(id), button = item.firstChild, bar = item.querySelector("progress");
    button.setAttribute("aria-pressed", String(id === selected));
    item.classList.toggle("failing", call.failed > 0);
    say(item.querySelector(".name"), nameOf(call));
    say(item.querySelector(".figures"), figuresOf(call));
    say(item.querySelector(".where"), placeOf(call));
    bar.setAttribute("aria-label", "Progress of " + nameOf(call));
    if (call.total) { bar.max = call.total; bar.value = call.completed || 0; }
    else bar.removeAttribute("value");
  });
}

function showPast(all) {
  const past = all.filter((call) => call.state !== "running").reverse();
  $("none-past").hidden = past.length > 0;
  $("past").hidden = !past.length;
  keep($("past").tBodies[0], past.map((call) => call.id), (id) => {
    const row = make("tr");
    for (let index = 0; index < 7; index++) make("td", row);
    const button = make("button", row.cells[0], "link");
    button.type = "button";
    button.addEventListener("click", () => { select(id, true); $("details").focus(); });
    return row;
  }, (row, id) => {
    const call = calls.get(id);
    say(row.cells[0].firstChild, nameOf(call));
    row.cells[0].firstChild.title = placeOf(call);
    say(row.cells[1], call.state + (call.error ? ", " + call.error.slice(0, 80) : ""));
    row.cells[1].className = call.state === "finished" ? "" : "failed";
    say(row.cells[2], count(call.completed) + (call.total === null || call.total === call.completed ? "" : " of " + count(call.total)));
    say(row.cells[3], count(call.failed || 0));
    say(row.cells[4], duration(call.seconds));
    say(row.cells[5], call.program + (call.untold ? " (and " + call.untold + " short calls before it)" : ""));
    say(row.cells[6], clockTime(call.began));
  });
}

function showDetails(call) {
  $("details").hidden = !call;
  if (!call) return;
  say($("details-title"), nameOf(call));
  say($("place"), placeOf(call));
  say($("source").firstChild, call.place ? call.place[3] : "");
  $("cancel").hidden = call.state !== "running";
  const numbers = [
    ["State", call.state], ["Done", count(call.completed) + (call.total === null ? "" : " of " + count(call.total))],
    ["Rate", rate(call.rate) || "–"], ["Left", call.remaining === null ? "–" : duration(call.remaining)],
    ["Time", duration(call.seconds)], ["Failed", count(call.failed || 0)], ["Retried", count(call.retried || 0)],
    ["Resumed", count(call.resumed || 0)], ["At workers", count(call.queue || 0)],
  ];
  keep($("numbers"), numbers.map((pair) => pair[0]), (name) => {
    const box = make("div");
    make("dt", box, "", name);
    make("dd", box);
    return box;
  }, (box, name, index) => say(box.lastChild, numbers[index][1]));
  $("error").hidden = !details.error;
  if (details.error) {
    say($("error").firstElementChild, details.error.type + ": " + details.error.message);
    say($("error").querySelector("pre"), details.error.traceback);
  }
  $("left-out").hidden = !details.leftOut;
  say($("left-out"), count(details.leftOut) + " tasks are not in this picture: the dashboard took in less than there was.");
  const rows = stream.order.length;
  $("stream").setAttribute("aria-label", "Task stream of " + nameOf(call) + ": " + rows + (rows === 1 ? " row" : " rows") + ", " + count(call.completed) + " tasks done");
  showLegend();
  showWorkers(call);
  showFailures();
  $("no-news").hidden = details.news.length > 0;
  keep($("news"), details.news.map((entry) => entry[0] + entry[1]), () => make("li"), (item, key, index) => {
    const [at, text] = details.news[index];
    say(item, duration(at) + ": " + text);
  });
}

function showLegend() {
  keep($("legend"), details.functions.map((_, index) => index).slice(0, 20), (index) => {
    const item = make("li"), box = make("canvas", item);
    box.setAttribute("aria-hidden", "true");
    const context = prepare(box, 12, 12);
    context.fillStyle = PALETTE[index % PALETTE.length];
    context.fillRect(0, 0, 12, 12);
    make("span", item);
    return item;
  }, (item, index) => say(item.lastChild, details.functions[index] || "unknown function"));
}

function showWorkers(call) {
  const workers = details.workers;
  $("no-workers").hidden = workers.length > 0;
  $("workers").hidden = !workers.length;
  const inThreads = workers.length && workers.every((worker) => worker[1] === call.pid);
  keep($("workers").tBodies[0], workers.map((worker) => worker[0]), (slot) => {
    const row = make("tr");
    for (let index = 0; index < 9; index++) {
      const cell = make("td", row);
      if (index === 6 || index === 7) { make("span", cell); make("canvas", cell).setAttribute("aria-hidden", "true"); }
    }
    const stack = make("button", row.cells[8], "stack", "Stack"), end = make("button", row.cells[8], "danger end", "End");
    stack.type = end.type = "button";
    stack.setAttribute("aria-label", "Stack of worker " + slot);
    end.setAttribute("aria-label", "End worker " + slot + ", and so its task");
    stack.addEventListener("click", () => showStack(slot));
    end.addEventListener("click", () => endWorker(slot));
    return row;
  }, (row, slot, index) => {
    const [, pid, batches_, memory, phase, position, seconds] = workers[index];
    const usage = details.usage.get(String(pid)) || [], latest = usage[usage.length - 1];
    const texts = [slot, pid, phase.toLowerCase(), position === null ? "–" : position, phase === "IDLE" ? "–" : duration(seconds), batches_];
    texts.forEach((text, cell) => say(row.cells[cell], String(text)));
    say(row.cells[6].firstChild, bytes(latest ? latest[1] : memory));
    say(row.cells[7].firstChild, latest ? Math.round(latest[2] * 100) + " %" : "–");
    row.querySelector(".end").hidden = inThreads;
    const stamp = latest ? latest[0] : 0;
    if (row.stamp === stamp) return;
    row.stamp = stamp;
    drawLine(row.cells[6].lastChild, usage.map((point) => [point[0], point[1]]), {small: true, color: color("--accent")});
    drawLine(row.cells[7].lastChild, usage.map((point) => [point[0], point[2]]), {small: true, most: 1, color: color("--good")});
  });
}

function showFailures() {
  $("no-failures").hidden = details.failures.length > 0;
  keep($("failures"), details.failures.map((failure) => failure.position + "@" + failure.at).reverse(), () => {
    const item = make("details");
    make("summary", item, "failed");
    make("pre", item);
    return item;
  }, (item, key, index) => {
    const failure = details.failures[details.failures.length - 1 - index];
    const who = failure.worker === null ? "" : " on worker " + failure.worker;
    say(item.firstChild, "Task " + failure.position + who + ": " + failure.type + ": " + failure.message.split("\n")[0]);
    say(item.lastChild, failure.traceback);
  });
}

let shownAt = 0, chooseAgain = 0;
function frame(now) {
  requestAnimationFrame(frame);
  if (now - shownAt > 200) choose(Array.from(calls.values()), now);
  const call = calls.get(selected);
  if (changed && now - shownAt > 200) {
    shownAt = now;
    changed = false;
    const all = Array.from(calls.values());
    showRunning(all);
    showPast(all);
    showDetails(call);
    batches.draw();
    queue.draw();
  }
  if (call && offset !== null) stream.frame(Math.max(now / 1000 + offset - call.clock, 0));
}

// --- what buttons do ---

function ask(title, text, code, doing, action) {
  say($("dialog-title"), title);
  say($("dialog-text"), text);
  say($("dialog-code"), code || "");
  $("dialog-code").hidden = !code;
  $("dialog-do").hidden = !doing;
  say($("dialog-do"), doing || "");
  $("dialog-do").onclick = action || null;
  if (!$("dialog").open) $("dialog").showModal();
}

async function command(path) {
  try {
    const answer = await fetch(BASE + "calls/" + selected + "/" + path, {method: "POST"});
    if (answer.status === 200) return await answer.json();
    return {done: false, text: (await answer.text()).trim()};
  } catch (error) {
    return {done: false, text: "The dashboard cannot be reached: " + error.message};
  }
}

$("cancel").addEventListener("click", () => {
  ask("Cancel this call?", "Its running tasks are stopped, and the program gets a CallCancelledError.", "", "Cancel the call", async () => {
    $("dialog").close();
    const answer = await command("cancel");
    if (!answer.done) ask("The call was not cancelled", answer.text);
  });
});

async function showStack(slot) {
  ask("Stack of worker " + slot, "Asking …");
  const answer = await command("workers/" + slot + "/stack");
  if (answer.done) ask("Stack of worker " + slot, "The innermost call is named where the list of its thread says so.", answer.text);
  else ask("Stack of worker " + slot, answer.text);
}

function endWorker(slot) {
  ask("End worker " + slot + "?", "The task that it runs fails with a WorkerDiedError; another worker takes its place.", "", "End the worker", async () => {
    const answer = await command("workers/" + slot + "/end");
    ask("Worker " + slot, answer.text);
  });
}

$("dialog-close").addEventListener("click", () => $("dialog").close());

function setLiveButton(isLive) { $("live").setAttribute("aria-pressed", String(isLive)); }
stream.onlive = setLiveButton;
$("earlier").addEventListener("click", () => stream.move(-0.3));
$("later").addEventListener("click", () => stream.move(0.3));
$("zoom-in").addEventListener("click", () => stream.zoom(1 / 1.6));
$("zoom-out").addEventListener("click", () => stream.zoom(1.6));
$("fit").addEventListener("click", () => {
  const call = calls.get(selected);
  if (call) stream.fit(performance.now() / 1000 + offset - call.clock);
});
$("live").addEventListener("click", () => stream.setLive(true));

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
function setTheme(isDark) {
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  $("theme").setAttribute("aria-pressed", String(isDark));
  stream.quiet = null;
  batches.stale = queue.stale = changed = true;
}
$("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark"));
prefersDark.addEventListener("change", () => setTheme(prefersDark.matches));
setTheme(prefersDark.matches);

history.replaceState(null, "", BASE);  // the token is not to stay in the address
connect();
requestAnimationFrame(frame);
