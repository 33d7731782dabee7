// The page of `maskselect serve`. Candidates arrive once for a picture; only a new prompt asks the server again.

import { Candidates, Mask } from "./masks.js";

const $ = (id) => document.getElementById(id);
const COLOURS = [[47, 111, 237], [233, 120, 20], [22, 152, 90], [158, 72, 214], [214, 48, 72], [12, 150, 170], [150, 118, 0], [110, 110, 120]];
const REFERENCE = [230, 30, 200];
const REF = "<mask-ref>";
const PICTURE_FORMATS = [["json", "JSON"], ["mask", "PNG"], ["masks", "PNG per mask"], ["overlay", "Overlay"], ["coco", "COCO"],
  ["coco-polygons", "COCO polygons"], ["labelme", "labelme"], ["yolo", "YOLO"], ["svg", "SVG"]];
const CLIP_FORMATS = [["json", "JSON"], ["mask", "PNG per frame"], ["overlay", "Video with masks"]];

let model = null;      // what /api/model says
let visual = null;     // {kind, id, name, file, size, working, candidates, bitmap} or the same of a clip
let frame = 0;         // of a clip
let hover = null;      // {source, number}: a candidate under the pointer or chosen by keys
let drag = null;       // {x0, y0, x1, y1} in pixels of the image
let state = fresh();   // what undo restores
let past = [];         // earlier states, for undo
let asking = null;     // AbortController of the running question
let token = sessionStorage.getItem("maskselect-token") ?? "";
let sampled = 0;

function fresh() {
  return { cards: [], references: [], active: -1, prompt: "" };
}

// --- the server -----------------------------------------------------------------------------------------------------

