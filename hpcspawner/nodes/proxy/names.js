// Loaded into configurable-http-proxy: a server's name holds its node, j<nonce>.<node>.hpcspawner.internal.
// The same rule as in server_names.py. The certificate is still checked against the whole name.
"use strict";

const dns = require("dns");
const net = require("net");
const tls = require("tls");

const ZONE = ".hpcspawner.internal";
const IPV6 = /^v6\.([0-9a-f]{4}(?:-[0-9a-f]{4}){7})$/i;
const lookup = dns.lookup;

function nodeBehind(host) {
  if (typeof host !== "string" || !host.toLowerCase().endsWith(ZONE)) {
    return host;
  }
  const node = host.slice(0, -ZONE.length).split(".").slice(1).join(".");
  const address = IPV6.exec(node);
  return address ? address[1].replace(/-/g, ":") : node || host;
}

dns.lookup = function (host, ...rest) {
  return lookup.call(this, nodeBehind(host), ...rest);
};

// The proxy passes the browser's Host on, and Node would then want a certificate for that name. It is the name of the
// server behind the proxy that counts.
const connect = tls.connect;

tls.connect = function (options, ...rest) {
  if (options && options.host) {
    options = { ...options, servername: net.isIP(options.host) ? "" : options.host };
  }
  return connect.call(this, options, ...rest);
};
