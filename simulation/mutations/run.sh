#!/usr/bin/env bash
# The proof that the proof works: breaks the product on purpose, one patch at a time, and says after how many seeds the simulation
# noticed, and by which property.
#
#   simulation/mutations/run.sh              every patch in this directory
#   simulation/mutations/run.sh NAME...      some of them
#
# Works in a copy of the last commit below target/mutations. A patch that no longer applies or builds is a failure, too.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
tree=$root/target/mutations/tree
export CARGO_TARGET_DIR=$root/target/mutations/build
seeds=${SEEDS:-1..201}

rm -rf "$tree"
mkdir -p "$(dirname "$tree")"
git clone --quiet "$root" "$tree"
cd "$tree"

missed=0
for patch in "${@:-$here/*.patch}"; do
  for file in $patch; do
    [ -f "$file" ] || file=$here/$file.patch
    name=$(basename "$file" .patch)
    if ! git apply "$file"; then
      printf '%-28s does not apply\n' "$name"
      missed=1
      continue
    fi
    if ! cargo build -p simulation --profile mutation --quiet 2>"$tree.log"; then
      printf '%-28s does not build\n' "$name"
      missed=1
    else
      output=$("$CARGO_TARGET_DIR/mutation/simulation" --seeds "$seeds" --until-failure)
      if violation=$(grep -m1 -E '^[A-Z]+: ' <<<"$output"); then
        runs=$(grep -oE '^[0-9]+ seeds' <<<"$output")
        printf '%-28s caught within %s by %s\n' "$name" "$runs" "${violation:0:150}"
      else
        printf '%-28s NOT caught by seeds %s\n' "$name" "$seeds"
        missed=1
      fi
    fi
    git checkout --quiet .
  done
done
exit $missed
