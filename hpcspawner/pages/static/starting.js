// The form: once it is sent, its button says so and can't be pressed again.
"use strict";
(() => {
  const form = document.getElementById("spawn_form");
  const button = form.querySelector("[type=submit]");
  const text = button.textContent;

  function show(sent) {
    button.disabled = sent;
    button.textContent = sent ? "Starting…" : text;
    form.setAttribute("aria-busy", String(sent));
  }

  form.addEventListener("submit", () => show(true));
  // A browser that goes back may show the page as it was left.
  window.addEventListener("pageshow", () => show(false));
})();
