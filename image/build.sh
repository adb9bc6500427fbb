#!/bin/bash
# Builds a root image:  build.sh --out FOLDER --sources FILE [--suite trixie] [--size 20G] [--apt-option LINE]...
#   FOLDER   must exist; receives root.ext4, vmlinux, modules/*.ko and modules.list
#   FILE     apt's one-line sources ("deb [signed-by=...] URI SUITE main")
# Works as root, and as a user with newuidmap and a range in /etc/subuid. Progress: lines "sbx-step: TEXT" on stdout; all
# else is a log. It cleans up its work folder (inside FOLDER); what it leaves in FOLDER when it fails is the caller's.
set -euo pipefail
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

suite=trixie size=20G out='' sources=''
apt_options=()
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2 ;;
    --sources) sources=$2 ;;
    --suite) suite=$2 ;;
    --size) size=$2 ;;
    --apt-option) apt_options+=(--aptopt="$2") ;;
    *) echo "build.sh: unknown option $1" >&2; exit 2 ;;
  esac
  shift 2
done
[ -d "$out" ] && [ -r "$sources" ] || { echo 'build.sh: --out FOLDER and --sources FILE are needed' >&2; exit 2; }
out=$(realpath "$out") sources=$(realpath "$sources")
step() { echo "sbx-step: $*"; }

# Where ownership inside the image is made: root is root; a user is root of a namespace with the uids of /etc/subuid.
if [ "$(id -u)" = 0 ]; then
  mode=root as_root=()
else
  mode=unshare as_root=(unshare --user --map-auto --map-root-user --)
fi

work=$out/work
mkdir -p "$work"
cleanup() { "${as_root[@]}" rm -rf "$work"; }
trap cleanup EXIT

packages=$(sed -e 's/#.*//' "$here/packages.txt" | tr -s ' \n' ',,' | sed -e 's/^,//' -e 's/,$//')

# Runs as a hook with apt's configuration for the new tree ($1): the kernel's files, without its package. Given as text,
# since the uids of a namespace may not be able to reach this folder.
read -r -d '' kernel_hook <<'EOF' || true
set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
root=$1
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
[ -n "$kernel" ] || { echo "linux-image-cloud-amd64 depends on no kernel" >&2; exit 1; }
version=${kernel#linux-image-}
mkdir -p "$root/tmp/kernel" "$root/usr/lib/modules" "$root/sbx-kernel"
cd "$root/tmp/kernel"
apt-get -q -o APT::Sandbox::User=root download "$kernel"
dpkg-deb -x ./*.deb files
modules=files/usr/lib/modules
[ -d "$modules" ] || modules=files/lib/modules
cp -a "$modules/$version" "$root/usr/lib/modules/"
cp files/boot/vmlinuz-* "$root/sbx-kernel/vmlinuz"
echo "$version" >"$root/sbx-kernel/version"
cd /
rm -rf "$root/tmp/kernel"
chroot "$root" depmod "$version"
EOF

step "downloading and unpacking packages ($suite)"
# To a stream, so that the same unpacking works for root and for a user; /dev is the guest kernel's to fill.
mmdebstrap --mode=$mode --variant=minbase --format=tar --components=main \
  --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "3"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/lintian/*' \
  --dpkgopt='force-unsafe-io' "${apt_options[@]}" \
  --customize-hook="$kernel_hook" \
  --include="$packages" "$suite" - - <"$sources" >"$work/root.tar"

step 'preparing the root folder'
mkdir -p "$work/kernel"
"${as_root[@]}" bash -euo pipefail -c '
  work=$1 here=$2
  mkdir "$work/root"
  tar --extract --file "$work/root.tar" --directory "$work/root" --numeric-owner --preserve-permissions \
    --xattrs --xattrs-include="*" --exclude="./dev/*"
  rm "$work/root.tar"
  cp "$work/root/sbx-kernel/"* "$work/kernel/"
  rm -r "$work/root/sbx-kernel"
  sh "$here/customize.sh" "$work/root"
' - "$work" "$here"
version=$(cat "$work/kernel/version")

step "extracting the kernel ($version)"
# Boot protocol (Documentation/arch/x86/boot.rst): setup_sects at 0x1f1, payload_offset at 0x248, payload_length at 0x24c.
# The payload ends in four bytes that hold its size before compression.
number() { od -An "-t$1" -j "$2" -N "$3" "$work/kernel/vmlinuz" | tr -d ' '; }
start=$((($(number u1 497 1) + 1) * 512 + $(number u4 584 4)))
length=$(($(number u4 588 4) - 4))
dd if="$work/kernel/vmlinuz" iflag=skip_bytes,count_bytes skip=$start count=$length bs=1M status=none |
  zstd --decompress --quiet --stdout >"$out/vmlinux"
[ "$(head -c 4 "$out/vmlinux" | tail -c 3)" = ELF ] || { echo 'build.sh: the kernel payload is not a zstd ELF' >&2; exit 1; }

# The modules that the initramfs needs to find its root, dependencies first.
mkdir -p "$out/modules"
tree=$work/root/usr/lib/modules/$version
: >"$out/modules.list"
for name in virtio_blk; do
  line=$(grep "/$name\.ko[^:]*:" "$tree/modules.dep") || continue # built in
  for path in $(tr -d ':' <<<"$line" | tr ' ' '\n' | tac); do
    file=$(basename "$path")
    file=${file%.ko*}.ko
    ! grep -qx "$file" "$out/modules.list" || continue
    case $path in
      *.xz) xz --decompress --stdout "$tree/$path" >"$out/modules/$file" ;;
      *.zst) zstd --decompress --quiet --stdout "$tree/$path" >"$out/modules/$file" ;;
      *) cp "$tree/$path" "$out/modules/$file" ;;
    esac
    echo "$file" >>"$out/modules.list"
  done
done

step "making the file system ($(numfmt --to=iec-i --suffix=B "$(numfmt --from=iec "$size")") virtual)"
# The file is new and therefore zero: without assume_storage_prezeroed the guest's kernel would zero inode tables in the
# background of every sandbox, and their disks would grow.
truncate --size "$size" "$out/root.ext4"
"${as_root[@]}" mke2fs -q -t ext4 -L sbx-root -m 1 -J size=64 \
  -E assume_storage_prezeroed=1,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,nodiscard -d "$work/root" "$out/root.ext4"
echo "$version" >"$out/kernel-version"
chmod 0444 "$out/root.ext4" "$out/vmlinux" "$out"/modules/*
step 'done'
