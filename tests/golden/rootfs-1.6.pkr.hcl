packer {
  required_version = ">= 1.6.6"
}

source "null" "image" {
  communicator = "none"
}

build {
  sources = ["source.null.image"]

  provisioner "shell-local" {
    inline_shebang = "/bin/sh -e"
    inline         = ["exec python3 -m factory.provision /bake/provision.json"]
  }

  post-processor "manifest" {
    output = "/bake/packer-manifest.json"
  }
}
