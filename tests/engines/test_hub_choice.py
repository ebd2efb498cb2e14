"""Which files of a repository are taken; the lists are those of public repositories, named as publishers name them."""

import itertools

import pytest

from autotuned.engines.downloads.hub_choice import HubFile, choose_gguf, has_gguf, is_within
from autotuned.engines.downloads.hub_mlx import choose_mlx, may_be_mlx
from autotuned.engines.downloads.protocol import DownloadFailure

TYPES = (
    "IQ2_M IQ3_M IQ3_XS IQ3_XXS IQ4_NL IQ4_XS Q2_K Q2_K_L Q3_K_L Q3_K_M Q3_K_S Q3_K_XL Q4_0 Q4_1 Q4_K_L Q4_K_M "
    "Q4_K_S Q5_K_L Q5_K_M Q5_K_S Q6_K Q6_K_L Q8_0 bf16"
)
BARTOWSKI = [
    "README.md",
    "Qwen_Qwen3-8B-imatrix.gguf",
    *(f"Qwen_Qwen3-8B-{each}.gguf" for each in TYPES.split()),
]
QWEN = [
    "LICENSE",
    *(f"qwen2.5-7b-instruct-fp16-{part:05d}-of-00004.gguf" for part in range(1, 5)),
    "qwen2.5-7b-instruct-q2_k.gguf",
    "qwen2.5-7b-instruct-q3_k_m.gguf",
    *(f"qwen2.5-7b-instruct-q4_0-{part:05d}-of-00002.gguf" for part in range(1, 3)),
    *(f"qwen2.5-7b-instruct-q4_k_m-{part:05d}-of-00002.gguf" for part in range(1, 3)),
    *(f"qwen2.5-7b-instruct-q8_0-{part:05d}-of-00003.gguf" for part in range(1, 4)),
]
UNSLOTH = [
    *(f"BF16/Qwen3-30B-A3B-BF16-{part:05d}-of-00002.gguf" for part in range(1, 3)),
    *(
        f"Qwen3-30B-A3B-{each}.gguf"
        for each in ("IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K_M", "Q4_0", "Q4_K_M", "Q6_K")
    ),
    *(f"Qwen3-30B-A3B-UD-{each}.gguf" for each in ("IQ1_M", "Q2_K_XL", "Q3_K_XL", "Q4_K_XL", "Q8_K_XL")),
    "mmproj-BF16.gguf",
    "mmproj-F16.gguf",
    "imatrix_unsloth.dat",
    "config.json",
]
LARGE = [
    *(f"BF16/Qwen3-235B-A22B-BF16-{part:05d}-of-00010.gguf" for part in range(1, 11)),
    *(f"Q4_K_M/Qwen3-235B-A22B-Q4_K_M-{part:05d}-of-00003.gguf" for part in range(1, 4)),
    *(f"UD-Q2_K_XL/Qwen3-235B-A22B-UD-Q2_K_XL-{part:05d}-of-00002.gguf" for part in range(1, 3)),
]
GPT_OSS = ["README.md", *(f"gpt-oss-120b-mxfp4-{part:05d}-of-00003.gguf" for part in range(1, 4))]
GEMMA = ["gemma-3-4b-it-q4_0.gguf", "mmproj-model-f16-4B.gguf"]
PHI = ["Phi-3-mini-4k-instruct-fp16.gguf", "Phi-3-mini-4k-instruct-q4.gguf", "README.md"]
THE_BLOKE = [
    f"llama-2-7b-chat.{each}.gguf" for each in ("Q2_K", "Q3_K_L", "Q4_0", "Q4_K_M", "Q5_K_M", "Q8_0")
]
QAT = ["gemma-4-12b-it-qat-UD-Q2_K_XL.gguf", "gemma-4-12b-it-qat-UD-Q4_K_XL.gguf", "mmproj-F16.gguf"]
MLX = [
    *(".gitattributes", "README.md", "added_tokens.json", "config.json", "merges.txt", "model.safetensors"),
    *("model.safetensors.index.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"),
    "vocab.json",
]
SHARDED = [name for name in MLX if name != "model.safetensors"] + [
    f"model-{part:05d}-of-00004.safetensors" for part in range(1, 5)
]
LLAMA = [*SHARDED, "original/consolidated.00.pth", "original/params.json", "USE_POLICY.md"]
FOUR_BITS = {"model_type": "qwen3", "quantization": {"group_size": 64, "bits": 4}}


def files(paths):
    return [
        HubFile(path=path, size_bytes=1 + number, blob_name=f"{number:040x}")
        for number, path in enumerate(paths)
    ]


