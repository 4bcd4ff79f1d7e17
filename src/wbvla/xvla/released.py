"""Released weights. In: a checkpoint of LeRobot's `xvla` policy or of 2toINF/X-VLA. Out: our model, and back.

Theirs keep all robots in tables of one width (rows = domains), ours one head per robot; names of the rest differ in the
encoder only. Older checkpoints carry Microsoft's own Florence-2 modules, whose names and configuration are translated.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wbvla.xvla.config import PUBLISHED_IDS, Domain, XvlaConfig
from wbvla.xvla.model import Xvla

IMAGES = "observation.images."
TABLES = ("soft_prompt_hub", "action_encoder.fc", "action_encoder.bias", "action_decoder.fc", "action_decoder.bias")
MOST_IDS = 1000
ACTION_DIMS = {"ee6d": 20, "agibot_ee6d": 20, "joint": 14, "franka_joint7": 7, "so101_bimanual": 12}

# released name -> ours, for checkpoints that hold transformers' Florence-2
_NATIVE = [
    (r"^vlm\.multi_modal_projector\.", "vlm.projector."),
    (r"^vlm\.language_model\.shared\.", "vlm.language.embed_tokens."),  # the same tensor as encoder.embed_tokens
    (r"^vlm\.language_model\.encoder\.", "vlm.language."),
]
# Microsoft's Florence-2 -> transformers'
_BLOCK = r"^(vlm\.vision_tower\.blocks\.\d+\.\d+\.(?:spatial|channel)_block)\."
_MICROSOFT = [
    (r"^(vlm\.vision_tower\.convs\.\d+)\.proj\.", r"\1.conv."),
    (_BLOCK + r"(conv[12])\.fn\.dw\.", r"\1.\2."),
    (_BLOCK + r"(?:window|channel)_attn\.norm\.", r"\1.norm1."),
    (_BLOCK + r"(window_attn|channel_attn)\.fn\.", r"\1.\2."),
    (_BLOCK + r"ffn\.norm\.", r"\1.norm2."),
    (_BLOCK + r"ffn\.fn\.net\.", r"\1.ffn."),
    (r"^vlm\.image_projection$", "vlm.multi_modal_projector.image_projection.weight"),
    (r"^vlm\.image_proj_norm\.", "vlm.multi_modal_projector.image_proj_norm."),
    (r"^vlm\.image_pos_embed\.", "vlm.multi_modal_projector.image_position_embed."),
    (r"^vlm\.visual_temporal_embed\.", "vlm.multi_modal_projector.visual_temporal_embed."),
    (r"^vlm\.language_model\.model\.", "vlm.language_model."),
]
_UNUSED = re.compile(r"^vlm\.(language_model\.)?((model\.)?decoder\.|lm_head\.|final_logits_bias)")  # the decoder's


def read_released(values: dict[str, Any], tensors: dict[str, Tensor]) -> Xvla:
    """Build our model from a released config.json and its tensors; rows without a published robot are named row_N.

    Raises:
        ValueError: a variant that nobody released, or tensors that do not fit the configuration.
    """
    if values.get("use_hetero_proj"):
        raise ValueError("use_hetero_proj: got true, expected false as in all released weights")
    if "action_mode" not in values or "florence_config" not in values:
        raise ValueError("config.json: got no action_mode or florence_config, expected those of an X-VLA checkpoint")
    tensors = translate(tensors)
    tables = {name: tensors.pop(f"transformer.{name}.weight", None) for name in TABLES}
    if any(table is None for table in tables.values()):
        raise ValueError(f"weights: expected the tables {', '.join(TABLES)}; this is no X-VLA checkpoint")
    config = _config(values, tables)
    model = Xvla(config)
    for name, domain in config.domains.items():
        tensors |= _split(name, domain, config, tables)
    wanted = model.state_dict()
    for name in wanted.keys() - tensors.keys():  # statistics: there are none
        if name.startswith("domains."):
            tensors[name] = wanted[name]
    fill(model, tensors)
    return model.eval()


def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a released checkpoint's tensors to ours, in float32; tables of domains keep their names."""
    renamed: dict[str, Tensor] = {}
    for full, tensor in tensors.items():
        name = full.removeprefix("model.")
        if _UNUSED.match(name):
            continue
        if name == "vlm.image_projection":
            tensor = tensor.T  # stored as in x @ p
        for pattern, replacement in [*_MICROSOFT, *_NATIVE]:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor.float().contiguous()
    return renamed


def is_florence(folder: str | Path) -> bool:
    """Whether a folder's config.json is Florence-2's."""
    try:
        values = json.loads((Path(folder) / "config.json").read_text())
        return "vision_config" in values and "text_config" in values
    except (OSError, ValueError, TypeError):
        return False


