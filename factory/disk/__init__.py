"""Disks: seal a provisioned tree, write it as a bootable disk, store it in a format, read it back out of the file.

`work` is what a bake calls; the other modules each own one thing. Nothing here mounts anything or needs real root.
"""
