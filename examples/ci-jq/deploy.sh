#!/usr/bin/env bash
# JSON for jq. First the answer, then jq: in a pipe, jq would run on a refusal too.
set -euo pipefail

answer=$(factory -C ../factory resolve web --frozen --channel prod --policy policy.toml --seen seen.json --json)
reference=$(jq -r .reference <<< "$answer")
signers=$(jq -r '.signers | join(", ")' <<< "$answer")

echo "launching $reference, signed by $signers"
