"""What `model.args` may hold: a list of what shapes an architecture, so that nothing in it makes a
client load a file, follow an address or build without end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fedsense_core.errors import ConfigError, nearest

_GIVEN = "model.weights starts from given weights, which the server alone reads"
_VECTOR = "the encoder gives one vector an image, for its heads to take"
_AS_IT_IS = "the encoder is trained as it is"
TIMMS_OWN = {
    "model_name": "model.architecture says it",
    "in_chans": "data.bands says which bands are read",
    "num_classes": "the encoder has no classifier",
    **dict.fromkeys(["pretrained", "checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay"], _GIVEN),
    **dict.fromkeys(["pretrained_strict", "pretrained_filter_fn", "pretrained_model_args"], _GIVEN),
    **dict.fromkeys(["features_only", "out_indices", "feature_cls", "feature_cfg"], _VECTOR),
    **dict.fromkeys(["scriptable", "exportable", "no_jit", "pruned", "kwargs_filter"], _AS_IT_IS),
}
"""Arguments of ``timm.create_model`` that are not the architecture's, and why `model.args` cannot
hold them. Some would make every client fetch or read a file."""

# Parameters of the constructors in timm.models.
_SIZES = """
    img_size patch_size patch_sizes embed_dim embed_dims depth depths dim dims layers channels num_heads
    num_kv_heads head_dim hidden_sizes widths width_list depth_list stem_width stem_size stem_chs init_channels
    num_features key_dim dim_mul head_mul growth_rate cardinality base_width groups heads kernel_size kernel_sizes
    down_kernel_size down_patch_size down_stride patch_kernel patch_stride patch_padding stem_kernel_size
    stem_stride window_size window_ratio focal_levels focal_windows reg_tokens output_stride expand_ratio
    expansion_ratio mlp_ratio mlp_ratios sr_ratios attn_ratio conv_ratio width_mult depth_mult se_ratio
    num_blocks stages strides q_pool q_stride mask_unit_size global_pos_size
"""
_PARTS = """
    norm_layer act_layer aa_layer mlp_layer norm_layer_cl norm_eps stem_type stem_norm pad_type pool_type
    global_pool weight_init class_token pos_embed no_embed_class pre_norm final_norm fc_norm use_fc_norm qkv_bias
    proj_bias qk_norm scale_attn_norm scale_mlp_norm init_values ls_init_value layer_scale_init_value use_grn
    conv_mlp conv_bias head_init_scale head_norm_first avg_down replace_stem_pool block_reduce_first
    zero_init_last preact ape patch_norm always_partition use_pos_embed use_abs_pos_emb use_post_norm
    use_layer_scale token_mixers block_types downsamples swiglu_mlp scale_mlp
"""
_DROPOUT = """
    drop_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate drop_path_rate drop_block_rate
"""
_ANY_SIZE = "dynamic_img_size dynamic_img_pad strict_img_size"
ARCHITECTURAL = frozenset(f"{_SIZES} {_PARTS} {_DROPOUT} {_ANY_SIZE}".split())
"""What `model.args` may hold."""

MOST_IN_A_LIST, MOST_LAYERS, MOST_NUMBER = 64, 512, 65_536
"""Of a list's values; of layers, blocks or stages that one number asks for; of any other number."""
LAYERS = frozenset({"depth", "depths", "layers", "num_blocks", "stages", "depth_list", "focal_levels"})
WORD = re.compile(r"[A-Za-z0-9_.-]{0,40}")
"""A name that timm looks up, such as ``groupnorm1``: no address and no path."""


def check_architecture(name: str) -> None:
    """Raise ConfigError for a name that is none of timm's registry: with a prefix, timm would
    fetch the model from a hub or read it from a folder, at every client."""
    if not re.fullmatch(r"[A-Za-z0-9_.]{1,80}", name):
        raise ConfigError(
            f"wrong configuration: model.architecture = {name[:80]!r} is not a timm model: give a name that timm "
            "registers, such as 'resnet18', without a hub, an address or a folder"
        )


def check_args(args: Mapping[str, Any]) -> None:
    """Raise ConfigError for the first argument that shapes no architecture, or whose value no
    network needs."""
    for key, value in args.items():
        if key in TIMMS_OWN:
            raise ConfigError(f"wrong configuration: model.args cannot hold {key!r}: {TIMMS_OWN[key]}")
        if key not in ARCHITECTURAL:
            allowed = ", ".join(sorted(ARCHITECTURAL))
            hint = nearest(key, sorted(ARCHITECTURAL))
            raise ConfigError(
                f"wrong configuration: model.args cannot hold {key[:60]!r}, which is not known to shape an "
                f"architecture.{hint} Allowed are {allowed}"
            )
        if wrong := _wrong(value, MOST_LAYERS if key in LAYERS else MOST_NUMBER):
            raise ConfigError(f"wrong configuration: model.args.{key} = {str(value)[:60]!r}: {wrong}")


def _wrong(value: Any, most: int, inside: int = 0) -> str:
    """Say what is wrong with a value; empty if nothing is."""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, int | float):
        return "" if abs(value) <= most else f"numbers go up to {most}"
    if isinstance(value, str):
        return (
            "" if WORD.fullmatch(value) else "texts are names of up to 40 letters, digits, dots, hyphens, underscores"
        )
    if isinstance(value, list | tuple) and inside < 2:
        if len(value) > MOST_IN_A_LIST:
            return f"lists have up to {MOST_IN_A_LIST} values"
        return next((wrong for one in value if (wrong := _wrong(one, most, inside + 1))), "")
    return "give a number, a text, true, false, or a list of them"
