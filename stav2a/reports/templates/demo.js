// The page of `stav2a demo`: a film is sent when it is dropped, a job when its form is, and its steps are asked for.
"use strict";

const $ = id => document.getElementById(id);
const ASK_MS = 300;
const videos = {}; // token of the film that each form holds
const jobs = {}; // token of the job that each form waits for

async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("The program in the terminal does not answer.");
  }
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

const post = (address, body) =>
  ask(address, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});

function trouble(id, words) {
  $(id).textContent = words;
  $(id).hidden = !words;
}

// ---- tabs

const tabs = [...document.querySelectorAll("[role=tab]")];

function select(chosen) {
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", String(tab === chosen));
    tab.tabIndex = tab === chosen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  }
  for (const player of document.querySelectorAll("video")) player.pause();
}

for (const tab of tabs) {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", event => {
    const move = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!move) return;
    const next = tabs[(tabs.indexOf(tab) + move + tabs.length) % tabs.length];
    select(next);
    next.focus();
  });
}

// ---- films that are given

async function take(form, title, asked) {
  const name = $(`${form}-name`), preview = $(`${form}-preview`);
  trouble(`${form}-trouble`, "");
  preview.hidden = true;
  preview.removeAttribute("src");
  delete videos[form];
  refresh(form);
  name.textContent = `${title}: being read …`;
  let found = null;
  try {
    found = await asked();
    videos[form] = found.video;
    name.textContent = `${title}, ${found.seconds.toFixed(1)} s`;
    preview.src = `/uploads/${found.video}`;
    preview.hidden = false;
  } catch (error) {
    name.textContent = "Give another video.";
    trouble(`${form}-trouble`, error.message);
  }
  refresh(form);
  return found;
}

const give = (form, file) => take(form, file.name, () => ask(`/uploads?name=${encodeURIComponent(file.name)}`, {
  method: "POST", headers: {"Content-Type": "application/octet-stream"}, body: file,
}));

const captions = {}; // of the example that each form was given last

async function show(form, label) {
  const found = await take(form, label, () => post(`/examples/${label}`, {}));
  const prompt = $(form === "sound" ? "prompt" : "blind-prompt");
  if (!found || ![captions[form] ?? "", ""].includes(prompt.value)) return; // what somebody wrote stays
  captions[form] = prompt.value = found.caption;
}

for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => show(button.dataset.form, button.dataset.example));
}

const refresh = form => { $(`${form}-go`).disabled = !videos[form] || form in jobs; };

function takes(form) {
  const drop = $(`${form}-drop`), file = $(`${form}-file`);
  file.addEventListener("change", () => {
    if (file.files.length) give(form, file.files[0]);
    file.value = ""; // so that the same file can be given again
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, event => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) give(form, event.dataTransfer.files[0]);
    });
  }
}

// ---- jobs

async function generate(form, body) {
  jobs[form] = null;
  trouble(`${form}-error`, "");
  $(`${form}-films`).replaceChildren();
  $(`${form}-none`).hidden = true;
  $(`${form}-progress`).hidden = false;
  refresh(form);
  let state = null;
  try {
    draw(form, {done: 0, steps: 1});
    jobs[form] = (await post("/jobs", {video: videos[form], ...body})).job;
    do {
      await new Promise(wake => setTimeout(wake, ASK_MS));
      state = await ask(`/jobs/${jobs[form]}`);
      draw(form, state);
    } while (!state.error && !state.films.length);
    if (state.error) throw new Error(state.error);
  } catch (error) {
    trouble(`${form}-error`, error.message);
    state = null;
  }
  const token = jobs[form];
  delete jobs[form];
  $(`${form}-progress`).hidden = true;
  refresh(form);
  return state && {token, ...state};
}

function draw(form, {done, steps}) {
  $(`${form}-bar`).max = steps;
  $(`${form}-bar`).value = done;
  $(`${form}-step`).textContent = done ? `Step ${done} of ${steps}` : "Reading the video …";
}

