"""Models of transformers with random weights, each from a configuration small enough for a test."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from torch import nn

from tests.truth.torchvision_import import make_torchvision_importable

__all__ = ["TRANSFORMERS_MODELS"]

Settings = Mapping[str, Any]

_TEXT: Final[dict[str, Any]] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 60,
}
_TOKENS: Final[dict[str, Any]] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_DECODER: Final = {**_TEXT, **_TOKENS, "num_key_value_heads": 1}
_GPT: Final = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 60, "n_positions": 16}
_SEQUENCE_TO_SEQUENCE: Final = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
}
_BART: Final = {**_SEQUENCE_TO_SEQUENCE, "vocab_size": 60, "max_position_embeddings": 16}
_VISION: Final = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 8,
}
_WINDOWS: Final = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [1, 2],
    "window_size": 2,
}
_RESNET: Final = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 8, 8, 8],
    "depths": [1, 1, 1, 1],
    "out_features": ["stage4"],
}
_SPEECH: Final = {
    **_TEXT,
    "conv_dim": [8, 8],
    "conv_stride": [2, 2],
    "conv_kernel": [3, 3],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
_SHORT_TEXT: Final = {**_TEXT, **_TOKENS, "max_position_embeddings": 16}

_CONFIGURATIONS: Final[dict[str, tuple[str, Settings]]] = {
    "bert": ("BertForMaskedLM", _TEXT),
    "roberta": ("RobertaModel", _TEXT),
    "xlm-roberta": ("XLMRobertaForMaskedLM", _TEXT),
    "layoutlm": ("LayoutLMModel", _TEXT),
    "ernie": ("ErnieModel", _TEXT),
    "megatron-bert": ("MegatronBertModel", _TEXT),
    "data2vec": ("Data2VecTextModel", _TEXT),
    "albert": ("AlbertModel", {**_TEXT, "embedding_size": 8}),
    "electra": ("ElectraForPreTraining", {**_TEXT, "embedding_size": 8}),
    "distilbert": (
        "DistilBertModel",
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 60},
    ),
    "deberta": ("DebertaV2Model", {**_TEXT, "relative_attention": True, "position_buckets": 4}),
    "longformer": ("LongformerModel", {**_TEXT, "attention_window": 4}),
    "esm": (
        "EsmModel",
        {**_TEXT, "position_embedding_type": "rotary", "pad_token_id": 1, "mask_token_id": 2},
    ),
    "bros": (
        "BrosModel",
        {
            **_TEXT,
            "dim_bbox_sinusoid_emb_2d": 8,
            "dim_bbox_sinusoid_emb_1d": 2,
            "dim_bbox_projection": 8,
        },
    ),
    "ibert": ("IBertModel", {**_TEXT, "quant_mode": True}),
    "gpt2": ("GPT2LMHeadModel", {**_GPT, **_TOKENS}),
    "gpt-neo": (
        "GPTNeoForCausalLM",
        {
            **_TEXT,
            **_TOKENS,
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 16,
        },
    ),
    "gpt-neox": ("GPTNeoXForCausalLM", _TEXT),
    "gpt-j": ("GPTJForCausalLM", {**_GPT, **_TOKENS, "rotary_dim": 4}),
    "ctrl": ("CTRLModel", {**_GPT, "dff": 16}),
    "llama": ("LlamaForCausalLM", _DECODER),
    "mistral": ("MistralModel", _DECODER),
    "gemma": ("GemmaForCausalLM", _DECODER),
    "qwen3": ("Qwen3ForCausalLM", _DECODER),
    "phi": ("PhiForCausalLM", _DECODER),
    "phi3": ("Phi3ForCausalLM", {**_DECODER, "pad_token_id": 0}),
    "olmo2": ("Olmo2ForCausalLM", _DECODER),
    "cohere": ("CohereForCausalLM", _DECODER),
    "starcoder2": ("Starcoder2ForCausalLM", _DECODER),
    "stablelm": ("StableLmForCausalLM", _DECODER),
    "granite": ("GraniteForCausalLM", _DECODER),
    "smollm3": ("SmolLM3ForCausalLM", _DECODER),
    "glm": ("GlmForCausalLM", {**_DECODER, "pad_token_id": 0}),
    "nemotron": ("NemotronForCausalLM", _DECODER),
    "qwen2": ("Qwen2ForCausalLM", {**_DECODER, "tie_word_embeddings": True}),
    "qwen3-moe": (
        "Qwen3MoeForCausalLM",
        {
            **_DECODER,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 8,
            "head_dim": 8,
        },
    ),
    "gemma3": ("Gemma3ForCausalLM", {**_DECODER, "head_dim": 8}),
    "deepseek-v3": (
        "DeepseekV3ForCausalLM",
        {
            **_DECODER,
            "num_key_value_heads": 2,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 8,
            "q_lora_rank": 8,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 8,
            "first_k_dense_replace": 1,
        },
    ),
    "minimax": (
        "MiniMaxForCausalLM",
        {
            **_DECODER,
            "head_dim": 8,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "layer_types": ["linear_attention", "full_attention"],
            "block_size": 4,
        },
    ),
    "lfm2-moe": (
        "Lfm2MoeForCausalLM",
        {
            **_DECODER,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 8,
            "num_dense_layers": 1,
            "layer_types": ["conv", "full_attention"],
            "use_expert_bias": True,
        },
    ),
    "mamba": (
        "MambaForCausalLM",
        {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 60, "state_size": 4},
    ),
    "rwkv": (
        "RwkvModel",
        {
            "hidden_size": 16,
            "attention_hidden_size": 16,
            "num_hidden_layers": 2,
            "vocab_size": 60,
        },
    ),
    "reformer": (
        "ReformerModel",
        {
            "hidden_size": 16,
            "attention_head_size": 8,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "feed_forward_size": 16,
            "vocab_size": 60,
            "attn_layers": ["local", "lsh"],
            "axial_pos_shape": [4, 4],
            "axial_pos_embds_dim": [8, 8],
            "num_buckets": 2,
            "max_position_embeddings": 16,
        },
    ),
    "t5": (
        "T5ForConditionalGeneration",
        {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_heads": 2, "num_layers": 2, "vocab_size": 60},
    ),
    "bart": ("BartForConditionalGeneration", _BART),
    "m2m100": ("M2M100ForConditionalGeneration", _BART),
    "vit": ("ViTForImageClassification", _VISION),
    "dinov2": ("Dinov2Model", _VISION),
    "swin": ("SwinModel", _WINDOWS),
    "swin-v2": ("Swinv2Model", _WINDOWS),
    "donut": ("DonutSwinModel", _WINDOWS),
    "levit": (
        "LevitModel",
        {
            "image_size": 64,
            "hidden_sizes": [16, 16, 16],
            "num_attention_heads": [2, 2, 2],
            "depths": [1, 1, 1],
            "key_dim": [4, 4, 4],
            "mlp_ratio": [1, 1, 1],
            "attention_ratio": [1, 1, 1],
            "drop_path_rate": 0,
        },
    ),
    "clip": (
        "CLIPModel",
        {"text_config": _SHORT_TEXT, "vision_config": _VISION, "projection_dim": 8},
    ),
    "siglip": ("SiglipModel", {"text_config": _SHORT_TEXT, "vision_config": _VISION}),
    "detr": (
        "DetrModel",
        {
            **_SEQUENCE_TO_SEQUENCE,
            "backbone_config": _RESNET,
            "use_timm_backbone": False,
            "backbone": None,
            "use_pretrained_backbone": False,
            "num_queries": 5,
        },
    ),
    "whisper": (
        "WhisperForConditionalGeneration",
        {
            **_SEQUENCE_TO_SEQUENCE,
            **_TOKENS,
            "decoder_start_token_id": 1,
            "vocab_size": 60,
            "num_mel_bins": 8,
            "max_source_positions": 8,
            "max_target_positions": 8,
        },
    ),
    "wav2vec2": ("Wav2Vec2Model", _SPEECH),
    "wav2vec2-conformer": (
        "Wav2Vec2ConformerModel",
        {**_SPEECH, "position_embeddings_type": "rotary"},
    ),
    "encodec": (
        "EncodecModel",
        {
            "num_filters": 2,
            "hidden_size": 8,
            "codebook_size": 16,
            "codebook_dim": 8,
            "num_lstm_layers": 1,
            "upsampling_ratios": [4, 2],
            "target_bandwidths": [60.0],
        },
    ),
    "mimi": (
        "MimiModel",
        {
            "num_filters": 8,
            "hidden_size": 16,
            "codebook_size": 16,
            "codebook_dim": 8,
            "vector_quantization_hidden_dimension": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "intermediate_size": 16,
            "upsampling_ratios": [2, 2],
            "num_quantizers": 3,
            "num_semantic_quantizers": 1,
            "upsample_groups": 16,
        },
    ),
    "clap": (
        "ClapModel",
        {
            "text_config": _TEXT,
            "audio_config": {
                "hidden_size": 32,
                "patch_embeds_hidden_size": 8,
                "depths": [1, 1],
                "num_attention_heads": [1, 1],
                "spec_size": 32,
                "num_mel_bins": 8,
                "window_size": 2,
                "projection_dim": 8,
            },
            "projection_dim": 8,
        },
    ),
    "speecht5-vocoder": (
        "SpeechT5HifiGan",
        {
            "model_in_dim": 8,
            "upsample_initial_channel": 16,
            "upsample_rates": [2, 2],
            "upsample_kernel_sizes": [4, 4],
            "resblock_kernel_sizes": [3],
            "resblock_dilation_sizes": [[1]],
        },
    ),
}


def _build(class_name: str, settings: Settings) -> nn.Module:
    make_torchvision_importable()
    transformers = importlib.import_module("transformers")
    model_class = getattr(transformers, class_name)
    # A toy vocabulary lacks the tokens that the defaults name; this is told as a warning.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module = model_class(model_class.config_class(**settings))
    return model


TRANSFORMERS_MODELS: Final[dict[str, Callable[[], nn.Module]]] = {
    name: partial(_build, class_name, settings)
    for name, (class_name, settings) in _CONFIGURATIONS.items()
}
