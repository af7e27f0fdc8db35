"""Virtual machines: which accelerator works, what a guest is made of, how to get into it, starting and stopping it."""

from factory.vm.accel import accelerator, probe_kvm

__all__ = ["accelerator", "probe_kvm"]
