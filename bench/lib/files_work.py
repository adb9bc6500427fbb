"""The work of bench/files, done by root in the guest: files_work.py TOP SOURCES SIZES, SIZES being JSON.

TOP is the folder to work in, on the file system that is measured; SOURCES holds what bench/files has made before
(repository.tar, npm.tar), to be read from anywhere. Says on stderr what it is at; the last line of stdout is
{"figure": [samples]}: seconds, or MiB/s.
"""
import json
import os
import shutil
import subprocess
import sys
import time

TOP, SOURCES, SIZES = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
figures = {}


def timed(name, action, per=None):
    began = time.monotonic()
    action()
    took = time.monotonic() - began
    figures.setdefault(name, []).append(per / took if per else took)
    print(f"bench: {name} {figures[name][-1]:.3f}", file=sys.stderr, flush=True)


def run(*command, **options):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options)


def forget():
    run("sync")
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as control:
        control.write("3")


def write(path, data):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, data)
    os.close(fd)


def small_files():
    count = SIZES["small"]

    def create():
        for i in range(count):
            if i % 50 == 0:
                os.makedirs(f"small/{i // 50}")
            write(f"small/{i // 50}/{i}", b"x" * (500 + i % 3000))

    # As cat, cp, a compiler or node read: without the question whether the file is a terminal that Python's open() asks.
    def read():
        total = 0
        for folder, _, names in os.walk("small"):
            for name in names:
                fd = os.open(os.path.join(folder, name), os.O_RDONLY)
                while data := os.read(fd, 65536):
                    total += len(data)
                os.close(fd)
        assert total >= count * 500

    timed("small_files_create", create)
    for _ in range(SIZES["rounds"]):
        forget()
        timed("small_files_cold", read)
        read()
        timed("small_files_warm", read)


def repository():
    run("tar", "xf", f"{SOURCES}/repository.tar", "--no-same-owner")

    def status():
        run("git", "-c", "gc.auto=0", "-c", "safe.directory=*", "-C", "repository", "status", "--porcelain")

    status()  # the index learns the new files' times
    for _ in range(SIZES["rounds"]):
        forget()
        timed("git_status_cold", status)
        status()
        timed("git_status_warm", status)


def create_delete():
    os.makedirs("many")
    for i in range(1000):
        write(f"many/{i}", b"y")
    for i in range(1000):
        os.unlink(f"many/{i}")
    os.rmdir("many")


def sequential():
    block = b"z" * (1 << 20)

    def write_big():
        fd = os.open("big", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        for _ in range(SIZES["mebibytes"]):
            os.write(fd, block)
        os.fsync(fd)
        os.close(fd)

    def read_big():
        fd = os.open("big", os.O_RDONLY)
        while os.read(fd, 1 << 20):
            pass
        os.close(fd)

    for _ in range(SIZES["rounds"]):
        timed("seq_write", write_big, per=SIZES["mebibytes"])
        forget()
        timed("seq_read", read_big, per=SIZES["mebibytes"])
        os.unlink("big")


def npm():
    shutil.rmtree("/var/npm-cache", ignore_errors=True)
    os.makedirs("/var/npm-cache")
    run("tar", "xf", f"{SOURCES}/npm.tar", "--no-same-owner", "-C", "/var/npm-cache")  # always on the guest's own disk
    os.makedirs("app")
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(f"/var/npm-cache/{name}", f"app/{name}")
    timed("npm_install", lambda: run("npm", "ci", "--offline", "--cache", "/var/npm-cache/cache", "--ignore-scripts",
                                     "--no-audit", "--no-fund", "--silent", cwd="app"))
    for _ in range(SIZES["rounds"]):
        timed("tar_tree", lambda: run("sh", "-c", "tar cf - app | cat > /dev/null"))


def cpp_build():
    os.makedirs("build")
    for i in range(20):
        write(f"build/h{i}.h", f"#pragma once\ninline int h{i}(int x) {{ return x + {i}; }}\n".encode())
    includes = "".join(f'#include "h{i}.h"\n' for i in range(20))
    for i in range(SIZES["sources"]):
        write(f"build/s{i}.cpp", f"{includes}int s{i}(int x) {{ return h{i % 20}(x); }}\n".encode())
    write("build/main.cpp", b"int main() { return 0; }\n")
    objects = " ".join(["main.o"] + [f"s{i}.o" for i in range(SIZES["sources"])])
    write("build/Makefile", f"prog: {objects}\n\tg++ -o $@ $^\n%.o: %.cpp\n\tg++ -c -o $@ $<\n".encode())
    timed("cpp_build", lambda: run("make", "-s", "-C", "build"))


os.makedirs(TOP)
os.chdir(TOP)
small_files()
repository()
for _ in range(SIZES["rounds"]):
    timed("create_delete", create_delete)
sequential()
npm()
cpp_build()
print(json.dumps(figures))
