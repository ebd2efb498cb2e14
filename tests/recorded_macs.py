"""What ``sysctl hw machdep.cpu kern.osproductversion`` printed on Macs, shortened to what is read of it.

Sources, all on GitHub unless another is named. Where a source shows one chip with another size of memory, the
line ``hw.memsize`` and the model are those of the Mac in the name; everything else is as it was printed.

- M1: zacky1972/qiita_article, "sysctl hw" of a MacBook Air (J313).
- M1 Pro: the output of "sysctl hw | rg cpu" of a MacBook Pro with 10 cores.
- M3: "sysctl hw.optional" of a MacBook Pro (Mac15,3); memory and cores of a benchmark report, 16 GB.
- M4: system report of a MacBook Pro (Mac16,1), 24 GB, macOS 26.5; kinds of cores of a Mac mini (Mac16,10).
- M4 Pro: benchmark report of a Mac with 64 GB, macOS 26.5.2.
- M4 Max: zacky1972 on Qiita, difference of "sysctl hw" between M3 Max and M4 Max, 128 GB.
- Intel: "sysctl -a" of a MacBook Pro with i7-9750H.
"""

from __future__ import annotations

_M1_FEATURES = """\
hw.optional.arm.FEAT_FHM: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_BF16: 0
hw.optional.arm.FEAT_I8MM: 0
hw.optional.arm.FEAT_LSE2: 1
hw.optional.arm.FEAT_FP16: 1
hw.optional.arm.FEAT_BTI: 0
hw.optional.floatingpoint: 1
hw.optional.neon: 1
hw.optional.arm64: 1
"""

_M3_FEATURES = """\
hw.optional.arm.FEAT_FHM: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_WFxT: 0
hw.optional.arm.FEAT_LSE2: 1
hw.optional.arm.FEAT_FP16: 1
hw.optional.arm.FEAT_BTI: 1
hw.optional.arm.FEAT_SME: 0
hw.optional.arm.FEAT_SME2: 0
hw.optional.floatingpoint: 1
hw.optional.neon: 1
hw.optional.arm64: 1
"""

_M4_FEATURES = """\
hw.optional.arm.FEAT_FHM: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_EBF16: 0
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_WFxT: 1
hw.optional.arm.FEAT_FP16: 1
hw.optional.arm.FEAT_SME: 1
hw.optional.arm.FEAT_SME2: 1
hw.optional.arm.SME_I8I32: 1
hw.optional.floatingpoint: 1
hw.optional.neon: 1
hw.optional.arm64: 1
"""

M1_8 = f"""\
hw.ncpu: 8
hw.byteorder: 1234
hw.memsize: 8589934592
hw.activecpu: 8
hw.perflevel0.physicalcpu: 4
hw.perflevel0.physicalcpu_max: 4
hw.perflevel0.logicalcpu: 4
hw.perflevel0.l2cachesize: 12582912
hw.perflevel1.physicalcpu: 4
hw.perflevel1.logicalcpu: 4
hw.perflevel1.l2cachesize: 4194304
{_M1_FEATURES}hw.machine: arm64
hw.model: MacBookAir10,1
hw.targettype: J313
hw.physicalcpu: 8
hw.physicalcpu_max: 8
hw.logicalcpu: 8
hw.logicalcpu_max: 8
hw.cputype: 16777228
hw.cpufamily: 458787763
hw.pagesize: 16384
hw.nperflevels: 2
machdep.cpu.cores_per_package: 8
machdep.cpu.core_count: 8
machdep.cpu.thread_count: 8
machdep.cpu.brand_string: Apple M1
kern.osproductversion: 14.5
"""

M1_PRO_32 = f"""\
hw.ncpu: 10
hw.memsize: 34359738368
hw.activecpu: 10
hw.perflevel0.physicalcpu: 8
hw.perflevel0.physicalcpu_max: 8
hw.perflevel0.logicalcpu: 8
hw.perflevel0.cpusperl2: 4
hw.perflevel1.physicalcpu: 2
hw.perflevel1.physicalcpu_max: 2
hw.perflevel1.logicalcpu: 2
hw.perflevel1.cpusperl2: 2
{_M1_FEATURES}hw.model: MacBookPro18,3
hw.physicalcpu: 10
hw.physicalcpu_max: 10
hw.logicalcpu: 10
hw.logicalcpu_max: 10
hw.cputype: 16777228
hw.cpufamily: 458787763
hw.cpusubfamily: 4
machdep.cpu.core_count: 10
machdep.cpu.brand_string: Apple M1 Pro
kern.osproductversion: 15.2
"""