@pytest.mark.parametrize(
    ("paths", "wanted", "quantization", "chosen"),
    [
        (BARTOWSKI, "", "Q4_K_M", ["Qwen_Qwen3-8B-Q4_K_M.gguf"]),
        (BARTOWSKI, "q8_0", "Q8_0", ["Qwen_Qwen3-8B-Q8_0.gguf"]),
        (BARTOWSKI, "BF16", "BF16", ["Qwen_Qwen3-8B-bf16.gguf"]),
        (BARTOWSKI, "Qwen_Qwen3-8B-IQ4_XS.gguf", "IQ4_XS", ["Qwen_Qwen3-8B-IQ4_XS.gguf"]),
        (QWEN, "", "Q4_K_M", QWEN[9:11]),
        (QWEN, "FP16", "FP16", QWEN[1:5]),
        (QWEN, "qwen2.5-7b-instruct-q8_0-00002-of-00003.gguf", "Q8_0", QWEN[11:]),
        (UNSLOTH, "", "Q4_K_M", ["Qwen3-30B-A3B-Q4_K_M.gguf"]),
        (UNSLOTH, "Q4_K_XL", "UD-Q4_K_XL", ["Qwen3-30B-A3B-UD-Q4_K_XL.gguf"]),
        (UNSLOTH, "ud-q2_k_xl", "UD-Q2_K_XL", ["Qwen3-30B-A3B-UD-Q2_K_XL.gguf"]),
        (UNSLOTH, "BF16", "BF16", UNSLOTH[:2]),
        (LARGE, "", "Q4_K_M", LARGE[10:13]),
        (LARGE, "Q2_K_XL", "UD-Q2_K_XL", LARGE[13:]),
        (LARGE, "Q4_K_M/Qwen3-235B-A22B-Q4_K_M-00001-of-00003.gguf", "Q4_K_M", LARGE[10:13]),
        (GPT_OSS, "", "MXFP4", GPT_OSS[1:]),
        (GEMMA, "", "Q4_0", GEMMA[:1]),
        (PHI, "", "Q4", ["Phi-3-mini-4k-instruct-q4.gguf"]),
        (THE_BLOKE, "", "Q4_K_M", ["llama-2-7b-chat.Q4_K_M.gguf"]),
        (QAT, "", "UD-Q4_K_XL", ["gemma-4-12b-it-qat-UD-Q4_K_XL.gguf"]),
        (["model.gguf", "ggml-vocab-llama.gguf"], "", "", ["model.gguf"]),
        (["Some-7B-imatrix-Q4_K_M.gguf"], "", "Q4_K_M", ["Some-7B-imatrix-Q4_K_M.gguf"]),
        (["Some-F16.gguf", "Some-Q2_K.gguf", "Some-Q8_0.gguf"], "", "Q8_0", ["Some-Q8_0.gguf"]),
        (["Some-F16.gguf", "Some-Q2_K.gguf", "Some-Q3_K_S.gguf"], "", "Q3_K_S", ["Some-Q3_K_S.gguf"]),
        (["Some-F32.gguf", "Some-F16.gguf"], "", "F16", ["Some-F16.gguf"]),
        (["Some-Q4_K_M.GGUF", "old/Some-Q4_K_M.gguf"], "", "Q4_K_M", ["Some-Q4_K_M.GGUF"]),
        (["Q8_0/model.gguf", "Q4_0/model.gguf"], "Q8_0", "Q8_0", ["Q8_0/model.gguf"]),
    ],
)
def test_the_files_of_a_gguf_model(paths, wanted, quantization, chosen):
    choice = choose_gguf("some/repository", files(paths), wanted)
    assert choice.engine == "llamacpp"
    assert choice.quantization == quantization
    assert [file.path for file in choice.files] == chosen


def test_the_order_of_the_files_does_not_matter():
    for paths in itertools.permutations(["a-Q4_0.gguf", "a-Q8_0.gguf", "a-Q4_K_S.gguf", "a-IQ4_XS.gguf"]):
        assert choose_gguf("some/repository", files(paths), "").quantization == "Q4_K_S"


