#!/usr/bin/env bash
# Beside the factory: all that is needed of the image in prod, its disk too, as a folder to carry over.
set -euo pipefail

factory -C ../factory export web --channel prod --bytes --to bundle
