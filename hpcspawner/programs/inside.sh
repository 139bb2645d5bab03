#!/bin/sh
# Runs inside a container image: looks for the programs and becomes the server, in the one process that has entered it.
# What it finds goes into the file "inside" beside it, for the launcher: "command", "alone" or "missing NAME".
#
#   sh inside.sh COUNT PROGRAM... COUNT ALONE... COMMAND...
#
# The programs must be there for COMMAND to run. Where the first of them is not, ALONE runs, if it is there: a server
# that knows nothing of a Hub and listens as the folder "alone" says.
here=${0%/*}

found() {
  printf '%s\n' "$*" >"$here/inside.new" && mv "$here/inside.new" "$here/inside"
}

first=$2 missing='' count=$1
shift
while [ "$count" -gt 0 ]; do
  # An image's shell may be any.
  if [ -z "$missing" ] && ! command -v "$1" >/dev/null 2>&1; then missing=$1; fi
  shift
  count=$((count - 1))
done

count=$1
shift
if [ "$missing" = "$first" ] && [ "$count" -gt 0 ] && command -v "$1" >/dev/null 2>&1; then
  # Of all words that are left, the first COUNT alone.
  left=$# first=1
  while [ "$left" -gt 0 ]; do
    if [ "$first" -le "$count" ]; then set -- "$@" "$1"; fi
    shift
    left=$((left - 1)) first=$((first + 1))
  done
  # The Hub's secrets are for the proxy in front, which has them outside.
  for name in $(env | sed -n 's/^\(JUPYTERHUB_[A-Za-z0-9_]*\|JPY_API_TOKEN\)=.*/\1/p'); do unset "$name"; done
  export JUPYTER_CONFIG_PATH="$here/alone${JUPYTER_CONFIG_PATH:+:$JUPYTER_CONFIG_PATH}"
  found alone
  exec "$@"
fi
shift "$count"
if [ -n "$missing" ]; then
  found "missing $missing"
  exit 127
fi
found command
exec "$@"
