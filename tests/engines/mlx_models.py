"""Small models with random weights in Hugging Face's layout, made by mlx_lm itself."""

from __future__ import annotations

import json
import shutil

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map
from mlx_lm.utils import _get_classes

from tests.engines.mlx_paths import POCKET

PLAIN = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 2048,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
}
SPARSE = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "shared_expert_intermediate_size": 64,
    "moe_intermediate_size": 64,
    "mlp_only_layers": [0, 1, 2, 3],
    "norm_topk_prob": True,
}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
    "partial_rotary_factor": 0.5,
}
WINDOWS = ["sliding_attention", "full_attention"] * 2
CONFIGURATIONS = {
    "llama": {"model_type": "llama"},
    "llama with windows": {"model_type": "llama", "layer_types": WINDOWS, "sliding_window": 100},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
    "gemma3": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 3,
        "sliding_window": 100,
        "sliding_window_pattern": 3,
    },
    "cohere2": {
        "model_type": "cohere2",
        "num_hidden_layers": 4,
        "sliding_window": 200,
        "head_dim": 32,
        "layer_norm_eps": 1e-5,
        "logit_scale": 1.0,
    },
    "gpt_oss": {
        "model_type": "gpt_oss",
        "sliding_window": 128,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rope_scaling": {"factor": 2.0, "original_max_position_embeddings": 4096, "rope_type": "yarn"},
    },
    "olmo3": {"model_type": "olmo3", "sliding_window": 100, "layer_types": WINDOWS},
    "qwen3_next": {"model_type": "qwen3_next", **SPARSE, **LINEAR},
    "lfm2": {
        "model_type": "lfm2",
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_dim": 128,
        "block_ff_dim": 128,
        "block_multiple_of": 32,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [1, 3],
        "head_dim": None,
    },
    "falcon_h1": {
        "model_type": "falcon_h1",
        "mamba_d_ssm": 128,
        "mamba_n_heads": 4,
        "mamba_d_head": 32,
        "mamba_d_state": 16,
        "mamba_expand": 1,
        "lm_head_multiplier": 1.0,
    },
    "mamba2": {
        "model_type": "mamba2",
        "num_heads": 8,
        "head_dim": 32,
        "state_size": 16,
        "layer_norm_epsilon": 1e-5,
        "conv_kernel": 4,
        "n_groups": 1,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_limit": [0.0, 100.0],
        "time_step_rank": "auto",
        "intermediate_size": 256,
    },
    "deepseek_v3": {
        "model_type": "deepseek_v3",
        "moe_intermediate_size": 64,
        "n_shared_experts": 1,
        "n_routed_experts": 4,
        "routed_scaling_factor": 1.0,
        "kv_lora_rank": 64,
        "q_lora_rank": 64,
        "qk_rope_head_dim": 32,
        "v_head_dim": 32,
        "qk_nope_head_dim": 32,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_layer_freq": 1,
        "first_k_dense_replace": 4,
        "head_dim": None,
    },
}


def configuration_of(name):
    """The configuration of one of them."""
    values = {**PLAIN, **CONFIGURATIONS[name]}
    return {key: value for key, value in values.items() if value is not None}


def random_model(name, dtype=mx.bfloat16, gain=1.0):
    """A model that computes something, and nothing sensible; what it reads matters more with a high gain."""
    mx.random.seed(0)
    configuration = configuration_of(name)
    model_class, arguments_class = _get_classes(configuration)
    model = model_class(arguments_class.from_dict(configuration))
    model.update(
        tree_map(
            lambda array: (
                (array * gain if array.ndim > 1 else array).astype(dtype)
                if array.dtype == mx.float32
                else array
            ),
            model.parameters(),
        )
    )
    mx.eval(model.parameters())
    return model


def write_model(folder, name, dtype=mx.bfloat16, gain=1.0):
    """The model in a folder of its own, with the tokenizer of the pocket model."""
    folder.mkdir(parents=True, exist_ok=True)
    model = random_model(name, dtype, gain)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (folder / "config.json").write_text(json.dumps(configuration_of(name)))
    for file_name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(POCKET / file_name, folder / file_name)
    return model
