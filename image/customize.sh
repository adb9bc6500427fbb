#!/bin/sh
# Makes a bare Debian tree the root of a sandbox. Called by build.sh as (real or namespace) root:  customize.sh ROOT
# Idempotent; touches nothing outside ROOT. No package is installed here, and nothing needs the network.
set -eu
root=$1
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

put() { # put MODE PATH: standard input becomes the file
  mkdir -p "$(dirname "$root$2")"
  rm -f "$root$2"
  cat >"$root$2"
  chmod "$1" "$root$2"
}

# The user that commands run as. The docker group comes with docker.io, sudo with sudo.
if ! grep -q '^agent:' "$root/etc/passwd"; then
  chroot "$root" groupadd --gid 1000 agent
  chroot "$root" useradd --uid 1000 --gid 1000 --groups docker,sudo --create-home --shell /bin/bash agent
fi
put 0440 /etc/sudoers.d/agent <<'EOF'
agent ALL=(ALL:ALL) NOPASSWD:ALL
Defaults:agent !requiretty
Defaults env_keep += "http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY BASH_ENV"
Defaults env_keep += "SSL_CERT_FILE REQUESTS_CA_BUNDLE PIP_CERT GIT_SSL_CAINFO CURL_CA_BUNDLE CARGO_HTTP_CAINFO"
Defaults env_keep += "AWS_CA_BUNDLE CODEX_CA_CERTIFICATE NODE_EXTRA_CA_CERTS DENO_CERT PROXY_CA_CERT_B64"
EOF

# crun starts a container in two thirds of runc's time under software emulation; runc stays selectable (--runtime runc).
# It is looked for in PATH, where sbx-guest stands before it (src/guest/container_runtime.h).
# The userland proxy would be one Go process per published port: netfilter does its work. Docker's own logs are bounded.
put 0644 /etc/docker/daemon.json <<'EOF'
{
  "default-runtime": "crun",
  "runtimes": {"crun": {"path": "crun"}},
  "storage-driver": "overlay2",
  "features": {"containerd-snapshotter": false},
  "userland-proxy": false,
  "log-driver": "json-file",
  "log-opts": {"max-size": "10m", "max-file": "3"},
  "max-concurrent-downloads": 3
}
EOF

# What a session wrote here (export NAME=value) is there in every later shell, interactive or not.
put 0664 /etc/sandbox-persistent.sh <<'EOF'
# Sourced by every bash in this sandbox, interactive or not. Add "export NAME=value" lines to keep them for later commands.
EOF
chroot "$root" chown root:agent /etc/sandbox-persistent.sh
put 0644 /etc/profile.d/sandbox-persistent.sh <<'EOF'
export BASH_ENV=/etc/sandbox-persistent.sh
[ ! -r /etc/sandbox-persistent.sh ] || . /etc/sandbox-persistent.sh
EOF
put 0644 /etc/environment <<'EOF'
LANG=C.UTF-8
BASH_ENV=/etc/sandbox-persistent.sh
EOF
if ! grep -q sandbox-persistent "$root/etc/bash.bashrc"; then
  { echo '[ ! -r /etc/sandbox-persistent.sh ] || . /etc/sandbox-persistent.sh'; cat "$root/etc/bash.bashrc"; } | put 0644 /etc/bash.bashrc
fi

sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$here/modules.txt" | put 0644 /etc/sbx-modules

put 0644 /etc/hostname <<'EOF'
sandbox
EOF
put 0644 /etc/hosts <<'EOF'
127.0.0.1 localhost
127.0.1.1 sandbox
::1 localhost ip6-localhost ip6-loopback
EOF
put 0644 /etc/fstab </dev/null
put 0644 /etc/resolv.conf </dev/null

# Every clone gets its own at its first start.
put 0444 /etc/machine-id </dev/null
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed"

# npm and pip inside a throw-away machine: no update nagging, and pip may write to the system's Python.
put 0644 /etc/npmrc <<'EOF'
update-notifier=false
fund=false
audit=false
EOF
put 0644 /etc/pip.conf <<'EOF'
[global]
break-system-packages = true
disable-pip-version-check = true
EOF
put 0644 /etc/gitconfig <<'EOF'
[safe]
	directory = *
[init]
	defaultBranch = main
[advice]
	detachedHead = false
EOF
# No key enters a sandbox: what is written for ssh goes over https, where the gateway adds the credentials.
for host in github.com gitlab.com bitbucket.org codeberg.org git.sr.ht; do
  printf '[url "https://%s/"]\n\tinsteadOf = git@%s:\n\tinsteadOf = ssh://git@%s/\n' $host $host $host
done >>"$root/etc/gitconfig"

# The archives stay those of the host that built the image, but neither its passwords nor its proxy.
sed -i 's#://[^/@ ]*@#://#' "$root/etc/apt/sources.list"
sed -i '/[Pp]roxy/d' "$root/etc/apt/apt.conf.d/99mmdebstrap"

# Left by the build.
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old \
  "$root"/var/log/* "$root"/tmp/* "$root"/run/* "$root"/usr/sbin/policy-rc.d "$root"/boot/*
mkdir -p "$root/var/log/apt" "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial" "$root/run" "$root/workspace"
rmdir "$root/workspace"
