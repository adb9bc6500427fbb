#include "vm/machine_spec.h"

namespace sbx::vm {
namespace {

bool boots_kernel(Purpose purpose) { return purpose == Purpose::kTemplate || purpose == Purpose::kBoot; }
bool waits_for_state(Purpose purpose) { return !boots_kernel(purpose); }

void add(std::vector<std::string>& arguments, std::string option, std::string value) {
  arguments.push_back(std::move(option));
  arguments.push_back(std::move(value));
}

void add_machine(std::vector<std::string>& out, const MachineSpec& spec) {
  // What a default PC has and a sandbox never uses is left out: less to attack, less to migrate, and hpet alone costs
  // 2 to 4% of a core in an idle guest. memory-backend: RAM is an object of ours, which may be a file.
  add(out, "-M", "q35,sata=off,smbus=off,vmport=off,i8042=off,hpet=off,memory-backend=ram");
  if (spec.accelerator == Accelerator::kKvm) {
    add(out, "-cpu", "host");
    add(out, "-accel", "kvm");
  } else {
    // la57 (five-level paging) makes every page walk longer under emulation and gives a guest of this size nothing.
    // erms and the others promise that string instructions are quick byte by byte, and kernel and libc then copy and
    // clear with them; emulated, each byte is a step of its own (copies within the guest are 2 to 12 times as fast
    // without).
    add(out, "-cpu", "max,-la57,-erms,-fsrm,-fzrm,-fsrs,-fsrc");
    add(out, "-accel", "tcg,thread=multi,tb-size=" + std::to_string(spec.translation_cache_mib));
  }
  add(out, "-smp", std::to_string(spec.cpus));
  const std::string size = std::to_string(spec.memory_mib) + "M";
  add(out, "-m", size);
  switch (spec.purpose) {
    case Purpose::kTemplate:
      // Shared: what the guest writes is the file, which x-ignore-shared then leaves out of the saved state.
      add(out, "-object", "memory-backend-file,id=ram,size=" + size + ",mem-path=" + spec.ram_path + ",share=on");
      break;
    case Purpose::kClone:
      // Private: pages come from the template's file until the guest writes them. readonly: the file is opened for
      // reading only; rom=off: the memory is RAM nevertheless. Both since QEMU 8.2.
      add(out, "-object",
          "memory-backend-file,id=ram,size=" + size + ",mem-path=" + spec.ram_path + ",share=off" +
              (spec.qemu_major >= 9 ? ",readonly=on,rom=off" : ""));
      break;
    case Purpose::kBoot:
    case Purpose::kRestore:
      add(out, "-object", "memory-backend-ram,id=ram,size=" + size);
      break;
  }
}

// Node i is backed by node i+1; each is a format node over a file node over a passed descriptor, so QEMU opens no path.
void add_disk(std::vector<std::string>& out, const MachineSpec& spec) {
  for (std::size_t i = 0; i < spec.disk_chain.size(); ++i) {
    add(out, "-add-fd", "fd=" + std::to_string(spec.disk_chain[i].fd) + ",set=" + std::to_string(i + 1));
  }
  // Skipping flushes trades crash safety for speed: right only for a template, which is thrown away if it fails.
  const std::string writable =
      spec.purpose == Purpose::kTemplate ? ",discard=unmap,cache.no-flush=on" : ",discard=unmap";
  for (std::size_t i = spec.disk_chain.size(); i-- > 0;) {
    const std::string n = std::to_string(i);
    const std::string mode = i == 0 ? writable : ",read-only=on";
    add(out, "-blockdev", "driver=file,node-name=file" + n + ",filename=/dev/fdset/" + std::to_string(i + 1) + mode);
    std::string format = "driver=raw";
    if (spec.disk_chain[i].format == DiskFormat::kQcow2) format = "driver=qcow2";
    format += ",node-name=disk" + n + ",file=file" + n + mode;
    if (spec.disk_chain[i].format == DiskFormat::kQcow2 && i + 1 < spec.disk_chain.size()) {
      format += ",backing=disk" + std::to_string(i + 1);
    }
    add(out, "-blockdev", format);
  }
  if (!spec.disk_chain.empty()) add(out, "-device", "virtio-blk-pci,drive=disk0");
}

void add_ports(std::vector<std::string>& out, const MachineSpec& spec) {
  add(out, "-device", "virtio-serial-pci,id=ports,max_ports=4");
  for (int i = 0; i < 3; ++i) {
    const std::string id = "port" + std::to_string(i + 1);
    // Listening sockets, so that the process behind a port can be replaced; QEMU starts without waiting for it.
    add(out, "-chardev", "socket,id=" + id + ",fd=" + std::to_string(spec.port_fds[i]) + ",server=on,wait=off");
    add(out, "-device",
        "virtserialport,bus=ports.0,nr=" + std::to_string(i + 1) + ",chardev=" + id +
            ",name=" + std::string(kPortNames[i]));
  }
}

}  // namespace

std::string_view to_string(Accelerator accelerator) { return accelerator == Accelerator::kKvm ? "kvm" : "tcg"; }

Result<Accelerator> accelerator_from(std::string_view word) {
  if (word == "tcg") return Accelerator::kTcg;
  if (word == "kvm") return Accelerator::kKvm;
  return fail(ErrorCode::kInvalid, "unknown accelerator '" + std::string(word) + "'; use tcg or kvm");
}

std::vector<std::string> qemu_arguments(const MachineSpec& spec) {
  std::vector<std::string> out;
  add(out, "-name", "sbx");
  // No device and no file that is not named here.
  out.insert(out.end(), {"-nodefaults", "-no-user-config"});
  add(out, "-display", "none");
  add_machine(out, spec);
  // A guest that reboots or panics (panic=-1) ends QEMU; the keeper decides what then.
  out.push_back("-no-reboot");
  if (spec.console_fd >= 0) {
    add(out, "-add-fd", "fd=" + std::to_string(spec.console_fd) + ",set=90");
    add(out, "-chardev", "file,id=console,path=/dev/fdset/90,append=on");
    add(out, "-serial", "chardev:console");
  } else {
    // The device stays, or template and clone would differ.
    add(out, "-serial", "null");
  }
  add_ports(out, spec);
  add_disk(out, spec);
  add(out, "-device", "virtio-rng-pci");
  // A new generation id in each process: the kernel of a clone reseeds its random generator. Without it every clone
  // returns the same bytes from /dev/urandom.
  add(out, "-device", "vmgenid,guid=auto");
  add(out, "-chardev", "socket,id=qmp,fd=" + std::to_string(spec.qmp_fd));
  add(out, "-mon", "chardev=qmp,mode=control");
  if (waits_for_state(spec.purpose)) {
    // No kernel here: it is in the RAM already, and leaving it out saves 100 MiB.
    add(out, "-incoming", "defer");
  } else if (!spec.kernel.empty()) {
    add(out, "-kernel", spec.kernel);
    if (!spec.initramfs.empty()) add(out, "-initrd", spec.initramfs);
    std::string append = default_kernel_arguments(spec.accelerator, spec.qemu_major, spec.purpose);
    if (!spec.append.empty()) append += " " + spec.append;
    add(out, "-append", append);
  }
  // QEMU's own system call filter, the layer inside the jail.
  add(out, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
  return out;
}

std::string default_kernel_arguments(Accelerator accelerator, int qemu_major, Purpose purpose) {
  std::string out =
      // A panic is an exit (with -no-reboot); the console is for what went wrong.
      "panic=-1 quiet loglevel=4 console=ttyS0"
      // Speculation is contained by the VM's edge (KVM) or does not exist (TCG); inside, the agent may be root anyway.
      " mitigations=off"
      // Every clone of a template has the template's layout whatever we do, and it costs boot time.
      " nokaslr"
      // No calibration of clocks against each other: under emulation it takes seconds and fails by chance.
      " tsc=reliable no_timer_check"
      " noreplace-smp random.trust_cpu=on audit=0 8250.nr_uarts=1 cryptomgr.notests rcupdate.rcu_expedited=1 "
      "nowatchdog"
      // Hardening of this kernel against its own users, who may be root in it anyway: under emulation each check is
      // code to translate in every clone. Nor are pages cleared twice: see init_on_free below.
      " init_on_alloc=0 hardened_usercopy=off randomize_kstack_offset=off lsm=capability"
      // A huge page that one program touches a little of is 2 MiB of the host's memory in every clone.
      " transparent_hugepage=madvise";
  // Freed pages are zero, so a memory image does not carry them: 15 MiB instead of 485. But the kernel then writes all
  // of its memory at boot (2 GiB: 4 to 12 s of CPU and 2.2 GB of the host's memory instead of 0.25). A template pays
  // that once and its clones never; a sandbox that boots by itself would pay each time.
  if (purpose == Purpose::kTemplate) out += " init_on_free=1";
  // QEMU 7.2's TCG leaves garbage in EFLAGS after cmpxchg16b and corrupts 6.12 kernels. The kernel must not use it;
  // programs may (Claude Code's runtime needs it), so it is not taken from the CPU model.
  if (accelerator == Accelerator::kTcg && qemu_major < 8) out += " clearcpuid=cx16";
  return out;
}

std::string canonical_command_line(MachineSpec spec) {
  spec.purpose = Purpose::kTemplate;
  for (DiskNode& node : spec.disk_chain) node.fd = 0;
  for (int& fd : spec.port_fds) fd = 0;
  spec.qmp_fd = 0;
  spec.console_fd = 0;
  spec.ram_path = "RAM";
  spec.kernel = "KERNEL";
  spec.initramfs = "INITRAMFS";
  std::string out;
  for (const std::string& argument : qemu_arguments(spec)) out += argument + "\n";
  return out;
}

}  // namespace sbx::vm
