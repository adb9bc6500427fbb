#!/usr/bin/env python3
"""What a file system does, one line per behaviour: posix_check.py FOLDER

Run on a local file system and on a workspace; lines that differ are what a program could notice. Each line is
"name: outcome", an outcome being a value or the name of an errno. FOLDER must exist and be empty; it is left empty.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import socket
import stat
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, NOREPLACE, EXCHANGE = -100, 1, 2
checks = []


def check(function):
    checks.append(function)
    return function


def attempt(action, *arguments, **named):
    """The value of a call, or its errno's name."""
    try:
        value = action(*arguments, **named)
        return "ok" if value is None else value
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)


def write(path, data=b"data", mode="wb"):
    with open(path, mode) as file:
        file.write(data)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def renameat2(source, target, flags):
    if libc.renameat2(AT_FDCWD, source.encode(), AT_FDCWD, target.encode(), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def in_child(action):
    """What `action` gives in another process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.write(writer, repr(attempt(action)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


@check
def modes():
    write("f")
    yield "default mode", oct(os.stat("f").st_mode)
    for mode in (0o600, 0o755, 0o444, 0o000, 0o1755):
        os.chmod("f", mode)
        yield f"chmod {mode:o}", oct(os.stat("f").st_mode)
    os.chmod("f", 0o444)
    yield "writing a read-only file", attempt(open, "f", "wb") if os.geteuid() else "root"
    os.chmod("f", 0o644)
    old = os.umask(0o027)
    write("g")
    os.mkdir("d")
    os.umask(old)
    yield "umask", (oct(os.stat("g").st_mode), oct(os.stat("d").st_mode))
    os.chmod("d", 0o555)
    yield "creating in a read-only folder", attempt(os.mkdir, "d/x")
    os.chmod("d", 0o755)
    yield "access", (os.access("f", os.R_OK), os.access("f", os.X_OK))


@check
def owners():
    write("f")
    info = os.stat("f")
    yield "owner is me", (info.st_uid == os.geteuid(), info.st_gid == os.getegid())
    yield "chown to myself", attempt(os.chown, "f", os.geteuid(), os.getegid())
    yield "chown -1", attempt(os.chown, "f", -1, -1)
    yield "chown to root", attempt(os.chown, "f", 0, 0)
    yield "chown to another", attempt(os.chown, "f", 4242, -1)
    os.symlink("f", "l")
    yield "lchown to myself", attempt(os.lchown, "l", os.geteuid(), -1)


@check
def links():
    write("f", b"one")
    os.link("f", "hard")
    yield "hard link", (os.stat("f").st_nlink, os.path.samefile("f", "hard"))
    write("hard", b"two")
    yield "written through a hard link", read("f")
    os.unlink("f")
    yield "name gone, file stays", (read("hard"), os.stat("hard").st_nlink)
    os.symlink("hard", "soft")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    yield "symlink", (os.readlink("soft"), read("soft"), os.lstat("soft").st_size)
    yield "symlink mode", oct(os.lstat("soft").st_mode)
    yield "dangling symlink", attempt(open, "dangling")
    yield "symlink to itself", attempt(open, "loop")
    yield "O_NOFOLLOW", attempt(os.open, "soft", os.O_RDONLY | os.O_NOFOLLOW)
    yield "O_EXCL through a symlink", attempt(os.open, "dangling", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    write("dangling", b"made")
    yield "creating through a symlink", read("nowhere")
    yield "hard link of a folder", attempt(os.link, ".", "folder")
    yield "hard link to a symlink", attempt(os.link, "soft", "soft2", follow_symlinks=False)
    yield "it is a symlink too", os.path.islink("soft2")
    yield "long symlink", (attempt(os.symlink, "x" * 1000, "long"), len(os.readlink("long")))
    yield "rename of a symlink", (attempt(os.rename, "soft", "moved"), os.readlink("moved"))


@check
def renames():
    write("a", b"a")
    write("b", b"b")
    os.rename("a", "b")
    yield "onto a file", (read("b"), os.path.exists("a"))
    os.makedirs("d/sub")
    os.mkdir("empty")
    yield "file onto a folder", attempt(os.rename, "b", "empty")
    yield "folder onto a file", attempt(os.rename, "empty", "b")
    yield "folder onto a full one", attempt(os.rename, "empty", "d")
    yield "folder into itself", attempt(os.rename, "d", "d/sub/d")
    yield "folder onto an empty one", attempt(os.rename, "d", "empty")
    yield "moved with its content", os.path.isdir("empty/sub")
    write("c", b"c")
    yield "NOREPLACE", attempt(renameat2, "c", "b", NOREPLACE)
    yield "NOREPLACE to a new name", attempt(renameat2, "c", "new", NOREPLACE)
    yield "EXCHANGE", (attempt(renameat2, "new", "b", EXCHANGE), read("new"), read("b"))
    with open("b", "r+b") as file:
        os.rename("b", "elsewhere")
        file.write(b"via fd")
    yield "open file follows", read("elsewhere")
    yield "to itself", attempt(os.rename, "elsewhere", "elsewhere")
    yield "missing", attempt(os.rename, "missing", "x")


@check
def removal():
    with open("f", "w+b") as file:
        file.write(b"still here")
        file.flush()
        os.unlink("f")
        yield "open but unlinked", (os.fstat(file.fileno()).st_nlink, os.path.exists("f"))
        file.seek(0)
        yield "its content", file.read()
        file.write(b" and more")
        yield "its size", os.fstat(file.fileno()).st_size if file.flush() is None else None
        yield "same name again", attempt(os.open, "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY) not in ("EEXIST",)
    os.makedirs("d/e")
    yield "rmdir of a full folder", attempt(os.rmdir, "d")
    yield "rmdir of a file", attempt(os.rmdir, "f")
    yield "unlink of a folder", attempt(os.unlink, "d")
    folder = os.open("d/e", os.O_RDONLY)
    os.rmdir("d/e")
    yield "removed folder", (os.fstat(folder).st_nlink, attempt(os.listdir, folder))
    yield "creating in a removed folder", attempt(os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
    os.close(folder)


@check
def contents():
    write("f", b"0123456789")
    os.truncate("f", 4)
    yield "truncated", read("f")
    os.truncate("f", 8)
    yield "grown", read("f")
    write("f", b"new")
    yield "O_TRUNC", read("f")
    one, two = (os.open("f", os.O_WRONLY | os.O_APPEND) for _ in range(2))
    for descriptor in (one, two, one):
        os.write(descriptor, b"+")
    yield "O_APPEND from two", read("f")
    os.close(one)
    os.close(two)
    descriptor = os.open("f", os.O_RDWR)
    os.pwrite(descriptor, b"XY", 1)
    yield "pread", os.pread(descriptor, 3, 0)
    yield "writev", os.writev(descriptor, [b"a", b"", b"bc"])
    yield "fallocate", (attempt(os.posix_fallocate, descriptor, 0, 5000), os.fstat(descriptor).st_size)
    yield "copy_file_range", attempt(os.copy_file_range, descriptor, os.open("copy", os.O_CREAT | os.O_WRONLY, 0o644), 3)
    yield "copied", read("copy")
    yield "ftruncate of a read-only fd", attempt(os.ftruncate, os.open("f", os.O_RDONLY), 0)
    os.close(descriptor)
    yield "folder for writing", attempt(os.open, ".", os.O_WRONLY)
    yield "O_DIRECTORY of a file", attempt(os.open, "f", os.O_DIRECTORY)
    yield "path through a file", attempt(os.stat, "f/x")
    big = os.urandom(3 << 20)
    write("big", big)
    yield "3 MiB come back", read("big") == big
    yield "O_TMPFILE", attempt(os.open, ".", os.O_TMPFILE | os.O_WRONLY) not in ("EISDIR", "ENOENT")


@check
def sparse():
    descriptor = os.open("s", os.O_CREAT | os.O_RDWR, 0o644)
    os.pwrite(descriptor, b"end", (5 << 30))
    info = os.fstat(descriptor)
    yield "size", info.st_size
    yield "blocks are few", info.st_blocks < 1000
    yield "hole reads as zeros", os.pread(descriptor, 4, 1 << 30)
    yield "SEEK_DATA", os.lseek(descriptor, 0, os.SEEK_DATA) // 4096
    yield "SEEK_HOLE", os.lseek(descriptor, 0, os.SEEK_HOLE)
    os.close(descriptor)


@check
def mapping():
    write("m", b"\0" * 8192)
    descriptor = os.open("m", os.O_RDWR)
    shared = mmap.mmap(descriptor, 8192)
    shared[:5] = b"hello"
    shared[4096:4101] = b"world"
    shared.flush()
    yield "written by mapping", (read("m")[:5], read("m")[4096:4101])
    os.pwrite(descriptor, b"J", 0)
    yield "write seen by mapping", shared[:5]
    private = mmap.mmap(descriptor, 8192, flags=mmap.MAP_PRIVATE)
    private[:1] = b"P"
    yield "private stays private", read("m")[:1]
    yield "seen by another process", in_child(lambda: read("m")[:5])
    shared.close()
    private.close()
    os.close(descriptor)
    shutil.copy("/bin/true", "program")
    yield "program runs", subprocess.run(["./program"]).returncode
    yield "text busy", attempt(open, "/proc/self/exe", "wb")


@check
def locks():
    write("l", b"0123456789")
    mine = open("l", "r+b")
    fcntl.lockf(mine, fcntl.LOCK_EX, 4, 0)

    def range_lock(start):
        with open("l", "r+b") as theirs:
            fcntl.lockf(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB, 2, start)

    yield "POSIX lock held", in_child(lambda: range_lock(0))
    yield "POSIX lock of another range", in_child(lambda: range_lock(6))
    fcntl.lockf(mine, fcntl.LOCK_UN)
    yield "POSIX lock released", in_child(lambda: range_lock(0))
    fcntl.flock(mine, fcntl.LOCK_EX)
    with open("l", "r+b") as other:
        yield "flock held", attempt(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(mine, fcntl.LOCK_UN)
        yield "flock released", attempt(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    mine.close()


@check
def attributes():
    write("x")
    yield "set", attempt(os.setxattr, "x", "user.color", b"blue\0green")
    yield "get", attempt(os.getxattr, "x", "user.color")
    yield "XATTR_CREATE", attempt(os.setxattr, "x", "user.color", b"", os.XATTR_CREATE)
    yield "XATTR_REPLACE", attempt(os.setxattr, "x", "user.other", b"", os.XATTR_REPLACE)
    yield "empty value", (attempt(os.setxattr, "x", "user.empty", b""), attempt(os.getxattr, "x", "user.empty"))
    yield "list", sorted(os.listxattr("x"))
    yield "remove", (attempt(os.removexattr, "x", "user.color"), attempt(os.getxattr, "x", "user.color"))
    yield "on a folder", attempt(os.setxattr, ".", "user.folder", b"1")
    attempt(os.removexattr, ".", "user.folder")
    yield "trusted", attempt(os.setxattr, "x", "trusted.x", b"1")


@check
def syncing():
    with open("f", "wb") as file:
        file.write(b"kept")
        file.flush()
        yield "fsync", attempt(os.fsync, file.fileno())
        yield "fdatasync", attempt(os.fdatasync, file.fileno())
    folder = os.open(".", os.O_RDONLY)
    yield "fsync of a folder", attempt(os.fsync, folder)
    yield "syncfs", libc.syncfs(folder)
    os.close(folder)
    yield "O_SYNC", attempt(os.write, os.open("f", os.O_WRONLY | os.O_SYNC), b"x")


@check
def names():
    for name in (b"n" * 255, b"caf\xe9 \xff\xfe", "ünïcödé-\N{SNOWMAN}".encode(), b"new\nline", b" -rf *?'\"\\"):
        write(name)
    yield "listed", sorted(os.listdir(b"."))
    yield "read back", all(read(name) == b"data" for name in os.listdir(b"."))
    yield "256 bytes", attempt(write, b"n" * 256)
    yield "deep path", attempt(os.makedirs, "/".join(["d" * 200] * 15))
    yield "path over PATH_MAX", attempt(os.stat, "/".join(["d"] * 2100))
    yield "empty name", attempt(os.mkdir, "")
    yield "case matters", (attempt(write, "Case"), attempt(os.stat, "case"))


@check
def folders():
    for number in range(2000):
        os.close(os.open(f"{number:04}", os.O_CREAT | os.O_WRONLY, 0o644))
    yield "2000 entries", len(os.listdir(".")) == len(set(os.listdir("."))) == 2000
    seen = 0
    with os.scandir(".") as entries:  # removing what is being listed
        for entry in entries:
            seen += entry.is_file(follow_symlinks=False)
            os.unlink(entry.name)
    yield "removed while listed", (seen, os.listdir("."))
    os.makedirs("a/b")
    yield "links of a folder", os.stat("a").st_nlink
    yield "dot-dot", os.stat("a/b/..").st_ino == os.stat("a").st_ino
    yield "inode of an entry", {e.name: e.inode() == os.stat(e.name).st_ino for e in os.scandir(".")}


@check
def times():
    write("t")
    os.utime("t", ns=(1_000_000_001, 2_000_000_003))
    info = os.stat("t")
    yield "nanoseconds", (info.st_atime_ns, info.st_mtime_ns)
    os.utime("t", ns=(0, -1_500_000_000))
    yield "before 1970", os.stat("t").st_mtime_ns
    changed = os.stat("t").st_ctime_ns
    time.sleep(0.02)
    os.chmod("t", 0o600)
    yield "chmod moves ctime only", (os.stat("t").st_ctime_ns > changed, os.stat("t").st_mtime_ns)
    write("t", b"x")
    yield "write moves mtime", abs(os.stat("t").st_mtime - time.time()) < 60
    os.mkdir("d")
    os.utime("d", (0, 0))
    write("d/new")
    yield "new entry moves the folder's mtime", os.stat("d").st_mtime > 0
    os.symlink("t", "l")
    os.utime("l", (1, 1), follow_symlinks=False)
    yield "of a symlink", (os.lstat("l").st_mtime, os.stat("t").st_mtime > 1)


@check
def special():
    yield "fifo", attempt(os.mkfifo, "fifo")
    if os.path.exists("fifo"):
        child = subprocess.Popen(["sh", "-c", "echo through > fifo"])
        yield "through a fifo", read("fifo")
        child.wait()
    listener = socket.socket(socket.AF_UNIX)
    yield "socket", attempt(listener.bind, "sock")
    if os.path.exists("sock"):
        listener.listen(1)
        client = socket.socket(socket.AF_UNIX)
        yield "connecting to it", attempt(client.connect, "sock")
    yield "device", attempt(os.mknod, "dev", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    info = os.statvfs(".")
    yield "statvfs", (info.f_bsize > 0, info.f_bavail > 0, info.f_namemax)


def main():
    top = os.path.abspath(sys.argv[1])
    os.umask(0o022)
    for function in checks:
        folder = os.path.join(top, function.__name__)
        os.mkdir(folder)
        os.chdir(folder)
        try:
            for name, outcome in function():
                print(f"{function.__name__}, {name}: {outcome}", flush=True)
        except Exception as error:  # the rest of this group cannot be told
            print(f"{function.__name__} broke off: {error!r}", flush=True)
        os.chdir(top)
        subprocess.run(["chmod", "-R", "u+rwX", folder], check=True)
        shutil.rmtree(folder)


main()
