// The waiting page: shows the messages of the Hub's event stream.
"use strict";
(() => {
  const page = document.getElementById("hpc-waiting");
  const bar = document.getElementById("progress-bar");
  const progress = document.getElementById("hpc-progress");
  const message = document.getElementById("progress-message");
  const log = document.getElementById("progress-log");
  const cancel = document.getElementById("hpc-cancel");
  const progressUrl = page.dataset.progressUrl;
  let over = false;

  function showProgress(percent) {
    progress.setAttribute("aria-valuenow", String(percent));
    bar.style.width = percent + "%";
  }

  // The Hub writes times in its own zone; here is the reader's.
  function localTime(seconds) {
    return new Date(1000 * seconds).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  }

  function showJob(job) {
    const told = job.starts_at ? { ...job, starts: localTime(job.starts_at) } : job;
    for (const [key, value] of Object.entries(told)) {
      const cell = page.querySelector(`[data-hpc="${key}"]`);
      const row = page.querySelector(`[data-hpc-row="${key}"]`);
      if (cell && row) {
        cell.textContent = value;
        row.hidden = !value;
      }
    }
  }

  function showMessage(text) {
    if (!text || message.textContent === text) return;
    message.textContent = text;
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
      if (event.job) showJob(event.job);
      showMessage(event.message);
      if ((event.ready || event.failed) && !over) {
        over = true;
        source.close();
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

  cancel.hidden = false;
  cancel.addEventListener("click", async () => {
    cancel.disabled = true;
    cancel.textContent = "Cancelling…";
    over = true;
    const url = new URL(page.dataset.serverUrl, window.location.href);
    url.searchParams.set("_xsrf", new URL(progressUrl, window.location.href).searchParams.get("_xsrf") || "");
    const why = await fetch(url, { method: "DELETE" }).then(
      (answer) => (answer.ok ? "" : `HTTP ${answer.status}`),
      () => "the Hub is not answering",
    );
    if (!why) {
      window.location.href = page.dataset.homeUrl;
      return;
    }
    over = false;
    cancel.disabled = false;
    cancel.textContent = "Cancel";
    showMessage(`Cancelling failed (${why}). Please try again.`);
  });

  listen();
})();
