#!/usr/bin/env bash
# Give the answer to the inventory, then run the playbook. The old one stays where the new answer is a refusal.
set -euo pipefail

mkdir -p inventory/group_vars
factory -C ../factory resolve web --frozen --channel prod --policy policy.toml --seen seen.json --ansible \
  > image.yml.new
mv image.yml.new inventory/group_vars/all.yml
ansible-playbook -i inventory playbook.yml
