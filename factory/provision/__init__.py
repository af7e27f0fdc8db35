"""Provisioning: one playbook, once, by ansible-runner, in a tree or over ssh.

The bake never calls Ansible itself: Packer does, by running `python -m factory.provision REQUEST.json` as its
provisioner (`__main__`, `runner`). The bake writes the request and reads back the result and the task records
(`records`). Secrets travel in a 0600 file and then in the environment; they are struck from everything written.
"""

from factory.provision.records import (
    Connection,
    ProvisionRequest,
    ProvisionResult,
    TaskRecord,
    command,
    failure,
    read_result,
    read_tasks,
    write_request,
)

__all__ = [
    "Connection",
    "ProvisionRequest",
    "ProvisionResult",
    "TaskRecord",
    "command",
    "failure",
    "read_result",
    "read_tasks",
    "write_request",
]
