// The form: once it is sent, its button says so and can't be pressed again.
"use strict";
(() => {
  const words = JSON.parse(document.currentScript.dataset.hpcWords ?? "{}");
  const form = document.getElementById("spawn_form");
  // Another page shows the job script; this one stays as it is.
  const buttons = [...form.querySelectorAll("[type=submit]:not([formtarget])")];
  const start = document.getElementById("hpc-start");
  const texts = buttons.map((button) => button.textContent);

  function show(button) {
    // Enter in a field presses a hidden button; Start shows it.
    const pressed = button?.id === "hpc-enter" ? start : button;
    buttons.forEach((button, index) => {
      button.disabled = Boolean(pressed);
      if (!button.formAction.includes("/presets")) button.textContent = button === pressed ? words.starting : texts[index];
    });
    form.setAttribute("aria-busy", String(Boolean(pressed)));
  }

  // After the browser has read which button it was: one that is disabled is not sent.
  form.addEventListener("submit", (event) => {
    if (!event.defaultPrevented && !event.submitter?.formTarget) setTimeout(() => show(event.submitter ?? buttons.at(-1)), 0);
  });
  // A browser that goes back may show the page as it was left.
  window.addEventListener("pageshow", () => show(null));
})();