function film(heading, each) {
  const tile = document.createElement("div"), title = document.createElement("h3");
  const player = document.createElement("video");
  title.textContent = heading;
  Object.assign(player, {src: each.film, controls: true, playsInline: true});
  player.setAttribute("aria-label", heading);
  player.addEventListener("play", () => {
    for (const other of document.querySelectorAll("video")) if (other !== player) other.pause();
  });
  tile.append(title, player);
  for (const remark of each.remarks) {
    const line = document.createElement("p");
    line.className = "legend";
    line.textContent = remark;
    tile.append(line);
  }
  return tile;
}

function links(each) {
  const row = document.createElement("div");
  row.className = "links";
  for (const [words, address] of [["Save mp4", each.film], ["Save wav", each.wav]]) {
    const link = document.createElement("a");
    Object.assign(link, {className: "button", href: `${address}?download`, download: "", textContent: words});
    row.append(link);
  }
  return row;
}

for (const form of ["sound", "blind"]) {
  if (!$(form)) continue;
  takes(form);
  $(`${form}-stop`).addEventListener("click", () => {
    if (jobs[form]) post(`/jobs/${jobs[form]}`, {stop: true}).catch(error => trouble(`${form}-error`, error.message));
  });
}

// ---- the first tab

const number = id => $(id).value === "" ? null : Number($(id).value);

function settings() {
  const {steps, guidance, two} = $("models").selectedOptions[0].dataset;
  $("num_inference_steps").value = steps;
  $("guidance_scale").value = guidance;
  $("video_guidance_scale").value = "";
  $("video-guidance").hidden = !two;
}

function levels() {
  $("mixing").hidden = !$("mix").checked;
  for (const id of ["own_gain_db", "duck_db"]) $(`${id}-value`).textContent = $(id).value;
}

$("models").addEventListener("change", settings);
for (const id of ["mix", "own_gain_db", "duck_db"]) $(id).addEventListener("input", levels);
settings();
levels();

$("sound-form").addEventListener("submit", async event => {
  event.preventDefault();
  const numbers = ["num_inference_steps", "guidance_scale", "video_guidance_scale", "seed", "variants"];
  const made = await generate("sound", {
    models: [$("models").value],
    prompt: $("prompt").value,
    negative_prompt: $("negative_prompt").value,
    ...Object.fromEntries(numbers.map(id => [id, number(id)])),
    ...($("mix").checked ? {own_gain_db: number("own_gain_db"), duck_db: number("duck_db")} : {}),
  });
  if (!made) return;
  $("sound-films").replaceChildren(...made.films.map(each => {
    const tile = film(`Seed ${each.seed}`, each);
    tile.append(links(each));
    return tile;
  }));
});

// ---- the blind comparison

if ($("blind")) {
  const tally = new Map();
  let compared = null;

  $("blind-form").addEventListener("submit", async event => {
    event.preventDefault();
    $("blind-choice").hidden = true;
    $("blind-told").textContent = "";
    compared = await generate("blind", {
      blind: true,
      models: [$("blind-model-0").value, $("blind-model-1").value],
      prompt: $("blind-prompt").value,
      seed: number("blind-seed"),
    });
    if (!compared) return;
    $("blind-films").replaceChildren(...compared.films.map((each, index) => film("AB"[index], each)));
    $("blind-choice").hidden = false;
  });

  for (const button of document.querySelectorAll("[data-choice]")) {
    button.addEventListener("click", async () => {
      try {
        const told = await post(`/jobs/${compared.token}`, {choice: button.dataset.choice});
        const [a, b] = told.films.map(each => each.model);
        const liked = {A: a, B: b}[told.choice] ?? "neither";
        tally.set(liked, (tally.get(liked) ?? 0) + 1);
        $("blind-choice").hidden = true;
        $("blind-told").textContent = `A is ${a}, B is ${b}. You chose ${told.choice}.`;
        $("blind-tally").textContent = `Chosen on this page: ${[...tally].map(([name, n]) => `${name} ${n}`).join(", ")}.`;
      } catch (error) {
        trouble("blind-error", error.message);
      }
    });
  }
}
