#!/usr/bin/env bash
# The end-to-end tests of users' clients against `tollgate dev`. Arguments go to pytest (a file, -k WORDS, -x).
#
#   CARGO=cargo           how the debug binary is built
#   TOLLGATE=path         a binary to test instead of building one
#   PYTHON=python3        a Python of at least 3.10
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
venv=$target/sdk-venv

# As a user would: kubectl is how the resources get in.
if ! command -v kubectl >/dev/null; then
  apt-get update -q >/dev/null
  apt-get install -y -q kubernetes-client >/dev/null
fi

# The clients, installed anew only when their list changes.
wanted=$(sha256sum <"$here/requirements.txt")
if [ "$(cat "$venv/installed" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$venv"
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
  echo "$wanted" >"$venv/installed"
fi

if [ -z "${TOLLGATE:-}" ]; then
  (cd "$root" && "${CARGO:-cargo}" build --quiet -p tollgate --bin tollgate)
  TOLLGATE=$target/debug/tollgate
fi
export TOLLGATE
export PYTHONPYCACHEPREFIX=$target/sdk-pycache
# Clients of this machine's user must not leak into the stories.
unset OPENAI_API_KEY OPENAI_BASE_URL ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN ANTHROPIC_BASE_URL KUBECONFIG
export LANGSMITH_TRACING=false
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

cd "$here"
exec timeout --kill-after=10 900 "$venv/bin/python" -m pytest --rootdir "$here" "$@"
