"""Virtual machines that share a folder the way others do: QEMU's 9p, and virtiofsd (the C one of QEMU 7.2, without cache).

They boot sbx's own root image with Debian's generic kernel of the same series (the cloud kernel has no 9p), with the
same CPU, memory and accelerator as the sandbox. Kernel and virtiofsd come from the host's apt, unpacked below `folder`,
not installed. Needs root for virtiofsd.
"""
import glob
import lzma
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading

PEERS = ("9p", "virtiofsd")

INIT = r"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mount -t proc proc /root/proc
/bin/busybox mount -t sysfs sys /root/sys
/bin/busybox mount -t devtmpfs dev /root/dev
/bin/busybox mount -t tmpfs tmp /root/tmp
/bin/busybox mkdir -p /root/mnt/share
/bin/busybox mount -t @TYPE@ @OPTIONS@ share /root/mnt/share
HOME=/root PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LC_ALL=C.UTF-8 \
  /bin/busybox chroot /root /bin/sh /mnt/share/run 2>/dev/console
/bin/busybox sync
/bin/busybox poweroff -f
"""


def newest(lines):
    ordered = sorted(lines, key=lambda version: [int(n) for n in re.findall(r"\d+", version)])
    return ordered[-1] if ordered else None


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def fetch(folder):
    """Kernel and virtiofsd below folder/unpacked; what is there already stays."""
    unpacked = os.path.join(folder, "unpacked")
    if os.path.exists(f"{unpacked}/complete"):
        return unpacked
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    kernels = set(re.findall(r"linux-image-6\.[0-9.+a-z-]*-amd64", output("apt-cache", "show", "linux-image-amd64")))
    versions = [line.split("|")[1].strip() for line in output("apt-cache", "madison", "qemu-system-common").splitlines()]
    qemu = newest({version for version in versions if version.startswith("1:7.2")})
    if not kernels or not qemu:
        raise RuntimeError("apt has no generic kernel or no qemu-system-common 7.2 (Debian 12's)")
    subprocess.run(["apt-get", "-qq", "download", newest(kernels), f"qemu-system-common={qemu}"], cwd=folder, check=True)
    for package in glob.glob(f"{folder}/*.deb"):
        subprocess.run(["dpkg", "-x", package, unpacked], check=True)
        os.unlink(package)
    open(f"{unpacked}/complete", "w", encoding="ascii").close()
    return unpacked


def modules_in_order(unpacked, wanted):
    """The files of these modules and of all that they need, what is needed first."""
    files = {}
    for path in glob.glob(f"{unpacked}/lib/modules/*/kernel/**/*.ko*", recursive=True):
        files[os.path.basename(path).split(".")[0].replace("-", "_")] = path
    order = []

    def add(name):
        path = files.get(name)
        if path is None or path in order:  # built in
            return
        with (lzma.open if path.endswith(".xz") else open)(path, "rb") as file:
            needs = re.search(rb"\0depends=([^\0]*)", file.read())
        for need in (needs.group(1).decode().split(",") if needs else []):
            add(need.replace("-", "_"))
        order.append(path)

    for name in wanted:
        add(name)
    return order


def make_initramfs(unpacked, target, kind):
    mount = {"9p": ("9p", "-o trans=virtio,version=9p2000.L,msize=524288"), "virtiofsd": ("virtiofs", "")}[kind]
    with tempfile.TemporaryDirectory() as root:
        for name in ("bin", "modules"):
            os.mkdir(f"{root}/{name}")
        shutil.copy("/bin/busybox", f"{root}/bin/busybox")
        order = []
        for path in modules_in_order(unpacked, ["virtio_blk", "crc32c_generic", "ext4", "9pnet_virtio", "9p"]):
            name = os.path.basename(path).removesuffix(".xz")
            with (lzma.open if path.endswith(".xz") else open)(path, "rb") as source, \
                    open(f"{root}/modules/{name}", "wb") as copy:
                shutil.copyfileobj(source, copy)
            order.append(name)
        with open(f"{root}/modules/order", "w", encoding="ascii") as file:
            file.write("\n".join(order))
        with open(f"{root}/init", "w", encoding="ascii") as file:
            file.write(INIT.replace("@TYPE@", mount[0]).replace("@OPTIONS@", mount[1]))
        os.chmod(f"{root}/init", 0o755)
        with open(target, "wb") as archive:
            subprocess.run("find . | cpio -o -H newc --quiet", shell=True, cwd=root, stdout=archive, check=True)


def run(kind, folder, disk, share, accelerator, deadline):
    """Boots, runs `share`/run with the shared folder at /mnt/share, and returns when the machine has switched off."""
    unpacked = fetch(folder)
    with tempfile.TemporaryDirectory(prefix="sbx-bench-peer-") as scratch:
        make_initramfs(unpacked, f"{scratch}/initramfs", kind)
        command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                   "-M", "q35,sata=off,smbus=off,vmport=off,i8042=off,hpet=off,memory-backend=ram",
                   "-object", "memory-backend-memfd,id=ram,size=1024M,share=on", "-m", "1024M", "-smp", "1",
                   "-kernel", glob.glob(f"{unpacked}/boot/vmlinuz-*")[0], "-initrd", f"{scratch}/initramfs",
                   "-append", "console=ttyS0 quiet panic=-1", "-serial", "stdio",
                   "-drive", f"file={disk},format=raw,if=virtio,snapshot=on"]
        command += ["-accel", "kvm", "-cpu", "host"] if accelerator == "kvm" else \
            ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,-la57"]
        helper = None
        if kind == "9p":
            command += ["-fsdev", f"local,id=fs,path={share},security_model=none,multidevs=remap",
                        "-device", "virtio-9p-pci,fsdev=fs,mount_tag=share"]
        else:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(f"{scratch}/socket")
                listener.listen(1)
                helper = subprocess.Popen([f"{unpacked}/usr/lib/qemu/virtiofsd", f"--fd={listener.fileno()}", "-o",
                                           f"source={share}", "-o", "cache=none"], pass_fds=[listener.fileno()],
                                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            command += ["-chardev", f"socket,id=fs,path={scratch}/socket",
                        "-device", "vhost-user-fs-pci,chardev=fs,tag=share"]
        machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")
        watchdog = threading.Timer(deadline, machine.kill)
        watchdog.start()
        try:
            for line in machine.stdout:
                if line.startswith("bench:"):
                    print(f"  {kind}{line.strip().removeprefix('bench')}", file=sys.stderr, flush=True)
            if machine.wait() != 0:
                raise RuntimeError(f"the machine with {kind} failed, or was not done within {deadline} s")
        finally:
            watchdog.cancel()
            for process in (machine, helper):
                if process is not None:
                    process.kill()
                    process.wait()
