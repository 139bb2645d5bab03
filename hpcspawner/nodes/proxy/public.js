// Loaded into configurable-http-proxy by hub/https_proxy.py. It concerns the proxy's HTTPS servers alone.
"use strict";

const { Server } = require("https");

const HSTS = "max-age=" + process.env.HPCSPAWNER_HSTS_S;

// Only this proxy knows where a request came from; what the visitor claims about that is dropped. The proxy adds its own
// X-Forwarded-For and -Proto, but JupyterHub believes X-Real-IP and X-Scheme before them.
const CLAIMS = ["forwarded", "x-scheme", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto", "x-forwarded-host"];

function tell(request) {
  for (const name of CLAIMS) delete request.headers[name];
  request.headers["x-real-ip"] = (request.socket.remoteAddress || "").replace(/^::ffff:/, "");
}

// In place of what a notebook may have said, and on the proxy's own errors too.
function keepOnHttps(response) {
  const { writeHead } = response;
  response.writeHead = function (...head) {
    this.setHeader("Strict-Transport-Security", HSTS);
    return writeHead.apply(this, head);
  };
}

const { emit } = Server.prototype;
Server.prototype.emit = function (event, request, response, ...rest) {
  if (event === "request" || event === "upgrade") tell(request);
  if (event === "request") keepOnHttps(response);
  return emit.call(this, event, request, response, ...rest);
};
