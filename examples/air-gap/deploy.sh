#!/usr/bin/env bash
# Where there is no network and no factory. policy.toml came here another way than the bundle.
set -euo pipefail

disk=$(factory resolve --bundle bundle --channel prod --policy policy.toml --seen seen.json --check-bytes)

echo "launching $disk"