class ServerError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function request(path, options = {}) {
  const headers = { ...options.headers, ...(token && { authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("unreachable", "The server does not answer. Is it still running, and is the file small enough?");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  if (response.status === 401) {
    $("locked").showModal();
    $("token").focus();
  }
  throw new ServerError(error?.code ?? "internal", error?.message ?? `The server answers ${response.status}.`);
}

const post = (path, content, options = {}) => request(path, {
  method: "POST", body: JSON.stringify(content), headers: { "content-type": "application/json" }, ...options,
});

/** A request about the picture; a picture that the server has forgotten is sent again. */
async function about(part, content, options) {
  const base = visual.kind === "clip" ? "api/clips" : "api/pictures";
  try {
    return await post(`${base}/${visual.id}/${part}`, content, options);
  } catch (error) {
    if (error.code !== "no_picture" && error.code !== "no_clip") throw error;
    visual.id = (await (await request(base, { method: "POST", body: visual.file })).json()).id;
    return post(`${base}/${visual.id}/${part}`, content, options);
  }
}

function say(text) {
  $("live").textContent = text;
}

function fail(error) {
  if (error?.name === "AbortError") return;
  $("message").textContent = error?.message ?? error ?? "";
  $("message").hidden = !error;
}

/** Runs an action of the user, and shows its error. */
const guarded = (action) => async (...given) => {
  fail(null);
  try {
    await action(...given);
  } catch (error) {
    fail(error);
    if (!(error instanceof ServerError)) console.error(error);
  }
};

// --- opening --------------------------------------------------------------------------------------------------------

const open = guarded(async (file, suggestions = []) => {
  if (!file) return;
  const isClip = file.type.startsWith("video/");
  if (isClip && !model.clips) throw new Error("This server reads no videos: its extra video is not installed.");
  if (file.size > model.upload_bytes) {
    throw new Error(`The file has ${(file.size / 2 ** 20).toFixed(1)} MiB; the server takes up to ${model.upload_bytes / 2 ** 20}.`);
  }
  stop();
  document.body.classList.add("opening");
  $("empty").classList.add("busy");
  say("reading");
  try {
    const base = isClip ? "api/clips" : "api/pictures";
    const record = await (await request(base, { method: "POST", body: file })).json();
    const next = { kind: isClip ? "clip" : "picture", name: file.name || "picture.png", file, ...record };
    next.working ??= next.size;
    next.candidates = record.candidates ? new Candidates(record.candidates) : null;
    if (!isClip) next.bitmap = await bitmapOf(next);
    visual = next;
    frame = 0;
  } finally {
    document.body.classList.remove("opening");
    $("empty").classList.remove("busy");
  }
  state = fresh();
  past = [];
  hover = null;
  $("prompt").value = "";
  showSuggestions(suggestions);
  $("empty").hidden = true;
  $("stage").hidden = $("keys").hidden = false;
  $("tools").hidden = isClip;
  $("player").hidden = !isClip;
  const [height, width] = visual.size;
  $("stage").style.setProperty("--ratio", String(width / height));
  $("view").width = visual.working[1];
  $("view").height = visual.working[0];
  if (isClip) {
    $("scrub").max = visual.frames - 1;
    await showFrame(0);
  } else {
    paintPhoto(visual.bitmap);
  }
  const count = visual.candidates?.masks.length;
  $("count").textContent = count === undefined ? "masks come with the answer" : `${count} candidates`;
  $("keys").textContent = isClip ? "Drag a box or tap a point on this frame for a reference, or just type a prompt."
    : "Click a candidate to refer to it, drag a box, or just type a prompt. ? shows all keys.";
  say(isClip ? `clip of ${visual.frames} frames` : $("count").textContent);
  refresh();
  if (matchMedia("(pointer: fine)").matches) $("prompt").focus();
});

/** The picture for the canvas: the file itself, or the server's copy if the browser cannot read it. */
async function bitmapOf(picture) {
  const [height, width] = picture.size;
  try {
    const bitmap = await createImageBitmap(picture.file);
    if (bitmap.width === width && bitmap.height === height) return bitmap;
  } catch { /* the server's copy follows */ }
  return createImageBitmap(await (await request(`api/pictures/${picture.id}/image`)).blob());
}

function paintPhoto(bitmap) {
  const scale = Math.min(1, 2048 / Math.max(bitmap.width, bitmap.height));
  const canvas = $("photo");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}

const sample = guarded(async () => {
  const { image, prompts } = await (await request(`api/samples/${sampled % model.samples}`)).json();
  const bytes = Uint8Array.from(atob(image), (letter) => letter.charCodeAt(0));
  const file = new File([bytes], `sample-${sampled % model.samples}.png`, { type: "image/png" });
  sampled += 1;
  await open(file, prompts);
});

const camera = guarded(async () => {
  if (!navigator.mediaDevices?.getUserMedia) return $("capture").click();
  const video = $("lens").querySelector("video");
  video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
  $("lens").showModal();
  $("lens").onclose = () => video.srcObject?.getTracks().forEach((track) => track.stop());
});

async function shoot() {
  const video = $("lens").querySelector("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  $("lens").close();
  canvas.toBlob((blob) => open(new File([blob], "camera.jpg", { type: "image/jpeg" })), "image/jpeg", 0.92);
}

// --- clips ----------------------------------------------------------------------------------------------------------

const frames = new Map(); // bitmaps of the last frames, by clip and number
let playing = null;

async function showFrame(number) {
  const clip = visual;
  frame = Math.max(0, Math.min(clip.frames - 1, number));
  $("scrub").value = frame;
  $("frame").textContent = `${frame + 1} / ${clip.frames}`;
  const key = `${clip.id} ${frame}`;
  if (!frames.has(key)) {
    const wanted = frame;
    const bitmap = await createImageBitmap(await (await request(`api/clips/${clip.id}/frames/${wanted}`)).blob());
    frames.set(key, bitmap);
    if (frames.size > 120) frames.delete(frames.keys().next().value);
    if (visual !== clip || frame !== wanted) return;
  }
  paintPhoto(frames.get(key));
  draw();
}

function play() {
  if (playing) {
    clearInterval(playing);
    playing = null;
  } else {
    let busy = false;
    playing = setInterval(async () => {
      if (busy || visual?.kind !== "clip") return;
      busy = true;
      await showFrame((frame + 1) % visual.frames).catch(fail);
      busy = false;
    }, 1000 / Math.min(30, visual.fps));
  }
  $("play").textContent = playing ? "⏸" : "▶";
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
}

function stop() {
  if (playing) play();
  asking?.abort();
}

// --- state and undo -------------------------------------------------------------------------------------------------

function copy(source) {
  const cards = source.cards.map((card) => ({ ...card, added: new Map(card.added), removed: new Set(card.removed) }));
  return { ...source, cards, references: [...source.references] };
}

/** Keeps the state for undo, before a change. */
function remember() {
  state.prompt = $("prompt").value;
  past.push(copy(state));
  if (past.length > 100) past.shift();
}

function undo() {
  if (!past.length) return;
  state = past.pop();
  $("prompt").value = state.prompt;
  say("undone");
  refresh();
}

// --- references and prompts -----------------------------------------------------------------------------------------

function nextNumber() {
  const used = new Set(state.references.map((reference) => reference.number));
  let number = 1;
  while (used.has(number)) number += 1;
  return number;
}

/** Adds a reference, and its sign [n] to the prompt. */
function refer(wire, label, mask) {
  remember();
  const number = nextNumber();
  state.references.push({ number, wire: visual.kind === "clip" ? { ...wire, frame } : wire, label, mask });
  const input = $("prompt"), sign = `[${number}]`;
  const [start, end] = document.activeElement === input || input.selectionStart < input.value.length
    ? [input.selectionStart, input.selectionEnd] : [input.value.length, input.value.length];
  const before = input.value.slice(0, start), after = input.value.slice(end);
  const space = before && !before.endsWith(" ") ? " " : "";
  input.value = before + space + sign + after;
  input.setSelectionRange(start + space.length + sign.length, start + space.length + sign.length);
  say(`reference ${number}: ${label}`);
  refresh();
}

function forget(number) {
  remember();
  state.references = state.references.filter((reference) => reference.number !== number);
  $("prompt").value = $("prompt").value.replaceAll(`[${number}]`, "").replace(/ {2,}/g, " ").trim();
  refresh();
}

function referToCandidate(source, number) {
  const wire = source.candidates === visual.candidates && visual.candidates
    ? { candidate: number } : { mask: { size: source.candidates.size, counts: source.candidates.masks[number].counts } };
  refer(wire, `candidate ${number}`, source.candidates.masks[number]);
}

/** A box or a point as a reference; the server finds its mask. */
const referToPlace = guarded(async (wire, label) => {
  if (!model.points) throw new Error("This model takes no boxes or points; click a candidate instead.");
  let mask = null;
  if (visual.kind === "picture") {
    const { masks } = await (await about("references", { references: [wire] })).json();
    mask = new Mask(masks[0].counts, masks[0].size);
  }
  refer(wire, label, mask);
});

/** Text and references for the server: each [n] becomes <mask-ref>. */
function prompted(text) {
  let plain = 0;
  const signed = text.replaceAll(REF, () => `[${++plain}]`);
  const references = [];
  const sent = signed.replace(/\[(\d+)\]/g, (sign, number) => {
    const reference = state.references.find((one) => one.number === Number(number));
    if (!reference) throw new Error(`The prompt has ${sign}, but there is no reference ${number}: click an object first.`);
    references.push(reference);
    return REF;
  });
  return { text: sent, references };
}

const ask = guarded(async (shown = $("prompt").value.trim()) => {
  if (!shown || !visual) return;
  const { text, references } = prompted(shown);
  const asked = visual;
  stop();
  asking = new AbortController();
  document.body.classList.add("asking");
  $("send").textContent = "…";
  try {
    const content = { prompts: [{ text, references: references.map((one) => one.wire) }] };
    const options = { signal: asking.signal };
    const answer = asked.kind === "clip" ? await askClip(content, options)
      : (await (await about("answers", content, options)).json()).answers[0];
    if (visual !== asked) return;
    remember();
    const same = state.cards.findIndex((card) => card.shown === shown);
    const card = makeCard(shown, text, references, answer, same < 0 ? undefined : state.cards[same].colour);
    if (same < 0) {
      if (state.cards.length >= model.prompts) state.cards.shift();
      state.cards.push(card);
      state.active = state.cards.length - 1;
    } else {
      state.cards[same] = card;
      state.active = same;
    }
    say(`${describe(card)} for ${shown}`);
  } finally {
    asking = null;
    document.body.classList.remove("asking");
    $("send").textContent = "Ask";
    $("progress").hidden = true;
    refresh();
  }
});

/** Asks again for the threshold of a card, for a model whose groups do not depend on the scores alone. */
const select = guarded(async (card) => {
  const prompts = [{ text: card.text, references: card.references.map((one) => one.wire) }];
  const { answers } = await (await about("answers", { prompts, threshold: card.threshold })).json();
  card.answer = answers[0];
  card.source = sourceOf(card.answer);
});

function makeCard(shown, text, references, answer, colour) {
  const used = new Set(state.cards.map((card) => card.colour));
  return {
    shown, text, answer,
    references: references.map((one) => ({ ...one })),
    colour: colour ?? Math.max(0, COLOURS.findIndex((_, number) => !used.has(number))),
    threshold: visual.kind === "clip" ? null : model.threshold,
    added: new Map(), removed: new Set(), visible: true, why: false,
    source: sourceOf(answer),
  };
}

/** Where the masks of an answer come from: {candidates, fixed}, fixed for masks that no threshold selects. */
function sourceOf(answer) {
  if (visual.kind === "clip") return { objects: answer.objects.map((one) => one.segmentations.map((rle) => rle && new Mask(rle.counts, rle.size))) };
  if (answer.own) return { candidates: new Candidates(answer.own) };
  if (answer.scores) return { candidates: visual.candidates };
  const size = visual.working, masks = answer.masks.map((one) => new Mask(one.counts, size));
  const record = { size, counts: answer.masks.map((one) => one.counts), areas: masks.map((one) => one.box.area), duplicates: [] };
  return { candidates: new Candidates(record), fixed: true };
}

async function askClip(content, options) {
  $("progress").hidden = false;
  const bar = $("progress").querySelector("progress"), text = $("progress").querySelector("output");
  bar.value = 0;
  text.textContent = "waiting";
  const reader = (await about("answers", content, options)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new ServerError("unreachable", "The server stopped before the answer was complete.");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.map((one) => JSON.parse(one))) {
      if (line.error) throw new ServerError(line.error.code, line.error.message);
      if (line.answers) return line.answers[0];
      bar.value = line.seen / line.frames;
      text.textContent = `${line.seen} of ${line.frames} frames`;
    }
  }
}

// --- groups ---------------------------------------------------------------------------------------------------------

/** Whether the threshold of a card selects its masks here, without the server. */
function slides(card) {
  return visual.kind === "picture" && card.threshold !== null && card.answer.slides;
}

/** The masks of a card: {number, score} by falling score, and why the others are left out. */
function group(card) {
  if (visual.kind === "clip") return { chosen: [], reasons: new Map() };
  let selected, reasons = new Map();
  if (slides(card)) {
    const found = card.source.candidates.select(card.answer.scores, card.threshold);
    selected = found.chosen;
    reasons = found.reasons;
  } else {
    selected = card.answer.masks.map((one, number) => one.candidate ?? number);
  }
  const chosen = selected.filter((number) => !card.removed.has(number)).map((number) => ({ number, score: scoreOf(card, number) }));
  for (const number of card.added.keys()) {
    if (!chosen.some((one) => one.number === number)) chosen.push({ number, score: scoreOf(card, number) });
  }
  return { chosen: chosen.sort((a, b) => b.score - a.score), reasons };
}

function scoreOf(card, number) {
  return card.answer.scores?.[number] ?? card.answer.masks[number]?.score ?? 1;
}

/** Adds a candidate to the group of a card, or removes it. */
function toggle(card, number) {
  remember();
  const isIn = group(card).chosen.some((one) => one.number === number);
  if (isIn) {
    card.added.delete(number);
    card.removed.add(number);
  } else {
    card.removed.delete(number);
    card.added.set(number, true);
  }
  say(isIn ? `removed ${number}` : `added ${number}`);
  refresh();
}

/** The active card, or a new one without a prompt. */
function activeCard(source) {
  const card = state.cards[state.active];
  if (card && card.source.candidates === source.candidates) return card;
  if (!visual.candidates) return null;
  const answer = { masks: [], scores: null, own: null, text: null, failure: null, references: [] };
  const made = makeCard("selection", "selection", [], answer);
  Object.assign(made, { source: { candidates: visual.candidates }, threshold: null, manual: true });
  state.cards.push(made);
  state.active = state.cards.length - 1;
  return made;
}

/** Adds a candidate to the active card, or removes it; without a card there is a new one. */
function toggleActive(source, number) {
  const isThere = state.cards[state.active]?.source.candidates === source.candidates;
  if (!isThere) remember();
  const card = activeCard(source);
  if (card) toggle(card, number);
  if (!isThere) past.pop();  // the new card and its first mask are undone together
}

function describe(card) {
  const count = visual.kind === "clip" ? card.answer.objects.length : group(card).chosen.length;
  const what = visual.kind === "clip" ? "object" : "mask";
  return count ? `${count} ${what}${count === 1 ? "" : "s"}` : "nothing answers this";
}

// --- drawing --------------------------------------------------------------------------------------------------------

/** What the pointer can touch: the candidates of the picture, or those of the active answer. */
function touchable() {
  if (!visual || visual.kind === "clip") return null;
  if (visual.candidates) return { candidates: visual.candidates };
  return state.cards[state.active]?.source ?? null;
}

function draw() {
  if (!visual) return;
  const canvas = $("view"), context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (const card of state.cards) if (card.visible) drawCard(context, card);
  const across = canvas.width / visual.size[1], down = canvas.height / visual.size[0];
  for (const reference of state.references) drawReference(context, reference, across, down);
  if (hover && hover.source === touchable()?.candidates) hover.source.masks[hover.number]?.draw(context, [255, 255, 255], 0.35, 1);
  if (drag) {
    context.setLineDash([6, 4]);
    box(context, drag, across, down, `rgb(${REFERENCE})`);
    context.setLineDash([]);
  }
  const number = hover?.number;
  $("tip").hidden = number === undefined;
  if (number !== undefined) {
    const card = state.cards[state.active];
    const score = card && card.source.candidates === hover.source ? card.answer.scores?.[number] ?? card.answer.masks[number]?.score : undefined;
    $("tip").textContent = `candidate ${number}${score === undefined ? "" : `, score ${score.toFixed(2)}`}`;
  }
}

function drawCard(context, card) {
  const colour = COLOURS[card.colour];
  if (visual.kind === "clip") card.source.objects.forEach((object) => object[frame]?.draw(context, colour, 0.45, 1));
  else for (const { number } of group(card).chosen) card.source.candidates.masks[number]?.draw(context, colour, 0.45, 1);
}

function box(context, { x0, y0, x1, y1 }, across, down, colour) {
  const width = Math.max(2, context.canvas.width / 300);
  for (const [style, line] of [["white", 2 * width], [colour, width]]) {
    context.strokeStyle = style;
    context.lineWidth = line;
    context.strokeRect(x0 * across, y0 * down, (x1 - x0) * across, (y1 - y0) * down);
  }
}

function drawReference(context, { number, wire, mask }, across, down) {
  if ((wire.frame ?? frame) !== frame) return;
  let x, y;
  mask?.draw(context, REFERENCE, 0.15, 1);
  if (wire.box) {
    const [x0, y0, x1, y1] = wire.box;
    box(context, { x0, y0, x1, y1 }, across, down, `rgb(${REFERENCE})`);
    [x, y] = [x0 * across, y0 * down];
  } else if (wire.point) {
    [x, y] = [wire.point[0] * across, wire.point[1] * down];
  } else {
    ({ x, y } = mask.inside);
  }
  const radius = Math.max(8, context.canvas.width / 45);
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = `rgb(${REFERENCE})`;
  context.fill();
  context.lineWidth = radius / 6;
  context.strokeStyle = "white";
  context.stroke();
  context.fillStyle = "white";
  context.font = `bold ${1.3 * radius}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(number, x, y + radius / 12);
}

// --- the panel ------------------------------------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const { data, aria, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(aria ?? {})) element.setAttribute(`aria-${name}`, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const dot = (colour) => {
  const element = make("span", { className: "dot" });
  element.style.background = `rgb(${colour})`;
  return element;
};

function refresh() {
  $("send").disabled = !visual || !$("prompt").value.trim();
  $("undo").disabled = !past.length;
  $("references").replaceChildren(...state.references.map((reference) => make("li", {},
    dot(REFERENCE), `[${reference.number}] ${reference.label}`,
    make("button", { type: "button", textContent: "✕", aria: { label: `Remove reference ${reference.number}` }, onclick: () => forget(reference.number) }),
  )));
  const focused = document.activeElement?.dataset?.key;
  const scrolled = new Map([...$("cards").querySelectorAll(".why")].map((list) => [list.dataset.list, list.scrollTop]));
  $("cards").replaceChildren(...state.cards.map(cardElement));
  for (const list of $("cards").querySelectorAll(".why")) list.scrollTop = scrolled.get(list.dataset.list) ?? 0;
  if (focused) $("cards").querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  $("downloads").hidden = !state.cards.length;
  $("python").hidden = !state.cards[state.active] || Boolean(state.cards[state.active].manual);
  const formats = visual?.kind === "clip" ? CLIP_FORMATS : PICTURE_FORMATS;
  if ($("formats").dataset.kind !== visual?.kind) {
    $("formats").dataset.kind = visual?.kind;
    $("formats").replaceChildren(...formats.map(([name, label]) => make("button", {
      type: "button", textContent: label, data: { format: name }, onclick: () => download(name),
    })));
  }
  draw();
}

function cardElement(card, place) {
  const key = (name) => ({ key: `${place} ${name}` });
  const icon = (name, text, label, onclick, pressed) => make("button", {
    type: "button", textContent: text, title: label, data: key(name), onclick,
    aria: { label: `${label}: ${card.shown}`, ...(pressed !== undefined && { pressed }) },
  });
  const element = make("article", { className: `card${place === state.active ? " active" : ""}`, data: { place } },
    make("header", {},
      make("h2", {}, dot(COLOURS[card.colour]), " ", make("button", {
        type: "button", textContent: card.shown, data: key("title"), onclick: () => activate(place), aria: { pressed: place === state.active },
      })),
      make("span", { className: "icons" },
        icon("see", card.visible ? "◉" : "○", "Show or hide", () => change(card, () => { card.visible = !card.visible; }), card.visible),
        icon("close", "✕", "Remove", () => { remember(); state.cards.splice(place, 1); state.active = state.cards.length - 1; refresh(); })),
    ),
    make("p", { className: "result quiet", textContent: describe(card) }),
  );
  if (card.answer.failure) element.append(make("p", { className: "small", textContent: card.answer.failure }));
  if (visual.kind === "clip") {
    element.append(...card.answer.objects.map((object, number) => lane(card, object, number)));
    return element;
  }
  if (state.cards.length > 1) element.append(thumbnail(card));
  if (card.threshold !== null) element.append(slider(card, place, element));
  if (card.answer.scores || card.answer.text) {
    element.append(make("button", {
      type: "button", textContent: "Why", data: key("why"), aria: { expanded: card.why, label: `Why: ${card.shown}` },
      onclick: () => { card.why = !card.why; state.active = place; refresh(); },
    }));
  }
  if (card.why) element.append(...why(card, place));
  return element;
}

function activate(place) {
  state.active = place;
  refresh();
}

function change(card, action) {
  remember();
  action();
  refresh();
}

function slider(card, place, element) {
  const shown = make("output", { textContent: card.threshold.toFixed(2) });
  const input = make("input", {
    type: "range", min: 0, max: 1, step: 0.01, value: card.threshold, data: { key: `${place} slider` }, aria: { label: `Threshold: ${card.shown}` },
  });
  let kept = false;
  input.oninput = () => {
    if (!kept) remember();
    kept = true;
    card.threshold = Number(input.value);
    state.active = place;
    shown.textContent = card.threshold.toFixed(2);
    if (!slides(card)) return;
    element.querySelector(".result").textContent = describe(card);
    draw();
  };
  input.onchange = async () => {
    kept = false;
    if (!slides(card)) await select(card);
    refresh();
  };
  return make("label", { className: "slider small" }, "Threshold", input, shown);
}

function thumbnail(card) {
  const scale = Math.min(1, 400 / Math.max(...visual.working)), photo = $("photo");
  const canvas = make("canvas", { width: visual.working[1] * scale, height: visual.working[0] * scale });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${card.shown}: ${describe(card)}`);
  const context = canvas.getContext("2d");
  context.drawImage(photo, 0, 0, canvas.width, canvas.height);
  context.scale(scale, scale);
  drawCard(context, card);
  return canvas;
}

/** The scores of all candidates, or the text that the model wrote. */
function why(card, place) {
  const parts = [];
  if (card.answer.text) parts.push(make("p", { className: "small", textContent: `The model wrote: ${card.answer.text}` }));
  if (!card.answer.scores) return parts;
  const { chosen, reasons } = group(card);
  const inside = new Set(chosen.map((one) => one.number)), scores = card.answer.scores;
  const order = scores.map((_, number) => number).sort((a, b) => scores[b] - scores[a]);
  const list = make("ul", { className: "why", data: { list: place } }, ...order.map((number) => {
    const bar = make("i");
    bar.style.width = `${100 * scores[number]}%`;
    const note = card.added.has(number) ? "added by hand" : card.removed.has(number) ? "removed by hand"
      : reasons.has(number) ? `left out: nearly the same as ${reasons.get(number)}` : null;
    const show = () => point(card.source.candidates, number);
    return make("li", { className: inside.has(number) ? "in" : "" }, make("button", {
      type: "button", data: { key: `${place} why ${number}`, number }, onclick: () => { state.active = place; toggle(card, number); },
      onmouseenter: show, onfocus: show, aria: { pressed: inside.has(number), label: `Candidate ${number}, score ${scores[number].toFixed(2)}` },
    }, make("span", { textContent: `${inside.has(number) ? "✓ " : ""}${number}` }), make("span", { className: "bar" }, bar),
    make("span", { textContent: scores[number].toFixed(3) }), note ? make("span", { className: "note quiet", textContent: note }) : null));
  }));
  return [...parts, list];
}

/** When an object of a clip is seen, with its score; a click goes to its first frame. */
function lane(card, object, number) {
  const present = object.segmentations.map(Boolean), first = present.indexOf(true);
  const canvas = make("canvas", { className: "lane", width: present.length, height: 1 });
  const context = canvas.getContext("2d");
  context.fillStyle = `rgb(${COLOURS[card.colour]})`;
  present.forEach((isThere, at) => isThere && context.fillRect(at, 0, 1, 1));
  const count = present.filter(Boolean).length;
  return make("div", { className: "object small" },
    make("button", { type: "button", textContent: `Object ${object.id}`, onclick: () => showFrame(Math.max(0, first)).catch(fail) }),
    ` score ${object.score.toFixed(2)}, in ${count} of ${present.length} frames`, canvas);
}

function showSuggestions(prompts) {
  $("suggestions").replaceChildren(...prompts.map((text) => make("li", {}, make("button", {
    type: "button", textContent: text, onclick: () => { $("prompt").value = text; ask(text); },
  }))));
}

// --- downloads and Python -------------------------------------------------------------------------------------------

const download = guarded(async (format) => {
  const query = `files?name=${encodeURIComponent(visual.name)}`;
  const cards = state.cards.filter((card) => card.visible);
  if (!cards.length) throw new Error("All answers are hidden; show one that is to be in the file.");
  const content = visual.kind === "clip" ? { format, answers: cards.map((card) => card.answer.id) } : { format, groups: cards.map(wireGroup) };
  const response = await about(query, content);
  const name = decodeURIComponent(response.headers.get("content-disposition").split("''")[1]);
  const link = make("a", { href: URL.createObjectURL(await response.blob()), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  say(`saved ${name}`);
});

function wireGroup(card) {
  const isPool = card.source.candidates === visual.candidates && visual.candidates;
  const masks = group(card).chosen.map(({ number, score }) => isPool ? { candidate: number, score }
    : { mask: { size: card.source.candidates.size, counts: card.source.candidates.masks[number].counts }, score });
  return {
    text: card.text, references: card.references.map((one) => one.wire), masks, threshold: card.threshold,
    candidates: card.answer.scores ? card.answer.scores.length : null, answer: card.answer.text,
  };
}

/** The Python call that gives the active answer. */
function pythonCall(card) {
  const lines = ["import maskselect"], given = [];
  card.references.forEach((reference, place) => {
    const { wire } = reference, rle = card.answer.references?.[place];
    if (wire.box) given.push(`maskselect.BoxRef((${wire.box.join(", ")}))`);
    else if (wire.point) given.push(`maskselect.PointRef((${wire.point.join(", ")}))`);
    else {
      if (lines.length === 1) lines.push("from pycocotools import mask as rle");
      given.push(`mask_${place + 1}`);
      lines.push(`mask_${place + 1} = rle.decode({"size": [${rle.size}], "counts": ${JSON.stringify(rle.counts)}}).astype(bool)`);
    }
  });
  const isClip = visual.kind === "clip", rest = [];
  if (given.length) rest.push(`references=[${given.join(", ")}]`);
  if (isClip && given.length) rest.push(`frames=[${card.references.map((one) => one.wire.frame).join(", ")}]`);
  if (card.threshold !== null && card.threshold !== model.threshold) rest.push(`threshold=${card.threshold}`);
  lines.push(`model = maskselect.load(${JSON.stringify(model.name)})`);
  if (card.added.size || card.removed.size) lines.push("# masks that were added or removed by hand are not in this call");
  lines.push(`group = model.${isClip ? "select_video" : "select"}(${[JSON.stringify(visual.name), JSON.stringify(card.text), ...rest].join(", ")})`);
  return `${lines.join("\n")}\n`;
}

const copyPython = guarded(async () => {
  const text = pythonCall(state.cards[state.active]);
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else {
    const area = make("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  $("python").textContent = "Copied";
  setTimeout(() => { $("python").textContent = "Copy the Python call"; }, 1500);
  say("the Python call is copied");
});

// --- pointer and keys -----------------------------------------------------------------------------------------------

/** Pixels of the image under the pointer. */
function pixels(event) {
  const frameBox = $("view").getBoundingClientRect(), [height, width] = visual.size;
  const x = (event.clientX - frameBox.left) / frameBox.width * width, y = (event.clientY - frameBox.top) / frameBox.height * height;
  return { x: Math.min(Math.max(x, 0), width - 0.01), y: Math.min(Math.max(y, 0), height - 0.01) };
}

/** Pixels of the working image at pixels of the image. */
function worked({ x, y }) {
  return [Math.floor(x * visual.working[1] / visual.size[1]), Math.floor(y * visual.working[0] / visual.size[0])];
}

function point(source, number) {
  hover = number < 0 ? null : { source, number };
  draw();
}

const rounded = (value) => Math.round(value * 10) / 10;

function click(event, at) {
  const source = touchable(), isTouch = event.pointerType === "touch";
  const number = source ? source.candidates.at(...worked(at)) : -1;
  const onHover = hover && source && hover.source === source.candidates && hover.number >= 0
    && source.candidates.masks[hover.number].contains(...worked(at)) ? hover.number : number;
  const chooses = (document.querySelector("[name=tool]:checked").value === "choose") !== event.shiftKey;
  if (chooses && visual.kind === "picture") {
    if (onHover >= 0) toggleActive(source, onHover);
    return;
  }
  const wantsPoint = event.altKey || (isTouch && model.points) || onHover < 0 || visual.kind === "clip";
  if (wantsPoint) {
    const wire = { point: [rounded(at.x), rounded(at.y)] };
    if (wire.point[0] >= visual.size[1]) wire.point[0] = visual.size[1] - 1;
    if (wire.point[1] >= visual.size[0]) wire.point[1] = visual.size[0] - 1;
    referToPlace(wire, `point ${wire.point.map(Math.round).join(", ")}`);
  } else referToCandidate(source, onHover);
}

function bindPointer() {
  const view = $("view");
  let start = null;
  view.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    start = { ...pixels(event), clientX: event.clientX, clientY: event.clientY };
    view.setPointerCapture(event.pointerId);
  });
  view.addEventListener("pointermove", (event) => {
    const at = pixels(event);
    if (start && Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) > 6) {
      drag = { x0: Math.min(start.x, at.x), y0: Math.min(start.y, at.y), x1: Math.max(start.x, at.x), y1: Math.max(start.y, at.y) };
      draw();
    } else if (!start && event.pointerType !== "touch") {
      const source = touchable(), [x, y] = worked(at);
      const stays = hover?.larger && source && hover.source === source.candidates && hover.source.masks[hover.number].contains(x, y);
      const number = source ? source.candidates.at(x, y) : -1;
      if (!stays && number !== (hover?.number ?? -1)) point(source?.candidates, number);
    }
  });
  view.addEventListener("pointerup", (event) => {
    if (!start) return;
    const dragged = drag, at = pixels(event);
    start = drag = null;
    if (dragged && dragged.x1 - dragged.x0 >= 1 && dragged.y1 - dragged.y0 >= 1) {
      const wire = { box: [dragged.x0, dragged.y0, dragged.x1, dragged.y1].map(rounded) };
      wire.box[2] = Math.min(wire.box[2], visual.size[1]);
      wire.box[3] = Math.min(wire.box[3], visual.size[0]);
      referToPlace(wire, `box ${wire.box.map(Math.round).join(", ")}`);
    } else click(event, at);
    draw();
  });
  view.addEventListener("pointercancel", () => { start = drag = null; draw(); });
  view.addEventListener("pointerleave", () => { if (!start) point(null, -1); });
}

/** The next candidate in reading order, for the arrow keys. */
function step(by) {
  const source = touchable()?.candidates;
  if (!source?.masks.length) return;
  source.order ??= source.masks.map((_, number) => number).filter((number) => source.areas[number]).sort((a, b) => {
    const [first, second] = [source.masks[a].box, source.masks[b].box], band = source.size[0] / 6;
    return Math.floor(first.y0 / band) - Math.floor(second.y0 / band) || first.x0 - second.x0 || a - b;
  });
  const at = hover?.source === source ? source.order.indexOf(hover.number) : by > 0 ? -1 : 0;
  point(source, source.order[(at + by + source.order.length) % source.order.length]);
  hover.larger = true;
  say($("tip").textContent);
}

/** The next larger candidate at the same place. */
function larger() {
  const source = touchable()?.candidates;
  if (!source || hover?.source !== source) return;
  const { x, y } = source.masks[hover.from ?? hover.number].inside, from = hover.from ?? hover.number;
  const all = source.allAt(x, y);
  point(source, all[(all.indexOf(hover.number) + 1) % all.length]);
  Object.assign(hover, { larger: true, from });
  say($("tip").textContent);
}

function onStageKey(event) {
  const source = touchable(), number = hover && source && hover.source === source.candidates ? hover.number : -1;
  const scaleX = visual.size[1] / visual.working[1], scaleY = visual.size[0] / visual.working[0];
  if (event.key === "ArrowRight" || event.key === "ArrowDown") visual.kind === "clip" ? showFrame(frame + 1).catch(fail) : step(1);
  else if (event.key === "ArrowLeft" || event.key === "ArrowUp") visual.kind === "clip" ? showFrame(frame - 1).catch(fail) : step(-1);
  else if (number < 0) return;
  else if (event.key === "Enter" && event.shiftKey) toggleActive(source, number);
  else if (event.key === "Enter") referToCandidate(source, number);
  else if (event.key === "Escape") point(null, -1);
  else if (event.key.toLowerCase() === "b") {
    const { x0, y0, x1, y1 } = source.candidates.masks[number].box;
    const wire = { box: [x0 * scaleX, y0 * scaleY, x1 * scaleX, y1 * scaleY].map(rounded) };
    referToPlace(wire, `box ${wire.box.map(Math.round).join(", ")}`);
  } else if (event.key.toLowerCase() === "p") {
    const { x, y } = source.candidates.masks[number].inside;
    const wire = { point: [rounded((x + 0.5) * scaleX), rounded((y + 0.5) * scaleY)] };
    referToPlace(wire, `point ${wire.point.map(Math.round).join(", ")}`);
  } else return;
  event.preventDefault();
}

function onKey(event) {
  const writes = event.target.matches("input:not([type=range]):not([type=radio]), textarea") || document.querySelector("dialog[open]");
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !(writes && $("prompt").value !== state.prompt)) {
    event.preventDefault();
    undo();
  }
  if (event.key === "Escape" && event.target === $("prompt") && visual) $("view").focus();
  if (writes || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); $("prompt").focus(); }
  else if (event.key === "?") $("about").showModal();
  else if (event.key.toLowerCase() === "o") $("file").click();
  else if (event.key.toLowerCase() === "n" && visual) larger();
  else if (event.target === $("view") && visual) onStageKey(event);
}

// --- start ----------------------------------------------------------------------------------------------------------

function theme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("maskselect-theme", name);
}