def read_florence(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read Florence-2 in transformers' or Microsoft's layout: its configuration, and the encoder's tensors.

    Raises:
        ValueError: weights that are not in model.safetensors, or of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    config = translate_florence(json.loads((folder / "config.json").read_text()))
    try:
        tensors = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder}: expected Florence-2 in one model.safetensors ({error})") from None
    renamed = translate({f"vlm.{name.removeprefix('model.')}": tensor for name, tensor in tensors.items()})
    return config, {name.removeprefix("vlm."): tensor for name, tensor in renamed.items()}


def fill(model: torch.nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load tensors into a model. Raises ValueError naming the first that are missing, unknown or of another shape."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    lines = [f"{name} is missing" for name in wanted if name not in got]
    lines += [f"{name} is unknown" for name in got if name not in wanted]
    lines += [f"{n}: got {got[n]}, expected {wanted[n]}" for n in wanted if n in got and got[n] != wanted[n]]
    if lines:
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise ValueError(f"weights do not fit their configuration: {'; '.join(lines[:3])}{more}")
    model.load_state_dict(tensors)


def _config(values: dict[str, Any], tables: dict[str, Tensor]) -> XvlaConfig:
    """Read sizes from the configuration, and widths from the tables: the configuration's are only upper bounds."""
    hidden, time_dim = values.get("hidden_size", 1024), values.get("dim_time", 32)
    action_width = tables["action_decoder.bias"].shape[1]
    state_dim = tables["action_encoder.fc"].shape[1] // hidden - action_width - time_dim
    features = values.get("input_features") or {}
    shapes = {key: f["shape"] for key, f in features.items() if f["type"] == "VISUAL"}
    cameras = tuple(key.removeprefix(IMAGES) for key in shapes) or ("image", "image2", "image3")
    # views that no camera has: LeRobot appends zeros for them, and its model reads those
    cameras += tuple(f"no_camera_{i}" for i in range(len(cameras), values.get("num_image_views") or 0))
    action = values["action_mode"].lower()
    if action == "auto" and "observation.state" in features:  # what LeRobot pads it with has no influence
        state_dim = min(state_dim, features["observation.state"]["shape"][-1])
    output = (values.get("output_features") or {}).get("action")
    auto_dim = output["shape"][-1] if output else values.get("real_action_dim", action_width)
    action_dim = ACTION_DIMS.get(action, min(auto_dim, action_width))
    names = {row: name for name, row in PUBLISHED_IDS.items()}
    rows = range(len(tables["soft_prompt_hub"]))
    domains = {
        names.get(row, f"row_{row}"): Domain(row, action, action_dim, state_dim, cameras, action_width) for row in rows
    }
    square = [shape[1] for shape in shapes.values() if shape[1] == shape[2]]
    resized = values.get("resize_imgs_with_padding")
    return XvlaConfig(
        domains=domains,
        florence=translate_florence(values["florence_config"]),
        image_size=resized[0] if resized else square[0] if square else 224,
        tokenizer=values.get("tokenizer_name", "facebook/bart-large"),
        text_tokens=values.get("tokenizer_max_length", 50),
        chunk_steps=values.get("chunk_size") or values["num_actions"],
        hidden_size=hidden,
        depth=values.get("depth", 24),
        heads=values.get("num_heads", 16),
        mlp_ratio=values.get("mlp_ratio", 4.0),
        prompt_tokens=tables["soft_prompt_hub"].shape[1] // hidden,
        time_dim=time_dim,
        max_tokens=values.get("max_len_seq", 512),
        mask_padding=False,
    )


def _split(name: str, domain: Domain, config: XvlaConfig, tables: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return one row of the tables under our names; layers are stored (in, out) there."""
    row = {key: table[domain.id] for key, table in tables.items()}
    hidden = config.hidden_size
    columns = row["action_encoder.fc"].view(-1, hidden)  # action, state up to the table's width, time
    used = (columns[: domain.action_width + domain.state_dim], columns[len(columns) - config.time_dim :])
    tensors = {
        "prompt": row["soft_prompt_hub"].view(config.prompt_tokens, hidden),
        "encoder.weight": torch.cat(used).T,
        "encoder.bias": row["action_encoder.bias"],
        "decoder.weight": row["action_decoder.fc"].view(hidden, -1).T,
        "decoder.bias": row["action_decoder.bias"],
    }
    return {f"domains.{name}.{key}": tensor.contiguous() for key, tensor in tensors.items()}


def translate_florence(values: dict[str, Any]) -> dict[str, Any]:
    """Return a Florence-2 configuration in transformers' format, from that or from Microsoft's.

    Raises:
        ValueError: a part is missing or of a kind that transformers does not have.
    """
    if not values.get("vision_config") or not values.get("text_config"):
        raise ValueError("florence_config: expected vision_config and text_config; copy the whole checkpoint")
    vision, text = dict(values["vision_config"]), dict(values["text_config"])
    kinds = (
        ("image_pos_embed", "learned_abs_2d", "max_pos_embeddings", "max_position_embeddings"),
        ("visual_temporal_embedding", "COSINE", "max_temporal_embeddings", "max_temporal_embeddings"),
    )
    for old, kind, old_key, key in kinds:
        part = vision.pop(old, None)
        if part is not None:
            if part.get("type") != kind:
                raise ValueError(f"florence_config: {old}: got {part.get('type')!r}, expected {kind!r}")
            vision[key] = part[old_key]
    source = vision.pop("image_feature_source", None)
    if source not in (None, ["spatial_avg_pool", "temporal_avg_pool"]):
        raise ValueError(f"florence_config: image_feature_source: got {source}, expected both averages")
    if "dim_embed" in vision:
        vision["embed_dim"] = vision.pop("dim_embed")
    for unused in ("model_type", "enable_checkpoint"):
        vision.pop(unused, None)
    return {"vision_config": vision, "text_config": {**text, "model_type": "bart"}}


def write_released(folder: Path, model: Xvla) -> None:
    """Write config.json and model.safetensors that LeRobot's XVLAPolicy.from_pretrained opens.

    Raises:
        ValueError: something of this model that LeRobot's cannot express.
    """
    from safetensors.torch import save_file

    config = model.config
    domain = _check_expressible(model)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith("domains."):
            for pattern, replacement in (
                (r"^vlm\.projector\.", "vlm.multi_modal_projector."),
                (r"^vlm\.language\.embed_tokens\.", "vlm.language_model.shared."),
                (r"^vlm\.language\.", "vlm.language_model.encoder."),
            ):
                name = re.sub(pattern, replacement, name)
            tensors[f"model.{name}"] = tensor.detach().cpu().contiguous()
    tensors |= {f"model.transformer.{key}.weight": table for key, table in _join(model).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    size = config.image_size
    images = {f"{IMAGES}{camera}": {"type": "VISUAL", "shape": [3, size, size]} for camera in domain.cameras}
    values = {
        "type": "xvla",
        "input_features": {**images, "observation.state": {"type": "STATE", "shape": [domain.state_dim]}},
        "output_features": {"action": {"type": "ACTION", "shape": [domain.action_dim]}},
        "chunk_size": config.chunk_steps,
        "n_action_steps": config.chunk_steps,
        "florence_config": config.florence,
        "tokenizer_name": config.tokenizer,
        "tokenizer_max_length": config.text_tokens,
        "hidden_size": config.hidden_size,
        "depth": config.depth,
        "num_heads": config.heads,
        "mlp_ratio": config.mlp_ratio,
        "num_domains": 1 + max(d.id for d in config.domains.values()),
        "len_soft_prompts": config.prompt_tokens,
        "dim_time": config.time_dim,
        "max_len_seq": config.max_tokens,
        "action_mode": domain.action,
        "use_proprio": domain.state_dim > 0,
        "max_state_dim": domain.state_dim,
        "max_action_dim": model.domains[next(iter(config.domains))].space.width,
    }
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")


def _check_expressible(model: Xvla) -> Domain:
    config = model.config
    wanted = {"objective": "clean", "attention": "bidirectional", "mask_padding": False, "lora_rank": 0, "trunk": {}}
    lines = [f"{k}: got {getattr(config, k)!r}, expected {v!r}" for k, v in wanted.items() if getattr(config, k) != v]
    if (largest := max(d.id for d in config.domains.values())) >= MOST_IDS:
        lines.append(f"domains: got id {largest}, expected ids below {MOST_IDS}: the table has a row for each")
    kinds = {(d.action, d.action_dim, d.state_dim, d.action_width) for d in config.domains.values()}
    if len(kinds) > 1:
        lines.append(f"domains: got {len(kinds)} kinds of action and state, expected one for all robots")
    first = next(iter(config.domains.values()))
    if first.action not in (*ACTION_DIMS, "auto"):
        lines.append(f"action: got {first.action!r}, expected one of {', '.join([*ACTION_DIMS, 'auto'])}")
    for name, head in model.domains.items():
        if not head.reads_units:
            lines.append(f"{name}: has statistics, expected none")
    if lines:
        raise ValueError(f"LeRobot's xvla cannot express this model: {'; '.join(lines[:3])}")
    return first


def _join(model: Xvla) -> dict[str, Tensor]:
    """Return the tables of all robots; rows that no robot has are zero."""
    tables: dict[str, Tensor] = {}
    rows = 1 + max(d.id for d in model.config.domains.values())
    for head in model.domains.values():
        parts = (head.prompt, head.encoder.weight.T, head.encoder.bias, head.decoder.weight.T, head.decoder.bias)
        for key, part in zip(TABLES, parts):
            flat = part.detach().cpu().reshape(-1)
            tables.setdefault(key, torch.zeros(rows, len(flat)))[head.domain.id] = flat
    return tables
