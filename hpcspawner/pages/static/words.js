// Sentences come from the page, in the reader's language; values go where {…} stands.
export function filled(sentence = "", values = {}) {
  return sentence.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}
