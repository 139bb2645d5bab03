// The waiting page: shows the messages of the Hub's event stream.
"use strict";
(() => {
  const words = JSON.parse(document.currentScript.dataset.hpcWords ?? "{}");
  const page = document.getElementById("hpc-waiting");
  const bar = document.getElementById("progress-bar");
  const progress = document.getElementById("hpc-progress");
  const message = document.getElementById("progress-message");
  const log = document.getElementById("progress-log");
  const cancel = document.getElementById("hpc-cancel");
  const progressUrl = page.dataset.progressUrl;
  const steps = document.getElementById("hpc-steps");
  const notify = document.getElementById("hpc-notify");
  const statics = new URL(".", document.currentScript.src).href;
  let over = false;
  let sinceS = 0;

  function showProgress(percent) {
    progress.setAttribute("aria-valuenow", String(percent));
    bar.style.width = percent + "%";
  }

  // The Hub writes times in its own zone; here is the reader's, with the day where that is not today.
  function localTime(seconds) {
    const then = new Date(1000 * seconds);
    const isToday = then.toDateString() === new Date().toDateString();
    return then.toLocaleString([], isToday ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
  }

  function showStep(step) {
    const items = [...steps.children];
    const reached = items.findIndex((item) => item.dataset.hpcKey === step);
    items.forEach((item, place) => {
      item.classList.toggle("hpc-done", place < reached);
      if (place === reached) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
    document.title = `${words[step] ?? words.submitted} · JupyterHub`;
    showIcon(reached > 1 ? "starting" : "waiting");
  }

  // In a tab behind others: a ring while the job waits, filled once it has a node.
  function showIcon(name) {
    const icon = document.querySelector('link[rel="icon"]');
    if (!icon) return;
    icon.type = "image/svg+xml";
    icon.href = `${statics}icon-${name}.svg`;
  }

  // How long it has waited, each half minute; the time itself stays beside it.
  function showWaited() {
    const cell = page.querySelector('[data-hpc="since"]');
    if (!sinceS || !cell.dataset.hpcTime) return;
    const minutes = Math.max(Math.floor((Date.now() / 1000 - sinceS) / 60), 0);
    const hours = Math.floor(minutes / 60);
    const waited = hours ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
    cell.textContent = minutes ? `${cell.dataset.hpcTime} (${waited})` : cell.dataset.hpcTime;
  }

  function showJob(job) {
    if ("since_at" in job) sinceS = job.since_at;
    for (const [key, written] of Object.entries(job)) {
      const value = job[`${key}_at`] ? localTime(job[`${key}_at`]) : written;
      if (key === "since") page.querySelector('[data-hpc="since"]').dataset.hpcTime = value;
      const cell = page.querySelector(`[data-hpc="${key}"]`);
      const row = page.querySelector(`[data-hpc-row="${key}"]`);
      if (cell && row) {
        cell.textContent = value;
        row.hidden = !value;
      }
    }
    showWaited();
  }

  function showMessage(text) {
    if (!text || message.textContent === text) return;
    message.textContent = text;
    // It is said once: the row is for when something else has been said since.
    const why = page.querySelector('[data-hpc="reason"]').textContent;
    page.querySelector('[data-hpc-row="reason"]').hidden = !why || text.includes(why);
    const line = document.createElement("div");
    line.className = "progress-log-event";
    line.textContent = `${new Date().toLocaleTimeString()}  ${text}`;
    log.append(line);
  }

  function listen() {
    const source = new EventSource(progressUrl);
    // Every connection receives all messages from the beginning.
    source.onopen = () => log.replaceChildren();
    source.onmessage = (received) => {
      const event = JSON.parse(received.data);
      if (event.progress !== undefined) showProgress(event.progress);
      if (event.step) showStep(event.step);
      if (event.job) showJob(event.job);
      // Of an end JupyterHub tells in English; the page that follows has it in the reader's language.
      if (!event.failed) showMessage(event.message);
      if ((event.ready || event.failed) && !over) {
        over = true;
        source.close();
        if (event.ready) tell(words.is_ready);
        if (event.failed) tell(words.did_not_start);
        // Either the server, or the page that says why there is none.
        if (event.failed) bar.classList.add("bg-danger");
        window.location.reload();
      }
    };
    source.onerror = () => {
      // The browser gives up for good when the Hub answers with an error, as it does while it restarts.
      if (over || source.readyState !== EventSource.CLOSED) return;
      source.close();
      setTimeout(retry, 2000);
    };
  }

  async function retry() {
    try {
      const answer = await fetch(window.location.href, { method: "HEAD" });
      if (answer.ok || answer.status === 405 || answer.status < 500) window.location.reload();
      else setTimeout(retry, 2000);
    } catch {
      setTimeout(retry, 2000);
    }
  }

  function tell(text) {
    if ("Notification" in window && Notification.permission === "granted" && notify.dataset.hpcOn) {
      new Notification("JupyterHub", { body: text, tag: page.dataset.serverUrl });
    }
  }

  if ("Notification" in window && Notification.permission !== "denied") {
    notify.hidden = false;
    notify.addEventListener("click", async () => {
      const answer = await Notification.requestPermission();
      notify.disabled = true;
      if (answer === "granted") notify.dataset.hpcOn = "true";
      notify.textContent = answer === "granted" ? words.will_notify : words.may_not_notify;
    });
  }

  setInterval(showWaited, 30_000);

  // The start ends now because its user wants it to: the page must not reload in the place of what was asked for.
  document.getElementById("hpc-cancel-form").addEventListener("submit", () => {
    over = true;
  });

  cancel.addEventListener("click", async (event) => {
    event.preventDefault();
    cancel.disabled = true;
    cancel.textContent = words.cancelling;
    over = true;
    const url = new URL(page.dataset.serverUrl, window.location.href);
    url.searchParams.set("_xsrf", new URL(progressUrl, window.location.href).searchParams.get("_xsrf") || "");
    const why = await fetch(url, { method: "DELETE" }).then(
      (answer) => (answer.ok ? "" : `HTTP ${answer.status}`),
      () => words.hub_is_away,
    );
    if (!why) {
      window.location.href = page.dataset.homeUrl;
      return;
    }
    over = false;
    cancel.disabled = false;
    cancel.textContent = words.cancel;
    showMessage(words.cancel_failed.replace("{why}", why));
  });

  listen();
})();
