"use strict";
// Figures in words, and small helpers. What programs say becomes text, never markup.

const PALETTE = ["#4c78a8", "#e0892b", "#4f9a4a", "#a66ea0", "#4fa3a0", "#c9a227", "#9d755d", "#7f86a3"];
const FAILURE = "#d83a45";
const $ = (id) => document.getElementById(id);

function count(value) {
  return value === null || value === undefined ? "?" : Math.round(value).toLocaleString("en");
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "?";
  if (seconds < 1e-3) return (seconds * 1e6).toFixed(0) + " µs";
  if (seconds < 1) return (seconds * 1e3).toFixed(seconds < 0.1 ? 1 : 0) + " ms";
  if (seconds < 60) return seconds.toFixed(1) + " s";
  const all = Math.round(seconds), hours = Math.floor(all / 3600), minutes = Math.floor(all / 60) % 60;
  const pad = (value) => String(value).padStart(2, "0");
  return hours ? hours + ":" + pad(minutes) + ":" + pad(all % 60) + " h" : minutes + ":" + pad(all % 60) + " min";
}

function bytes(value) {
  if (!value) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let index = 0;
  while (value >= 1000 && index < units.length - 1) { value /= 1000; index++; }
  return value.toFixed(value < 10 && index ? 1 : 0) + " " + units[index];
}

function rate(value) {
  if (value === null || value === undefined) return "";
  return (value >= 100 ? count(value) : value.toPrecision(3)) + " tasks/s";
}

function nameOf(call) {
  const names = call.functions.filter((name) => name);
  const more = call.n_functions > names.length && names.length ? ", …" : "";
  return names.length ? names.join(", ") + more : call.label;
}

function placeOf(call) {
  const place = call.place;
  const where = place ? place[0] + ":" + place[1] + " in " + place[2] : "";
  return [call.label, call.backend, call.program + " (process " + call.pid + ")", where].filter((x) => x).join(" · ");
}

function clockTime(epoch) {
  return new Date(epoch * 1000).toLocaleTimeString();
}

// Set the text of an element, if it is another one: a screen reader reads what changes.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function make(tag, parent, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

// Have one child for each key, in order; `build` makes one, `update` fills it in.
function keep(parent, keys, build, update) {
  const known = new Map(Array.from(parent.children, (child) => [child.dataset.key, child]));
  let before = null;
  keys.forEach((key, index) => {
    const name = String(key);
    let child = known.get(name);
    if (child) known.delete(name);
    else { child = build(key); child.dataset.key = name; }
    const at = before ? before.nextSibling : parent.firstChild;
    if (child !== at) parent.insertBefore(child, at);
    update(child, key, index);
    before = child;
  });
  for (const child of known.values()) child.remove();
}

// Make a canvas as sharp as the screen; return its context, in CSS pixels.
function prepare(canvas, width, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const w = Math.max(1, Math.round(width * ratio)), h = Math.max(1, Math.round(height * ratio));
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
