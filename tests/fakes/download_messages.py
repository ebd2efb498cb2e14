"""Messages about downloads, the registry and the hardware as a daemon would send them."""

from __future__ import annotations

from autotune.v1 import (
    hardware_pb2,
    model_service_pb2,
    plan_pb2,
    registry_service_pb2,
    system_service_pb2,
)
from google.protobuf import duration_pb2

from tests.fakes.fake_messages import fit, listed_model

GIB = 1 << 30
RAM = hardware_pb2.MEMORY_PLACE_RAM


def reason(code: str, text: str) -> plan_pb2.PlanReason:
    return plan_pb2.PlanReason(code=code, text=text)


def offer(model: str, engine: str = "ollama", **fields: object) -> model_service_pb2.PullModelResponse:
    """4 GiB in two files, 3 GiB of them to come; ``fields`` replace what it says."""
    return model_service_pb2.PullModelResponse(
        offer=model_service_pb2.PullOffer(
            **{
                "model": model,
                "engine": engine,
                "source": model,
                "quantization": "Q4_K_M",
                "size_bytes": 4 * GIB,
                "missing_bytes": 3 * GIB,
                "files_count": 2,
                "folder": "/models",
                "disk_free_bytes": 100 * GIB,
                "reasons": [
                    reason("fits", "It will take 5.1 GiB, by its size alone, of the 16.0 GiB of RAM.")
                ],
                **fields,
            }
        )
    )


def progress(phase: int, done: int = 0, total: int = 0, **fields: object):
    """``fields`` are more of PullProgress."""
    rate = {"bytes_per_second": 40 << 20} if 0 < done < total else {}
    left = {"left_duration": duration_pb2.Duration(seconds=75)} if rate else {}
    event = model_service_pb2.PullProgress(
        **{"phase": phase, "done_bytes": done, "total_bytes": total, **rate, **left, **fields}
    )
    return model_service_pb2.PullModelResponse(progress=event)


def pulled(model: str, engine: str = "ollama", fetched_bytes: int = 3 * GIB):
    event = model_service_pb2.PulledModel(model=listed_model(model, engine), fetched_bytes=fetched_bytes)
    return model_service_pb2.PullModelResponse(pulled=event)


def registry_model(model: str = "qwen3-8b", **fields: object) -> registry_service_pb2.RegistryModel:
    return registry_service_pb2.RegistryModel(
        **{
            "id": model,
            "name": "Qwen3 8B",
            "publisher": "Qwen",
            "license": "Apache-2.0",
            "release_month": "2025-04",
            "parameters_count": 8_190_000_000,
            "active_parameters_count": 8_190_000_000,
            "architecture": "qwen3",
            "layers_count": 36,
            "train_context_tokens": 40960,
            "layers": [
                registry_service_pb2.RegistryLayers(
                    layers_count=36, kv_heads_count=8, key_length=128, value_length=128
                )
            ],
            "thinks": True,
            "calls_tools": True,
            "modalities": ["text"],
            "names": {"ollama": "qwen3:8b", "huggingface": "Qwen/Qwen3-8B-GGUF"},
            "sizes": [
                registry_service_pb2.RegistrySize(of="ollama", quantization="Q4_K_M", size_bytes=5 * GIB)
            ],
            "overall_score": 41.4,
            "ranks": {"coding": registry_service_pb2.RegistryRank(place=7, models_count=30)},
            "sources": {"layers": "https://example.org/config.json", "sizes": "https://example.org/tags"},
            **fields,
        }
    )


def recommendation(name: str = "qwen3:8b", **fields: object) -> registry_service_pb2.Recommendation:
    return registry_service_pb2.Recommendation(
        **{
            "model": registry_model(),
            "size": registry_service_pb2.RegistrySize(of="ollama", quantization="Q4_K_M", size_bytes=5 * GIB),
            "pull_name": name,
            "budget": hardware_pb2.MemoryBudget(place=RAM, name="RAM", capacity_bytes=16 * GIB),
            "footprint": plan_pb2.Footprint(weights_bytes=5 * GIB, kv_cache_bytes=GIB, total_bytes=6 * GIB),
            "context_tokens": 8192,
            "estimated_tokens_per_second": 23.4,
            "score": 71.5,
            "reasons": [reason("score", "It scored best of the 12 models that fit.")],
            **fields,
        }
    )


def machine() -> system_service_pb2.GetHardwareResponse:
    """A notebook with a GPU, whose browser takes the room of a model."""
    measured = hardware_pb2.Bandwidth(
        bytes_per_second=41_300_000_000, source=hardware_pb2.BANDWIDTH_SOURCE_MEASURED
    )
    specified = hardware_pb2.Bandwidth(
        bytes_per_second=1_008_000_000_000, source=hardware_pb2.BANDWIDTH_SOURCE_SPECIFIED
    )
    return system_service_pb2.GetHardwareResponse(
        hardware=hardware_pb2.Hardware(
            system="Linux 6.18",
            model="Notebook 14",
            cpu=hardware_pb2.Cpu(
                model="AMD EPYC",
                architecture="x86_64",
                physical_cores_count=8,
                logical_cores_count=16,
                performance_cores_count=4,
                instruction_sets=["AVX2", "AVX512"],
            ),
            memory_total_bytes=24 * GIB,
            memory_bandwidth=measured,
            gpus=[
                hardware_pb2.Gpu(
                    name="RTX 4090",
                    vendor="nvidia",
                    memory_total_bytes=24 * GIB,
                    memory_free_bytes=22 * GIB,
                    memory_bandwidth=specified,
                    driver="550.1",
                )
            ],
            power_source=hardware_pb2.POWER_SOURCE_BATTERY,
            battery_percent=80,
            thermal_state=hardware_pb2.THERMAL_STATE_FAIR,
            memory_limit_bytes=20 * GIB,
            swap_total_bytes=2 * GIB,
            memory_available_bytes=14 * GIB,
        ),
        budgets=[
            hardware_pb2.MemoryBudget(
                place=hardware_pb2.MEMORY_PLACE_GPU,
                name="RTX 4090",
                capacity_bytes=23 * GIB,
                available_bytes=21 * GIB,
                bandwidth=specified,
            ),
            hardware_pb2.MemoryBudget(
                place=RAM,
                name="RAM",
                capacity_bytes=16 * GIB,
                available_bytes=12 * GIB,
                bandwidth=measured,
                reasons=[reason("others", "Other programs usually take 4.0 GiB.")],
                is_used=True,
            ),
        ],
        models=[
            hardware_pb2.ModelFit(
                model="pocket", engine="llamacpp", fit=fit(), estimated_tokens_per_second=2765.4
            ),
            hardware_pb2.ModelFit(
                model="qwen3:8b",
                engine="ollama",
                fit=fit(plan_pb2.FIT_CLASS_SWAP_RISK, safe_context_tokens=0),
                estimated_tokens_per_second=6.42,
            ),
        ],
        applications=[
            hardware_pb2.Application(
                name="firefox",
                processes_count=12,
                memory_bytes=2_250_000_000,
                enabled_models=["qwen3:8b"],
            ),
            hardware_pb2.Application(name="code", processes_count=1, memory_bytes=900 << 20),
        ],
    )