const begin = guarded(async () => {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    token = given;
    sessionStorage.setItem("maskselect-token", token);
    window.history.replaceState(null, "", location.pathname);
  }
  model = await (await request("api/model")).json();
  $("model").textContent = model.name;
  document.title = `maskselect: ${model.name}`;
  document.body.dataset.ready = "true";
});

const chosen = localStorage.getItem("maskselect-theme");
if (chosen) theme(chosen);
$("theme").onclick = () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  theme(dark ? "light" : "dark");
};
$("help").onclick = () => $("about").showModal();
$("open").onclick = () => $("file").click();
$("sample").onclick = sample;
$("camera").onclick = camera;
$("shoot").onclick = shoot;
$("undo").onclick = undo;
$("play").onclick = play;
$("stop").onclick = () => asking?.abort();
$("python").onclick = copyPython;
$("scrub").oninput = () => showFrame(Number($("scrub").value)).catch(fail);
for (const input of [$("file"), $("capture")]) {
  input.onchange = () => { open(input.files[0]); input.value = ""; };
}
$("prompt").oninput = () => { $("send").disabled = !visual || !$("prompt").value.trim(); };
$("ask").onsubmit = (event) => { event.preventDefault(); ask(); };
$("locked").onclose = () => {
  token = $("token").value.trim();
  sessionStorage.setItem("maskselect-token", token);
  if (token) begin();
};
document.addEventListener("keydown", onKey);
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => /^(image|video)\//.test(one.type));
  if (file) { event.preventDefault(); open(file); }
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  open(event.dataTransfer.files[0]);
});
bindPointer();
begin();
