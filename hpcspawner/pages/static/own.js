// What the Hub finds among the user's own files: environments to pick, and a check of the choice.

async function asked(url, how) {
  return fetch(url, how).then(
    (got) => got.json().catch(() => ({})),
    () => ({}),
  );
}

// A button for each environment that was found fills it in; typing a path goes on working without them.
export async function ownEnvironments(input, say, url) {
  const place = document.getElementById("hpc-own");
  if (!place) return;
  const { environments = [], message = "" } = await asked(url);
  if (!environments.length && !message) return;
  const about = document.createElement("div");
  about.className = "form-text";
  about.textContent = message || say("own");
  place.append(about);
  for (const one of environments) place.append(row(one, input));
  place.hidden = false;
}

function row({ name, note }, input) {
  const line = document.createElement("div");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "btn btn-outline-secondary btn-sm py-0 me-2 text-break";
  button.textContent = name;
  button.addEventListener("click", () => {
    input.value = name;
    input.dispatchEvent(new Event("input", { bubbles: true }));
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
  const words = document.createElement("span");
  words.className = "small text-body-secondary";
  words.textContent = note;
  line.append(button, words);
  return line;
}

// What stands against the choice, before anything is queued.
export function checking(form, say, url) {
  const button = document.getElementById("hpc-check");
  const answer = document.getElementById("hpc-checked");
  if (!button) return;
  button.hidden = false;
  form.addEventListener("input", () => (answer.textContent = ""));
  button.addEventListener("click", async () => {
    button.disabled = true;
    answer.textContent = say("looking");
    const { message } = await asked(url, { method: "POST", body: new FormData(form) });
    button.disabled = false;
    answer.textContent = message ?? say("no_answer");
  });
}
