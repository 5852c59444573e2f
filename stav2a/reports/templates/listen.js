// The page of a listening test: one video at a time, four scales, each rating sent the moment it is made.
"use strict";

const $ = id => document.getElementById(id);
const scales = [...document.querySelectorAll("[data-scale]")];
const video = $("video");
const END_S = 0.03; // as near to the end as a player comes
const TYPING_MS = 1500; // digits within this time are one number
const RETRY_MS = 1500;

let session = null; // annotator, versions, videos: [{video, seconds, played, ratings}]
let at = 0;
const unsent = new Map(); // what has to reach the server, the newest of each kind
let sending = false;
let waiting = false; // Enter was pressed on the last scale, before the end of the video or of saving
const current = () => session.videos[at];
const done = each => each.played && scales.every(scale => scale.id in each.ratings);

// ---- views

function show(view) {
  for (const id of ["start", "trial", "end"]) $(id).hidden = id !== view;
  scrollTo(0, 0);
}

function trouble(words) {
  $("trouble").textContent = words;
  $("trouble").hidden = !words;
}

function open(index) {
  at = index;
  waiting = false;
  const here = current();
  video.src = `/videos/${here.video}.mp4`;
  for (const scale of scales) draw(scale, here.ratings[scale.id]);
  show("trial");
  refresh();
  $("play").focus({preventScroll: true});
}

function draw(scale, value) {
  const set = value !== undefined;
  scale.value = set ? value : 50;
  scale.classList.toggle("unset", !set);
  scale.setAttribute("aria-valuetext", set ? String(value) : "not set");
  $(`${scale.id}-value`).textContent = set ? value : "–";
}

function refresh() {
  const here = current(), per = session.versions, last = at === session.videos.length - 1;
  const version = per > 1 ? `, version ${at % per + 1} of ${per}` : "";
  $("place").textContent = `Clip ${Math.floor(at / per) + 1} of ${session.videos.length / per}${version}`;
  $("who").textContent = session.annotator;
  $("progress").value = session.videos.filter(done).length;
  $("seek").disabled = !here.played;
  $("back").disabled = at === 0;
  $("next").disabled = !done(here) || unsent.size > 0;
  $("next").textContent = last ? "Finish" : "Next";
  $("status").textContent = wanting(here);
  if (waiting && !$("next").disabled) {
    waiting = false;
    $("next").focus();
  }
  drawTime();
}

function wanting(here) {
  const open = scales.filter(scale => !(scale.id in here.ratings)).map(scale => scale.labels[0].textContent.toLowerCase());
  const rest = open.length === scales.length ? "set all scales" : `set ${open.join(" and ")}`;
  const steps = [...(here.played ? [] : ["play the video to its end"]), ...(open.length ? [rest] : [])];
  if (steps.length) return `To go on, ${steps.join(", and ")}.`;
  return unsent.size ? "Saving …" : "Saved.";
}

// ---- the player: all versions of a clip end at the same time

function drawTime() {
  const {seconds, played} = current(), now = Math.min(video.currentTime, seconds);
  $("seek").value = 1000 * now / seconds;
  $("seek").setAttribute("aria-valuetext", `${now.toFixed(1)} s`);
  $("time").textContent = `${now.toFixed(1)} / ${seconds.toFixed(1)} s`;
  $("play").textContent = !video.paused ? "Pause" : played && now === 0 || now >= seconds - END_S ? "Play again" : "Play";
}

function watch() {
  step();
  if (!video.paused) requestAnimationFrame(watch);
}

function step() {
  if (video.ended || video.currentTime >= current().seconds - END_S) finish();
  else drawTime();
}

function finish() {
  video.pause();
  const here = current();
  if (!here.played) {
    here.played = true;
    send("/played", {video: here.video});
  }
  refresh();
}

function toggle() {
  if (!video.paused) return video.pause();
  if (video.currentTime >= current().seconds - END_S) video.currentTime = 0;
  video.play().catch(error => {
    if (error.name !== "AbortError") trouble(`This video can't be played (${error.message}). Tell whoever runs the test.`);
  });
}

video.addEventListener("play", watch);
video.addEventListener("pause", drawTime);
video.addEventListener("ended", finish);
video.addEventListener("timeupdate", () => video.paused || step()); // a tab in the background draws no frames
video.addEventListener("seeked", drawTime);
video.addEventListener("click", toggle);
video.addEventListener("error", () => trouble("This video can't be played. Load the page again; if that does not help, tell whoever runs the test."));
$("play").addEventListener("click", toggle);
$("seek").addEventListener("input", () => { video.currentTime = $("seek").value / 1000 * current().seconds; });

