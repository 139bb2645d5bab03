// The form: limits follow the choice of partition, and what is free is kept up to date.
// What counts is the gate's judgement on the Hub; this only says earlier what it would say.
import { checking, ownEnvironments } from "./own.js";
import { mebibytesOf, secondsOf } from "./units.js";
import { filled } from "./words.js";

const options = document.getElementById("hpc-options");
const form = document.getElementById("spawn_form");
const asks = form?.dataset.hpcAsks;
const words = JSON.parse(options?.dataset.hpcWords ?? "{}");
const say = (name, values = {}) => filled(words[name], values);
if (options && form) begin(JSON.parse(options.dataset.hpcOffer));

function begin(offer) {
  const fields = ["walltime", "nodes", "cpus", "memory", "gpus", "gpu_type", "account", "qos", "features"];
  // What the scheduler's accounting lets this user choose; null where that is not known.
  const mine = JSON.parse(options.dataset.hpcMine ?? "null");
  const partition = form.elements.partition;
  const answer = document.getElementById("hpc-answer");
  // What the page said before a choice changed it.
  const helps = new Map(fields.map((name) => [name, helpOf(name)?.textContent ?? ""]));

  const here = () => offer.partitions[partition.value];
  const control = (name) => form.elements[name];
  const controls = (name) => [...form.querySelectorAll(`[name="${name}"]`)];

  function follow() {
    const place = here();
    for (const name of fields) limit(name, place);
    for (const row of document.querySelectorAll("[data-hpc-free]")) {
      row.classList.toggle("hpc-chosen", row.dataset.hpcFree === partition.value);
    }
    check();
  }

  function limit(name, place) {
    const found = controls(name);
    if (!found.length) return;
    const why = place ? missing(name, place) : "";
    for (const one of found) {
      one.disabled = Boolean(why) || (one.type === "checkbox" && place && !place.features.names.includes(one.value));
    }
    const help = helpOf(name);
    if (help) help.textContent = why || helpFor(name, place) || helps.get(name);
    if (place && found[0].tagName === "SELECT") list(found[0], name, place);
    if (place && !why && Array.isArray(place[name]) && found[0].tagName === "INPUT") {
      found[0].placeholder = String(place[name][2]);
    }
  }

  // Why this partition does not take an option; empty where it does.
  function missing(name, place) {
    if (place.whole && (name === "cpus" || name === "memory")) return say("whole", { partition: place.label });
    if ((name === "gpus" || name === "gpu_type") && !place.gpus) return say("no_gpus", { partition: place.label });
    if (name === "gpu_type" && !place.gpu_type.names.length) return say("no_types", { partition: place.label });
    if (name === "qos" && !place.qos.names.length) return say("no_qos", { partition: place.label });
    if (name === "nodes" && place.nodes[1] === 1) return say("one_node", { partition: place.label });
    return "";
  }

  function helpFor(name, place) {
    if (!place || !Array.isArray(place[name])) return "";
    if (name === "walltime") return say("walltime_up_to", { most: place.walltime[1], partition: place.label });
    if (name === "memory") {
      return place.memory[1]
        ? say("memory_up_to", { most: place.memory[1], partition: place.label })
        : helps.get(name);
    }
    const [low, high] = countsOf(name, place);
    return say(low === high ? "only" : "from_to", { count: low, low, high, partition: place.label });
  }

  function countsOf(name, place) {
    const [low, high] = place[name];
    const kind = control("gpu_type")?.value;
    return [low, name === "gpus" && kind && place.gpus_of[kind] ? place.gpus_of[kind] : high];
  }

  // What a list offers here; the rest stays in it, disabled, so that nobody wonders where it went.
  function list(select, name, place) {
    const offered = place[name];
    if (!offered || !offered.names || (offered.typed && !mine)) return;
    for (const option of select.options) {
      const isOffered = offered.typed || offered.names.includes(option.value);
      option.disabled = option.value !== "" && (!isOffered || !mayUse(name, option.value));
    }
    if (select.selectedOptions[0]?.disabled) {
      const other = [...select.options].find((option) => !option.disabled);
      if (other) select.value = other.value;
    }
  }

  // Whether the accounting lets this user have it; the partition and the account count as they are chosen.
  function mayUse(name, value) {
    if (!mine || (name !== "account" && name !== "qos")) return true;
    const account = name === "account" ? value : control("account")?.value || mine.default;
    const places = mine.accounts[account.toLowerCase()];
    if (name === "account") return Boolean(places && ("" in places || partition.value in places));
    const qos = places?.[partition.value] ?? places?.[""] ?? [];
    return !qos.length || qos.includes(value.toLowerCase());
  }

  function problemOf(name, place) {
    const one = control(name);
    const text = one && one.tagName === "INPUT" && !one.disabled ? one.value.trim() : "";
    if (!text || !Array.isArray(place[name])) return "";
    const label = form.querySelector(`label[for="${one.id}"]`).textContent.trim();
    if (name === "walltime" || name === "memory") {
      const size = name === "walltime" ? secondsOf(text) : mebibytesOf(text);
      const [most, written] = place[name];
      if (size === null) return say(`write_${name}`, { option: label });
      return most !== null && size > most ? say("at_most", { option: label, asked: text, most: written }) : "";
    }
    const [low, high] = countsOf(name, place);
    if (!/^[0-9]{1,7}$/.test(text)) return say("whole_number", { option: label });
    return Number(text) < low || Number(text) > high
      ? say(low === high ? "allowed_only" : "allowed", { option: label, asked: text, count: low, low, high })
      : "";
  }

  function check() {
    const place = here();
    const wrong = [];
    for (const name of ["walltime", "nodes", "cpus", "memory", "gpus"]) {
      const why = place ? problemOf(name, place) : "";
      mark(name, why);
      if (why) wrong.push(control(name));
    }
    return wrong;
  }

  function mark(name, why) {
    const one = control(name);
    if (!one || one.tagName !== "INPUT") return;
    const id = `hpc-${name}-error`;
    let note = document.getElementById(id);
    // What the Hub has said stays until the value changes.
    if (!why && note && !note.dataset.hpcEarly) return;
    one.classList.toggle("is-invalid", Boolean(why));
    one.setAttribute("aria-invalid", String(Boolean(why)));
    if (!why) {
      note?.remove();
      return;
    }
    if (!note) {
      note = document.createElement("div");
      note.id = id;
      note.className = "invalid-feedback d-block";
      one.after(note);
      one.setAttribute("aria-describedby", `${one.getAttribute("aria-describedby") ?? ""} ${id}`.trim());
    }
    note.dataset.hpcEarly = "true";
    note.textContent = why;
  }

  form.addEventListener("change", follow);
  form.addEventListener("input", (event) => {
    const note = document.getElementById(`hpc-${event.target.name}-error`);
    if (note && !note.dataset.hpcEarly) {
      note.remove();
      event.target.classList.remove("is-invalid");
    }
    answer.textContent = "";
    check();
  });
  form.addEventListener("submit", (event) => {
    // A card is judged by the Hub alone; the fields do not count then.
    if (["preset", "own_preset", "_delete"].includes(event.submitter?.name)) return;
    const [first] = check();
    if (!first) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    first.focus();
  }, true);

  // Enter in the name of a preset is to save it, not to start a server.
  document.getElementById("hpc-preset-name")?.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    document.getElementById("hpc-save-preset").click();
  });

  picks(control("walltime"));
  answer.before(...[document.getElementById("hpc-script")].filter(Boolean));
  link(document.getElementById("hpc-link"), answer);
  ask("when", document.getElementById("hpc-when"), answer, "hpcEstimate" in options.dataset);
  ask("cost", document.getElementById("hpc-cost"), answer, "hpcCost" in options.dataset);
  // Asked as the user who is logged in, so not where somebody starts another one's server.
  if (asks && "hpcLook" in options.dataset && "hpcOwn" in form.dataset) {
    checking(form, say, `${asks}check?_xsrf=${encodeURIComponent(new URL(form.action).searchParams.get("_xsrf") ?? "")}`);
    ownEnvironments(control("environment"), say, `${asks}environments?cluster=${encodeURIComponent(options.dataset.hpcCluster)}`);
  }
  follow();
  keepUpToDate(asks && `${asks}facts?cluster=${encodeURIComponent(options.dataset.hpcCluster)}`);

  // Common wall times, for one click.
  function picks(input) {
    if (!input?.list) return;
    const row = document.createElement("div");
    row.className = "hpc-picks";
    for (const { value } of input.list.options) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "btn btn-outline-secondary btn-sm py-0";
      button.textContent = value;
      button.dataset.hpcSeconds = String(secondsOf(value));
      button.setAttribute("aria-label", say("pick", { walltime: value }));
      button.addEventListener("click", () => {
        input.value = value;
        input.dispatchEvent(new Event("input", { bubbles: true }));
        input.dispatchEvent(new Event("change", { bubbles: true }));
      });
      row.append(button);
    }
    input.after(row);
    const show = () => {
      const most = here()?.walltime?.[0] ?? Infinity;
      for (const button of row.children) button.hidden = Number(button.dataset.hpcSeconds) > most;
    };
    form.addEventListener("change", show);
    show();
  }
}

