# The image `web` as one would bake it with Packer alone: QEMU boots a copy-on-write layer of the finished base, Ansible
# goes in over ssh, the machine is halted, the disk is packed. Written for Packer 1.6.6 and for speed:
#
# - no ssh proxy in between (use_proxy = false), one ed25519 key, pipelining, one kept connection, no facts asked for
# - every write of the guest stays in the host's memory (cache=unsafe), dpkg does not sync, apt goes through the same
#   warm cache that the factory uses
# - the accelerator, the number of cores and the memory are what the factory gives its own guests
# - Packer's own compression (zlib, one thread, a minute) is off; qemu-img packs with zstd on all cores instead
# - Packer first tries ssh when the guest's network is about up: earlier, its first attempt hangs for a minute

variable "accel" {
  type = string
}

variable "apt_conf" {
  type = string
}

variable "cpu" {
  type = string
}

variable "base" {
  type = string
}

variable "boot_wait" {
  type = string
}

variable "credential" {
  type = string
}

variable "efivars" {
  type = string
}

variable "firmware" {
  type = string
}

variable "output" {
  type = string
}

variable "playbook" {
  type = string
}

variable "playbook_vars" {
  type = string # JSON
}

variable "private_key" {
  type = string
}

variable "ssh_port" {
  type = number
}

source "qemu" "web" {
  disk_image           = true
  iso_url              = var.base
  iso_checksum         = "none"
  format               = "qcow2"
  use_backing_file     = true
  disk_size            = "2048M"
  output_directory     = var.output
  vm_name              = "web.qcow2"
  headless             = true
  accelerator          = "none" # chosen below, with its options
  communicator         = "ssh"
  ssh_host             = "127.0.0.1"
  skip_nat_mapping     = true
  ssh_port             = var.ssh_port
  ssh_username         = "root"
  ssh_private_key_file = var.private_key
  ssh_timeout          = "10m"
  boot_wait            = var.boot_wait
  shutdown_command     = "systemctl poweroff --no-block"
  shutdown_timeout     = "5m"

  qemu_img_args {
    create = ["-F", "qcow2"]
  }

  qemuargs = [
    ["-machine", "q35,smm=off,hpet=off,vmport=off"],
    ["-accel", var.accel],
    ["-cpu", var.cpu],
    ["-smp", "2"],
    ["-m", "1024M"],
    ["-drive", "if=pflash,format=raw,unit=0,readonly=on,file=${var.firmware}"],
    ["-drive", "if=pflash,format=raw,unit=1,file=${var.efivars}"],
    ["-drive", "if=virtio,format=qcow2,cache=unsafe,discard=unmap,file=${var.output}/web.qcow2"],
    ["-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:${var.ssh_port}-:22"],
    ["-device", "virtio-net-pci,netdev=net,romfile="],
    ["-device", "virtio-rng-pci"],
    ["-serial", "file:${var.output}.console"],
    ["-smbios", "type=11,path=${var.credential}"],
  ]
}

build {
  sources = ["source.qemu.web"]

  provisioner "file" {
    source      = var.apt_conf
    destination = "/etc/apt/apt.conf.d/99bake"
  }

  provisioner "ansible" {
    playbook_file   = var.playbook
    use_proxy       = false
    user            = "root"
    extra_arguments = ["--extra-vars", var.playbook_vars]
    ansible_env_vars = [
      "ANSIBLE_PIPELINING=True",
      "ANSIBLE_HOST_KEY_CHECKING=False",
      "ANSIBLE_SSH_ARGS=-o ControlMaster=auto -o ControlPersist=60s -o IdentitiesOnly=yes -o UserKnownHostsFile=/dev/null",
      "ANSIBLE_PYTHON_INTERPRETER=/usr/bin/python3",
      "ANSIBLE_NOCOLOR=True",
    ]
  }

  provisioner "shell" {
    execute_command = "/bin/sh -e {{ .Path }}" # nothing can be executed in /tmp of a hardened machine
    inline = [
      "apt-get clean",
      "rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* /etc/apt/apt.conf.d/99bake",
      "truncate -s 0 /etc/machine-id",
      "fstrim /",
      "sync",
    ]
  }

  post-processor "shell-local" {
    inline = [
      "qemu-img convert -O qcow2 -c -o compression_type=zstd -m 16 -W ${var.output}/web.qcow2 ${var.output}/packed.qcow2",
    ]
  }
}
