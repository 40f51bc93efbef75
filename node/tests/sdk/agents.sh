#!/usr/bin/env bash
# The real Claude Code and Codex, from npm, against `tollgate dev`: each gets an answer, and its tokens are counted. They run in a network
# namespace that has loopback and nothing else, so whatever they need is the gateway's. Together they are 650 MB, so this is no part of
# `.ci/test`. Needs npm, curl, iproute2, and root or user namespaces.
#
#   TOLLGATE=path   the binary to test (default: the debug one, which has to be built)
#   AGENTS=dir      where the agents are installed and stay (default: a new folder, removed at the end)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
PROMPT="Say hello in one sentence. Use no tools."

# What runs inside the namespace.
inside() {
  ip link set lo up
  [ "$(ip -o link | wc -l)" = 1 ] || { echo "the namespace has more than loopback"; return 1; }
  "$TOLLGATE" dev --data-dir "$home/data" --nodes 1 >"$home/dev.log" 2>&1 &
  dev=$!
  trap 'kill -INT "$dev" 2>/dev/null; wait "$dev" || true' EXIT
  for _ in $(seq 300); do
    grep -q "Tollgate is ready" "$home/dev.log" && break
    kill -0 "$dev" || { cat "$home/dev.log"; return 1; }
    sleep 0.2
  done
  # shellcheck source=/dev/null
  . "$home/data/dev.env"

  failed=0
  agent "Claude Code" env ANTHROPIC_BASE_URL="$MAAS_URL" ANTHROPIC_AUTH_TOKEN="$AGENT_API_KEY" ANTHROPIC_MODEL="$MODEL_NAME" \
    ANTHROPIC_DEFAULT_HAIKU_MODEL="$MODEL_NAME" CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 \
    "$AGENTS/node_modules/.bin/claude" -p "$PROMPT"
  agent "Codex" "$AGENTS/node_modules/.bin/codex" exec --skip-git-repo-check --sandbox read-only -m "$MODEL_NAME" \
    -c model_provider=tollgate \
    -c "model_providers.tollgate={name=\"Tollgate\", base_url=\"$MAAS_URL/v1\", env_key=\"AGENT_API_KEY\", wire_api=\"responses\"}" \
    "$PROMPT"
  return "$failed"
}

# Tokens of the coding agents' subscription so far.
counted() {
  curl -sS --cacert "$MAAS_ADMIN_CA" -H "Authorization: Bearer $OCP_TOKEN" "$MAAS_ADMIN_URL/metrics" |
    awk '/^authorized_hits_total\{/ && /subscription="coding-agents"/ { sum += $NF } END { printf "%d\n", sum }'
}

# Runs an agent: it has to end well, to say something, and to be charged for it.
agent() {
  local name=$1 before after words code=0
  shift
  before=$(counted)
  (cd "$home/work" && timeout 180 "$@" </dev/null >"$home/answer" 2>"$home/errors") || code=$?
  after=$(counted)
  words=$(wc -w <"$home/answer")
  echo "$name: exit $code, $words words, $((after - before)) tokens counted"
  echo "  $(tr '\n' ' ' <"$home/answer" | cut -c1-150)"
  if [ "$code" != 0 ] || [ "$words" = 0 ] || [ "$after" -le "$before" ]; then
    echo "  FAILED; its errors end:"
    tail -20 "$home/errors" | sed 's/^/    /'
    failed=1
  fi
}

if [ "${1:-}" = inside ]; then
  inside
  exit
fi

home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
mkdir -p "$home/work" "$home/.codex"
AGENTS=${AGENTS:-$home/agents}
TOLLGATE=${TOLLGATE:-${CARGO_TARGET_DIR:-$root/target}/debug/tollgate}
[ -x "$TOLLGATE" ] || { echo "no binary at $TOLLGATE: cargo build, or say where it is with TOLLGATE="; exit 1; }
if [ ! -x "$AGENTS/node_modules/.bin/claude" ] || [ ! -x "$AGENTS/node_modules/.bin/codex" ]; then
  npm install --silent --no-fund --no-audit --prefix "$AGENTS" @anthropic-ai/claude-code @openai/codex
fi
for agent in claude codex; do "$AGENTS/node_modules/.bin/$agent" --version; done
# Nothing of this machine's user gets in.
unshare --net ${EUID:+$([ "$EUID" = 0 ] || echo --map-root-user)} env -i PATH="$PATH" HOME="$home" LANG=C.UTF-8 \
  home="$home" AGENTS="$AGENTS" TOLLGATE="$TOLLGATE" bash "$here/agents.sh" inside
