// Loaded into configurable-http-proxy: a server's name holds its node, j<nonce>.<node>.hpcspawner.internal.
// The same rule as in names.py. The certificate is still checked against the whole name.
"use strict";

const dns = require("dns");

const ZONE = ".hpcspawner.internal";
const IPV6 = "v6.";
const lookup = dns.lookup;

function nodeBehind(host) {
  if (typeof host !== "string" || !host.toLowerCase().endsWith(ZONE)) {
    return host;
  }
  const name = host.slice(0, -ZONE.length);
  const node = name.slice(name.indexOf(".") + 1);
  return node.startsWith(IPV6) ? node.slice(IPV6.length).replace(/-/g, ":") : node;
}

dns.lookup = function (host, ...rest) {
  return lookup.call(this, nodeBehind(host), ...rest);
};
