"""What is made of the buffers that a worker reports."""

import os

import psutil
import pytest

from autotuned.engines.llamacpp.footprint import Buffers
from tests.engines.shapes import shape

MIB = 1 << 20
LOG = """
0.00.008.452 I load_tensors:   CPU_Mapped model buffer size =     9.02 MiB
0.00.008.452 I load_tensors:   CPU_REPACK model buffer size =     9.00 MiB
0.00.009.272 I llama_context:        CPU  output buffer size =     0.50 MiB
0.00.008.601 I llama_kv_cache_iswa: creating non-SWA KV cache, size = 4096 cells
0.00.009.319 I llama_kv_cache:        CPU KV buffer size =     2.00 MiB
0.00.010.136 I llama_kv_cache: size =    2.00 MiB (  2048 cells,   4 layers,  1/1 seqs), K (f16):    1.00 MiB
0.00.009.319 I llama_kv_cache:        CPU KV buffer size =     1.25 MiB
0.00.009.319 I llama_memory_recurrent:        CPU RS buffer size =     0.25 MiB
0.00.010.850 I sched_reserve:        CPU compute buffer size =     9.00 MiB
0.00.010.851 I sched_reserve:        CPU compute buffer size =     7.50 MiB
""".splitlines()
ON_A_GPU = """
load_tensors:   CPU_Mapped model buffer size =   100.00 MiB
load_tensors:        CUDA0 model buffer size =  1000.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =  200.00 MiB
sched_reserve:      CUDA0 compute buffer size =    300.00 MiB
sched_reserve:  CUDA_Host compute buffer size =    10.00 MiB
""".splitlines()
NO_PROCESS = 0


def footprint(lines, process_id=NO_PROCESS, **changes):
    buffers = Buffers()
    for line in lines:
        buffers.add(line)
    return buffers.footprint(shape(**changes), process_id)


def test_every_buffer_is_counted_once():
    found = footprint(LOG, host_prompt_cache_bytes=5)
    assert found.weights_bytes == round(9.02 * MIB)
    assert found.repacked_weights_bytes == 9 * MIB
    # Attention with and without windows, and recurrent state.
    assert found.kv_cache_bytes == 3.5 * MIB
    # The computation is prepared anew, its last buffers stay.
    assert found.compute_bytes == 8 * MIB
    assert found.host_prompt_cache_bytes == 5
    assert found.process_bytes == 0


def test_buffers_of_all_devices_count():
    found = footprint(ON_A_GPU)
    assert (found.weights_bytes, found.kv_cache_bytes, found.compute_bytes) == (
        1100 * MIB,
        200 * MIB,
        310 * MIB,
    )


def test_the_process_is_what_is_in_memory_beside_its_buffers():
    own = psutil.Process().memory_info()
    private = own.rss - own.shared
    assert footprint([], os.getpid()).process_bytes == pytest.approx(own.rss, rel=0.05)
    # Of private memory: the state. What is set aside for the computation is not in memory yet.
    state = ["x: CPU KV buffer size = 8.00 MiB", "x: CPU compute buffer size = 500.00 MiB"]
    assert footprint(state, os.getpid()).process_bytes == pytest.approx(own.rss - 8 * MIB, rel=0.05)
    # Pages of a mapped file that are not in memory take nothing off the private memory.
    mapped = ["x: CPU_Mapped model buffer size = 90000.00 MiB"]
    assert footprint(mapped, os.getpid()).process_bytes == pytest.approx(private, rel=0.05)
    # Nor does what is on a GPU.
    assert footprint(["x: CUDA0 KV buffer size = 90000.00 MiB"], os.getpid()).process_bytes > private
