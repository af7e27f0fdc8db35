#!/usr/bin/env bash
# Run the disk of the image that prod points at. `set -e` stops here where it is not to be trusted.
set -euo pipefail

disk=$(factory -C ../factory resolve web --frozen --channel prod --policy policy.toml --seen seen.json --check-bytes)

echo "launching $disk"
