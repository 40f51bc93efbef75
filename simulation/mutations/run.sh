#!/usr/bin/env bash
# The proof that the proof works: breaks the product on purpose, one patch at a time, and says after how many seeds the simulation
# noticed, and by which property.
#
#   simulation/mutations/run.sh              every patch in this directory
#   simulation/mutations/run.sh NAME...      some of them
# A patch that says `Aim: ledger` is run by plans that are aimed at the ledger.
#
# Works in a copy of the last commit below target/mutations. A patch that no longer applies or builds is a failure, and so is anything that
# is reported without a patch.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
tree=$root/target/mutations/tree
export CARGO_TARGET_DIR=$root/target/mutations/build
seeds=${SEEDS:-1..201}
unbroken=${UNBROKEN:-1..51}

rm -rf "$tree"
mkdir -p "$(dirname "$tree")"
git clone --quiet "$root" "$tree"
cd "$tree"

missed=0

# Builds the tree as it is, and runs seeds with the aim until something is reported. Says what came of it; succeeds if it ran.
report() {
  local aim=$3 output log=$root/target/mutations/$2.log
  if ! cargo build -p simulation --profile mutation --quiet 2>"$log"; then
    echo "does not build: see $log"
    return 1
  fi
  output=$("$CARGO_TARGET_DIR/mutation/simulation" --seeds "$1" --aim "$aim" --until-failure 2>&1)
  local failed=$?
  local violation runs
  violation=$(grep -m1 -E '^[A-Z]+: ' <<<"$output")
  runs=$(grep -oE '^[0-9]+ seeds' <<<"$output")
  if [ $failed = 0 ]; then
    echo "not noticed by seeds $1"
  elif [ -n "$violation" ]; then
    echo "noticed within $runs by ${violation:0:150}"
  else
    echo "failed without a property: ${output:0:300}"
  fi
}

for aim in everything ledger; do
  said=$(report "$unbroken" unbroken "$aim") || missed=1
  printf '%-28s %s\n' "(unbroken, $aim)" "$said"
  [[ $said = not\ noticed* ]] || missed=1
done

for patch in "${@:-$here/*.patch}"; do
  for file in $patch; do
    [ -f "$file" ] || file=$here/$file.patch
    said="does not apply"
    if git apply "$file"; then
      aim=$(sed -n 's/^Aim: //p' "$file")
      said=$(report "$seeds" "$(basename "$file" .patch)" "${aim:-everything}")
    fi
    printf '%-28s %s\n' "$(basename "$file" .patch)" "$said"
    [[ $said = noticed* ]] || missed=1
    git checkout --quiet .
  done
done
exit $missed