// ---- ratings

function rate(scale, value) {
  current().ratings[scale.id] = value;
  draw(scale, value);
  send("/rating", {video: current().video, scale: scale.id, value});
  refresh();
}

for (const scale of scales) {
  scale.addEventListener("input", () => draw(scale, Number(scale.value)));
  scale.addEventListener("change", () => rate(scale, Number(scale.value)));
  // a click where the handle happens to be changes nothing, but it is a choice
  scale.addEventListener("click", () => scale.id in current().ratings || rate(scale, Number(scale.value)));
  scale.addEventListener("focus", () => { typed = ""; });
}

function send(address, body) {
  unsent.set([address, body.video, body.scale].join(), [address, {annotator: session.annotator, ...body}]);
  if (!sending) work();
}

async function work() {
  sending = true;
  for (const [key, entry] of unsent) {
    const error = await post(...entry);
    if (error) {
      trouble(error);
      await new Promise(wake => setTimeout(wake, RETRY_MS));
    } else if (unsent.get(key) === entry) unsent.delete(key); // else it was rated again meanwhile
  }
  sending = false;
  if (unsent.size) return work();
  trouble("");
  refresh();
}

async function post(address, body) {
  try {
    const answer = await fetch(address, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
    return answer.ok ? "" : `Not saved yet: ${(await answer.json()).error}`;
  } catch {
    return "Not saved yet: the program in the terminal does not answer. Start it again with the same command; this page goes on by itself.";
  }
}

addEventListener("beforeunload", event => unsent.size && event.preventDefault());

// ---- the way through

function next() {
  if ($("next").disabled) return;
  if (at + 1 < session.videos.length) open(at + 1);
  else finishTest();
}

function finishTest() {
  const missing = session.videos.findIndex(each => !done(each));
  if (missing >= 0) return open(missing);
  video.pause();
  show("end");
  $("end-title").focus();
}

async function begin(name) {
  const answer = await fetch(`/session?annotator=${encodeURIComponent(name)}`).catch(() => null);
  const found = answer && await answer.json().catch(() => null);
  if (!answer?.ok) return trouble(found?.error ?? "The program in the terminal does not answer. Start it again with the same command.");
  trouble("");
  session = found;
  sessionStorage.setItem("annotator", session.annotator);
  finishTest();
}

$("entry").addEventListener("submit", event => {
  event.preventDefault();
  begin($("name").value);
});
$("next").addEventListener("click", next);
$("back").addEventListener("click", () => open(at - 1));
$("review").addEventListener("click", () => open(0));
for (const id of ["another", "leave"]) $(id).addEventListener("click", leave);

function leave() {
  video.pause();
  sessionStorage.removeItem("annotator");
  $("name").value = "";
  show("start");
  $("name").focus();
}

// ---- keys: Space plays, digits rate, Enter goes on; buttons keep their own

let typed = "", stopTyping = 0;

function type(digit) {
  const scale = scales.find(each => each === document.activeElement) ?? scales.find(each => !(each.id in current().ratings)) ?? scales[0];
  if (scale !== document.activeElement) scale.focus();
  const most = Number(scale.max);
  typed = Number(typed + digit) <= most ? typed + digit : digit;
  clearTimeout(stopTyping);
  stopTyping = setTimeout(() => { typed = ""; }, TYPING_MS);
  if (Number(typed) >= Number(scale.min)) rate(scale, Number(typed));
}

function enter() {
  const after = scales.indexOf(document.activeElement) + 1;
  const unset = scales.find(scale => !(scale.id in current().ratings));
  if (after < scales.length) scales[after].focus();
  else if (!$("next").disabled) $("next").focus();
  else if (unset) unset.focus();
  else {
    waiting = true; // for the end of the video and for the last rating to be saved: `refresh` moves on
    if (video.paused && !current().played) $("play").focus();
  }
}

document.addEventListener("keydown", event => {
  if ($("trial").hidden || event.ctrlKey || event.altKey || event.metaKey) return;
  const onButton = event.target instanceof HTMLButtonElement;
  if (event.key === " " && !onButton) toggle();
  else if (/^[0-9]$/.test(event.key)) type(event.key);
  else if (event.key === "Enter" && !onButton) enter();
  else return;
  event.preventDefault();
});

const known = sessionStorage.getItem("annotator");
if (known) begin(known);