function helpOf(name) {
  return document.getElementById(`hpc-${name}-help`);
}

// Every choice that is not empty, as a link that fills the form and starts nothing.
function link(button, answer) {
  if (!button || !navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const url = new URL(window.location.href);
    url.search = "";
    for (const [name, value] of new FormData(form)) {
      if (!name.startsWith("_") && value !== "") url.searchParams.append(name, value);
    }
    await navigator.clipboard.writeText(url.href).then(
      () => (answer.textContent = say("copied")),
      () => (answer.textContent = url.href),
    );
  });
}

// A question about the request as it stands: when it could start, what it costs.
function ask(question, button, answer, known) {
  // Asked as the user who is logged in, so not where somebody starts another one's server.
  if (!button || !asks || !known || !("hpcOwn" in form.dataset)) return;
  const xsrf = new URL(form.action).searchParams.get("_xsrf") ?? "";
  const url = `${asks}${question}?_xsrf=${encodeURIComponent(xsrf)}`;
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    answer.textContent = say("asking");
    const reply = await fetch(url, { method: "POST", body: new FormData(form) }).then(
      (got) => got.json().catch(() => ({})),
      () => ({}),
    );
    button.disabled = false;
    answer.textContent = reply.message ?? say("no_answer");
  });
}

function keepUpToDate(url) {
  const table = document.getElementById("hpc-free");
  if (!url || !table) return;
  async function ask() {
    if (document.hidden) return;
    const free = await fetch(url).then(
      (got) => (got.ok ? got.json() : null),
      () => null,
    );
    if (free) show(free);
  }
  function show(free) {
    table.querySelector("[data-hpc-as-of]").textContent = free.age;
    const unknown = table.querySelector("[data-hpc-unknown]");
    unknown.textContent = free.unknown;
    unknown.hidden = !unknown.textContent;
    for (const row of table.querySelectorAll("[data-hpc-free]")) {
      const now = free.partitions[row.dataset.hpcFree];
      if (!now) continue;
      row.querySelector("[data-hpc-closed]").hidden = now.open;
      for (const cell of row.querySelectorAll("[data-hpc-now]")) cell.textContent = now[cell.dataset.hpcNow] || "?";
    }
  }
  ask();
  setInterval(ask, 30_000);
}