M3_16 = f"""\
hw.ncpu: 8
hw.memsize: 17179869184
hw.activecpu: 8
hw.perflevel0.physicalcpu: 4
hw.perflevel0.name: Performance
hw.perflevel1.physicalcpu: 4
hw.perflevel1.name: Efficiency
{_M3_FEATURES}hw.model: Mac15,12
hw.physicalcpu: 8
hw.logicalcpu: 8
hw.nperflevels: 2
machdep.cpu.core_count: 8
machdep.cpu.brand_string: Apple M3
kern.osproductversion: 15.3
"""

M4_24 = f"""\
hw.memsize: 25769803776
hw.memsize_usable: 24904433664
hw.ncpu: 10
hw.physicalcpu: 10
hw.physicalcpu_max: 10
hw.logicalcpu: 10
hw.logicalcpu_max: 10
hw.perflevel0.physicalcpu: 4
hw.perflevel1.physicalcpu: 6
{_M4_FEATURES}hw.model: Mac16,1
hw.pagesize: 16384
machdep.cpu.brand_string: Apple M4
kern.osproductversion: 26.5
"""

M4_PRO_64 = f"""\
hw.memsize: 68719476736
hw.ncpu: 14
hw.physicalcpu: 14
hw.logicalcpu: 14
hw.perflevel0.physicalcpu: 10
hw.perflevel1.physicalcpu: 4
{_M4_FEATURES}hw.model: Mac16,11
machdep.cpu.core_count: 14
machdep.cpu.brand_string: Apple M4 Pro
kern.osproductversion: 26.5.2
"""

M4_MAX_128 = f"""\
hw.ncpu: 16
hw.memsize: 137438953472
hw.activecpu: 16
hw.physicalcpu: 16
hw.logicalcpu: 16
hw.perflevel0.physicalcpu: 12
hw.perflevel1.physicalcpu: 4
{_M4_FEATURES}hw.model: Mac16,5
machdep.cpu.core_count: 16
machdep.cpu.brand_string: Apple M4 Max
kern.osproductversion: 15.3
"""

INTEL_16 = """\
hw.ncpu: 12
hw.memsize: 17179869184
hw.physicalcpu: 6
hw.logicalcpu: 12
hw.model: MacBookPro16,1
hw.cpufrequency: 2600000000
hw.optional.floatingpoint: 1
hw.optional.sse4_2: 1
hw.optional.avx1_0: 1
hw.optional.f16c: 1
hw.optional.fma: 1
hw.optional.avx2_0: 1
hw.optional.avx512f: 0
machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz
machdep.cpu.core_count: 6
kern.osproductversion: 14.7
"""

ON_MAINS = """\
Now drawing from 'AC Power'
 -InternalBattery-0 (id=22806627)\t83%; charging; 1:04 remaining present: true
"""
ON_BATTERY = """\
Now drawing from 'Battery Power'
 -InternalBattery-0 (id=22806627)\t78%; discharging; 5:05 remaining present: true
"""
DESKTOP = "Now drawing from 'AC Power'\n"
COOL = """\
Note: No thermal warning level has been recorded
Note: No performance warning level has been recorded
Note: No CPU power status has been recorded
"""
COOL_INTEL = """\
Note: No thermal warning level has been recorded
Note: No performance warning level has been recorded
2026-08-20 05:08:37 -0700 CPU Power notify
\tCPU_Scheduler_Limit \t= 100
\tCPU_Available_CPUs \t= 12
\tCPU_Speed_Limit \t= 100
"""
THROTTLED = COOL_INTEL.replace("CPU_Speed_Limit \t= 100", "CPU_Speed_Limit \t= 62")
