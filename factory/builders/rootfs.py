"""The default builder: provisions a tree at native speed, without KVM and without a machine.

One process tree: namespaces > tree_env (mounts) > Packer (null source) > the provisioner > Ansible, by chroot. It all
vanishes with its first process.
"""

from __future__ import annotations

from pathlib import Path

from factory import namespace, packer
from factory.builders import BuildJob, Provisioned, packer_build, tree_env
from factory.disk import work
from factory.provision import Connection, read_tasks


class RootfsBuilder:
    """Provisions the unpacked tree of the parent."""

    name = "rootfs"

    def provision(self, job: BuildJob) -> Provisioned:
        """Unpack the parent's tree, provision it, leave it unsealed in the work folder."""
        version = packer.installed_version()
        tree = job.work / "tree"
        request_path, request = packer_build.write_provision_request(job, Connection("tree", path=str(tree)))
        template = packer_build.render_template(job, request_path, version)
        namespace.remove(tree)
        work.unpack(job.parent.tree, tree, job.parent.tree_digest)
        enter = job.work / "tree-env.json"
        tree_env.write_request(enter, _tree_request(job, tree, template))
        result = packer_build.run_packer(job, tree_env.command(enter), request)
        return Provisioned(tree, tuple(read_tasks(job.work)), result.via)


def _tree_request(job: BuildJob, tree: Path, template: Path) -> tree_env.TreeRequest:
    return tree_env.TreeRequest(
        tree=str(tree),
        hostname=job.image.name,
        command=packer.build_command(template),
        env=packer.settings(job.work),
        files=job.lent_files("127.0.0.1"),
    )


BUILDER = RootfsBuilder()
