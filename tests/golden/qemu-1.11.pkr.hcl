packer {
  required_version = ">= 1.6.6"
  required_plugins {
    qemu = {
      version = ">= 1.1.0"
      source  = "github.com/hashicorp/qemu"
    }
  }
}

source "qemu" "image" {
  disk_image       = true
  iso_url          = "/store/parent.qcow2"
  iso_checksum     = "none"
  format           = "qcow2"
  use_backing_file = true
  disk_size        = "2048M"
  output_directory = "/bake/packer-output"
  vm_name          = "disk.qcow2"
  headless         = true
  accelerator      = "tcg"
  qemu_binary      = "/usr/bin/qemu-system-x86_64"
  communicator     = "ssh"
  ssh_host         = "127.0.0.1"
  skip_nat_mapping = true
  ssh_port         = 2222
  ssh_username     = "root"
  ssh_private_key_file = "/bake/keys/id"
  ssh_timeout      = "10m"
  ssh_handshake_attempts = 1000
  boot_wait        = "25s"
  shutdown_command = "sync; systemctl poweroff --no-block"
  shutdown_timeout = "5m"
  qemuargs         = [["-machine", "q35"], ["-smbios", "type=11,path=/bake/$${x}"]]

  qemu_img_args {
    create = ["-F", "qcow2"]
  }
}

build {
  sources = ["source.qemu.image"]

  provisioner "shell-local" {
    inline_shebang = "/bin/sh -e"
    inline         = ["exec python3 -m factory.provision /bake/provision.json"]
  }

  post-processor "manifest" {
    output = "/bake/packer-manifest.json"
  }
}
