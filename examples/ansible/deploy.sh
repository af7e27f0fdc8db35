#!/usr/bin/env bash
# Give the answer to the inventory, then run the playbook.
set -euo pipefail

mkdir -p inventory/group_vars
factory -C ../factory resolve web --frozen --channel prod --policy policy.toml --seen seen.json --ansible \
  > inventory/group_vars/all.yml
ansible-playbook -i inventory playbook.yml
