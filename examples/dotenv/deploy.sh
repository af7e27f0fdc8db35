#!/usr/bin/env bash
# Write image.env, then read it. The old one stays where the new answer is a refusal.
set -euo pipefail

factory -C ../factory resolve web --frozen --channel prod --policy policy.toml --seen seen.json --env > image.env.new
mv image.env.new image.env

# shellcheck source=/dev/null
source image.env
echo "launching $FACTORY_IMAGE_REFERENCE ($FACTORY_IMAGE_DIGEST, signed by $FACTORY_IMAGE_SIGNERS)"