@pytest.mark.parametrize(
    ("paths", "wanted", "reason", "words"),
    [
        (
            QWEN,
            "Q5_K_M",
            "FIELD_INVALID",
            'the quantization "Q5_K_M"; it has Q4_K_M, Q4_0, Q8_0, Q3_K_M, Q2_K, FP16.',
        ),
        (BARTOWSKI, "Q9", "FIELD_INVALID", "Q4_K_M, Q4_K_S, Q4_0, IQ4_XS, IQ4_NL, Q4_K_L, Q4_1, Q5_K_M"),
        (BARTOWSKI, "imatrix", "FIELD_INVALID", "and 12 more."),
        (GEMMA[1:], "", "UNSUPPORTED", "are no models"),
        (GPT_OSS[:3], "", "UNSUPPORTED", "are no models"),
        (["vocab.gguf"], "", "UNSUPPORTED", "are no models"),
        (
            ["b-Q4_K_M.gguf", "a-Q4_K_M.gguf"],
            "",
            "FIELD_INVALID",
            'several models: a-Q4_K_M.gguf, b-Q4_K_M.gguf; name one, as in "hf:some/repository:a-Q4_K_M.gguf".',
        ),
    ],
)
def test_words_for_what_is_not_there(paths, wanted, reason, words):
    with pytest.raises(DownloadFailure) as failure:
        choose_gguf("some/repository", files(paths), wanted)
    assert failure.value.failed.reason == reason
    assert words in failure.value.failed.message


@pytest.mark.parametrize(
    ("name", "configuration", "paths", "label"),
    [
        ("mlx-community/Qwen3-8B-4bit", FOUR_BITS, MLX, "4-bit"),
        ("lmstudio-community/Qwen3-8B-MLX-4bit", FOUR_BITS, SHARDED, "4-bit"),
        ("mlx-community/Llama-3.2-1B-Instruct-bf16", {"model_type": "llama"}, MLX, "bf16"),
        ("mlx-community/Llama-3.2-1B-Instruct-8bit", {}, MLX, "8-bit"),
        ("mlx-community/gpt-oss-20b", {"quantization": {"bits": 4, "mode": "mxfp4"}}, MLX, "mxfp4 4-bit"),
        ("mlx-community/Some", {}, [*MLX, "adapters.safetensors", "model.py", "assets/image.png"], ""),
    ],
)
def test_the_files_of_an_mlx_model(name, configuration, paths, label):
    assert may_be_mlx(files(paths))
    assert not has_gguf(files(paths))
    choice = choose_mlx(name, files(paths), configuration, "")
    besides = {".gitattributes", "README.md", "adapters.safetensors", "model.py", "assets/image.png"}
    assert {file.path for file in choice.files} == set(paths) - besides
    assert (choice.engine, choice.stem, choice.quantization) == ("mlx", "", label)
    assert choice.weights_bytes == sum(
        f.size_bytes for f in files(paths) if f.path.startswith("model") and f.path.endswith("rs")
    )


@pytest.mark.parametrize("wanted", ["4-bit", "4bit", "4Bit"])
def test_the_quantization_of_an_mlx_model_may_be_said(wanted):
    assert choose_mlx("mlx-community/Qwen3-8B-4bit", files(MLX), FOUR_BITS, wanted).quantization == "4-bit"


@pytest.mark.parametrize(
    ("name", "configuration", "paths", "wanted", "words"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", {}, LLAMA, "", "neither GGUF files nor weights"),
        ("Qwen/Qwen3-8B-AWQ", {"quantization_config": {"bits": 4}}, MLX, "", "neither GGUF"),
        (
            "mlx-community/Some-4bit",
            FOUR_BITS,
            SHARDED[:-1],
            "",
            "model-00004-of-00004.safetensors",
        ),
        (
            "mlx-community/Some-4bit",
            FOUR_BITS,
            ["config.json", "model.safetensors"],
            "",
            "tokenizer",
        ),
        (
            "mlx-community/Some-4bit",
            FOUR_BITS | {"model_file": "x.py"},
            MLX,
            "",
            "not executed",
        ),
        (
            "mlx-community/Some-4bit",
            FOUR_BITS,
            MLX,
            "Q8_0",
            'only 4-bit, not Q8_0; leave ":Q8_0"',
        ),
        ("mlx-community/Some", {}, MLX, "4bit", "no quantization, not 4bit"),
    ],
)
def test_words_for_what_mlx_cannot_run(name, configuration, paths, wanted, words):
    with pytest.raises(DownloadFailure) as failure:
        choose_mlx(name, files(paths), configuration, wanted)
    assert failure.value.failed.reason == ("FIELD_INVALID" if wanted else "UNSUPPORTED")
    assert words in failure.value.failed.message


@pytest.mark.parametrize(
    "paths", [["pytorch_model.bin", "config.json"], ["model.safetensors"], ["unet/model.safetensors"]]
)
def test_what_is_for_other_programs_by_its_names(paths):
    assert not may_be_mlx(files(paths))


@pytest.mark.parametrize("path", ["", "/a", "a//b", "../a", "a/..", "a/./b", "a\\b", "a\0b", "a/"])
def test_names_that_lead_out_of_a_repository(path):
    assert not is_within(path)
    assert is_within("a/b..c/d.gguf")
