"""What systems wrote, shortened: to be read like the files themselves."""

from __future__ import annotations

MEMINFO = """\
MemTotal:       24684092 kB
MemFree:        23697884 kB
MemAvailable:   24142216 kB
Buffers:           39732 kB
Cached:           667872 kB
SwapCached:            0 kB
Active(file):     401224 kB
Inactive(file):   297520 kB
SwapTotal:       2097148 kB
SwapFree:        1835004 kB
AnonPages:         25588 kB
Mapped:           110988 kB
Shmem:             10988 kB
HugePages_Total:       0
HugePages_Free:        0
Hugepagesize:       2048 kB
DirectMap1G:    25165824 kB
"""

STATUS = """\
Name:	xllamacpp worker
Umask:	0077
State:	S (sleeping)
Tgid:	16208
Pid:	16208
PPid:	16204
Uid:	0	0	0	0
Groups:
VmPeak:	  303060 kB
VmSize:	  303060 kB
VmHWM:	  201688 kB
VmRSS:	  201000 kB
RssAnon:	  120000 kB
RssFile:	   80000 kB
RssShmem:	    1000 kB
VmSwap:	       0 kB
Threads:	9
"""

ZOMBIE_STATUS = """\
Name:	python
State:	Z (zombie)
Pid:	4242
Threads:	1
"""

PRESSURE = """\
some avg10=12.34 avg60=3.21 avg300=0.88 total=123456789
full avg10=4.00 avg60=1.02 avg300=0.21 total=45678901
"""

V1_CGROUP = """\
9:name=systemd:/
8:pids:/
4:memory:/jobs/one
1:cpu,cpuacct:/
0::/
"""

V1_MOUNTINFO = """\
23 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""

V1_STAT = """\
cache 98304
rss 1720320
mapped_file 0
shmem 0
inactive_file 36864
active_file 61440
hierarchical_memory_limit 9223372036854771712
hierarchical_memsw_limit 9223372036854771712
total_cache 300000
total_rss 1720320
total_shmem 10000
total_mapped_file 110000
total_swap 5000
total_inactive_file 200000
total_active_file 100000
"""

V1_NO_LIMIT = "9223372036854771712\n"

V2_CGROUP = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/autotuned.service\n"

V2_MOUNTINFO = """\
22 29 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
29 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
34 22 0:29 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
35 22 0:30 / /sys/fs/pstore rw,nosuid,nodev,noexec,relatime shared:10 - pstore pstore rw
"""

V2_STAT = """\
anon 1720320
file 300000
kernel 90000
shmem 10000
file_mapped 110000
file_dirty 0
inactive_anon 1730320
active_anon 12288
inactive_file 200000
active_file 100000
slab_reclaimable 50000
slab_unreclaimable 20000
"""

DOCKER_V2_CGROUP = "0::/\n"

DOCKER_V2_MOUNTINFO = """\
801 635 0:65 / / rw,relatime master:232 - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/d,workdir=/w
805 804 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot
"""

DOCKER_V1_CGROUP = """\
12:memory:/docker/5a2b0c9f
3:cpu,cpuacct:/docker/5a2b0c9f
1:name=systemd:/docker/5a2b0c9f
"""

DOCKER_V1_MOUNTINFO = """\
1176 1175 0:103 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
1182 1176 0:31 /docker/5a2b0c9f /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:16 - cgroup cgroup rw,memory
1183 1176 0:32 /docker/5a2b0c9f /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,noexec,relatime master:17 - cgroup cgroup rw,cpu,cpuacct
"""
