"""`python -m factory.provision REQUEST.json`: what Packer's provisioner runs. Exits 1 where the playbook failed."""

import sys
from pathlib import Path

from factory.provision.runner import provision

if __name__ == "__main__":
    sys.exit(0 if provision(Path(sys.argv[1])) else 1)
