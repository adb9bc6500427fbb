#include "vm/machine_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sbx::vm {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

MachineSpec spec_for(Purpose purpose) {
  MachineSpec spec;
  spec.purpose = purpose;
  spec.disk_chain = {{10}, {11}, {12, DiskFormat::kRaw}};
  spec.ram_path = "/ram";
  spec.kernel = "/kernel";
  spec.initramfs = "/initramfs";
  spec.port_fds[0] = 20;
  spec.port_fds[1] = 21;
  spec.port_fds[2] = 22;
  spec.qmp_fd = 30;
  return spec;
}

std::string after(const std::vector<std::string>& arguments, const std::string& option) {
  for (std::size_t i = 0; i + 1 < arguments.size(); ++i) {
    if (arguments[i] == option) return arguments[i + 1];
  }
  return "(none)";
}

TEST(MachineSpec, ACloneMapsTheTemplatesMemoryPrivatelyAndWaitsForItsState) {
  const auto arguments = qemu_arguments(spec_for(Purpose::kClone));
  EXPECT_EQ(after(arguments, "-object"),
            "memory-backend-file,id=ram,size=2048M,mem-path=/ram,share=off,readonly=on,rom=off");
  EXPECT_EQ(after(arguments, "-incoming"), "defer");
  EXPECT_THAT(arguments, Not(Contains("-kernel")));
  EXPECT_EQ(after(arguments, "-serial"), "null");
}

TEST(MachineSpec, Qemu7MapsItWritableSinceItCannotDoOtherwise) {
  MachineSpec spec = spec_for(Purpose::kClone);
  spec.qemu_major = 7;
  EXPECT_EQ(after(qemu_arguments(spec), "-object"), "memory-backend-file,id=ram,size=2048M,mem-path=/ram,share=off");
}

TEST(MachineSpec, ATemplateSharesItsMemoryWithItsFileAndSkipsFlushes) {
  MachineSpec spec = spec_for(Purpose::kTemplate);
  spec.console_fd = 40;
  spec.append = "sbx.template";
  const auto arguments = qemu_arguments(spec);
  EXPECT_EQ(after(arguments, "-object"), "memory-backend-file,id=ram,size=2048M,mem-path=/ram,share=on");
  EXPECT_EQ(after(arguments, "-kernel"), "/kernel");
  EXPECT_THAT(after(arguments, "-append"), HasSubstr("init_on_free=1"));
  EXPECT_THAT(after(arguments, "-append"), ::testing::EndsWith(" sbx.template"));
  EXPECT_THAT(arguments,
              Contains("driver=qcow2,node-name=disk0,file=file0,discard=unmap,cache.no-flush=on,backing=disk1"));
  EXPECT_EQ(after(arguments, "-serial"), "chardev:console");
}

TEST(MachineSpec, ASandboxsDiskHonoursFlushesAndOpensNoPath) {
  const auto arguments = qemu_arguments(spec_for(Purpose::kBoot));
  EXPECT_THAT(arguments, Contains("fd=10,set=1"));
  EXPECT_THAT(arguments, Contains("driver=file,node-name=file0,filename=/dev/fdset/1,discard=unmap"));
  EXPECT_THAT(arguments, Contains("driver=qcow2,node-name=disk0,file=file0,discard=unmap,backing=disk1"));
  EXPECT_THAT(arguments, Contains("driver=qcow2,node-name=disk1,file=file1,read-only=on,backing=disk2"));
  EXPECT_THAT(arguments, Contains("driver=raw,node-name=disk2,file=file2,read-only=on"));
  EXPECT_EQ(after(arguments, "-object"), "memory-backend-ram,id=ram,size=2048M");
  EXPECT_THAT(arguments, Not(Contains(HasSubstr("no-flush"))));
  EXPECT_THAT(after(arguments, "-append"), Not(HasSubstr("init_on_free"))) << "it would touch all memory at each boot";
}

TEST(MachineSpec, ThePortsAreListeningSocketsWithNumbersAndNames) {
  const auto arguments = qemu_arguments(spec_for(Purpose::kClone));
  EXPECT_THAT(arguments, Contains("socket,id=port1,fd=20,server=on,wait=off"));
  EXPECT_THAT(arguments, Contains("virtserialport,bus=ports.0,nr=1,chardev=port1,name=sbx.control"));
  EXPECT_THAT(arguments, Contains("virtserialport,bus=ports.0,nr=2,chardev=port2,name=sbx.network"));
  EXPECT_THAT(arguments, Contains("virtserialport,bus=ports.0,nr=3,chardev=port3,name=sbx.files"));
  EXPECT_THAT(arguments, Contains("socket,id=qmp,fd=30"));
}

TEST(MachineSpec, TheAcceleratorChoosesTheCpu) {
  MachineSpec spec = spec_for(Purpose::kClone);
  EXPECT_EQ(after(qemu_arguments(spec), "-cpu"), "max,-la57,-erms,-fsrm,-fzrm,-fsrs,-fsrc");
  EXPECT_EQ(after(qemu_arguments(spec), "-accel"), "tcg,thread=multi,tb-size=256");
  spec.accelerator = Accelerator::kKvm;
  EXPECT_EQ(after(qemu_arguments(spec), "-cpu"), "host");
  EXPECT_EQ(after(qemu_arguments(spec), "-accel"), "kvm");
}

TEST(MachineSpec, OnlyQemu7InEmulationHidesCx16FromTheKernel) {
  EXPECT_THAT(default_kernel_arguments(Accelerator::kTcg, 7), HasSubstr("clearcpuid=cx16"));
  EXPECT_THAT(default_kernel_arguments(Accelerator::kTcg, 10), Not(HasSubstr("clearcpuid")));
  EXPECT_THAT(default_kernel_arguments(Accelerator::kKvm, 7), Not(HasSubstr("clearcpuid")));
}

TEST(MachineSpec, TheCanonicalCommandLineKnowsNoDescriptorsAndPaths) {
  MachineSpec one = spec_for(Purpose::kTemplate);
  MachineSpec other = spec_for(Purpose::kClone);
  other.qmp_fd = 99;
  other.disk_chain[0].fd = 77;
  other.ram_path = "/elsewhere";
  other.kernel = "/other";
  EXPECT_EQ(canonical_command_line(one), canonical_command_line(other));
  other.cpus = 2;
  EXPECT_NE(canonical_command_line(one), canonical_command_line(other));
}

TEST(Accelerator, IsAWord) {
  EXPECT_EQ(accelerator_from("kvm").value(), Accelerator::kKvm);
  EXPECT_EQ(accelerator_from(to_string(Accelerator::kTcg)).value(), Accelerator::kTcg);
  EXPECT_FALSE(accelerator_from("hvf"));
}

}  // namespace
}  // namespace sbx::vm
