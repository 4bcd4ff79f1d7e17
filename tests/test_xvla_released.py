"""Laws of released weights: LeRobot's X-VLA and ours are one function, there and back."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from wbvla.xvla.checkpoint import load_model, save_model
from wbvla.xvla.config import Domain
from wbvla.xvla.florence import IMAGENET_MEAN, IMAGENET_STD, WindowAttention
from wbvla.xvla.model import Xvla
from wbvla.xvla.released import fill, is_florence, read_florence, translate, translate_florence, write_released
from xvla_world import ARMS, CHUNK, FLORENCE, PAD, SIZE, TEXT, small

MODES = {"ee6d": 20, "agibot_ee6d": 20, "joint": 14, "franka_joint7": 7, "so101_bimanual": 12, "auto": 9}
VIEWS = 2


def lerobot_policy(mode: str, chunk: int = CHUNK, state: int = 20, **changes):
    """LeRobot's own policy with small random weights, in evaluation mode."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.xvla.configuration_xvla import XVLAConfig
    from lerobot.policies.xvla.modeling_xvla import XVLAPolicy

    torch.manual_seed(0)
    images = {
        f"observation.images.{n}": PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE)) for n in ("image", "image2")
    }
    config = XVLAConfig(
        input_features={**images, "observation.state": PolicyFeature(FeatureType.STATE, (state,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (MODES[mode],))},
        florence_config=copy.deepcopy(FLORENCE), device="cpu", chunk_size=chunk, n_action_steps=chunk,
        tokenizer_max_length=TEXT, hidden_size=32, depth=2, num_heads=4, num_domains=20, len_soft_prompts=4,
        dim_time=8, max_len_seq=64, action_mode=mode, max_state_dim=20, **changes,
    )  # fmt: skip
    policy = XVLAPolicy(config).eval()
    with torch.no_grad():  # theirs starts with zero biases and identical norms, which would hide mistakes
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return policy


def inputs(n: int = 3) -> tuple[dict, dict]:
    """The same observations for ours and for theirs; rows of different robots, padded sentences."""
    g = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (n, VIEWS, SIZE, SIZE, 3), generator=g, dtype=torch.uint8)
    tokens = torch.randint(2, 60, (n, TEXT), generator=g)
    tokens[0, 5:] = PAD
    state, ids = torch.randn((n, 20), generator=g), torch.tensor([3, 0, 19])[:n]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    theirs = {
        "input_ids": tokens,
        "image_input": (images.permute(0, 1, 4, 2, 3).float() / 255.0 - mean) / std,
        "image_mask": torch.ones(n, VIEWS, dtype=torch.bool),
        "domain_id": ids,
        "proprio": state,
    }
    return {"images": images, "tokens": tokens, "state": state, "domains": ids}, theirs


def their_actions(policy, theirs: dict, steps: int, noise: torch.Tensor, monkeypatch) -> torch.Tensor:
    """LeRobot takes no noise: hand it out where it draws."""
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", lambda *shape, **kwargs: noise.clone())
        return policy.model.generate_actions(**theirs, steps=steps)


@pytest.mark.parametrize("mode", MODES)
def test_lerobots_weights_denoise_as_lerobots_and_go_back(mode, tmp_path, monkeypatch):
    from lerobot.policies.xvla.modeling_xvla import XVLAPolicy

    policy = lerobot_policy(mode)
    policy.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    batch, theirs = inputs()
    noise = torch.randn(3, CHUNK, policy.model.dim_action)
    for steps in (1, 4):
        wanted = their_actions(policy, theirs, steps, noise, monkeypatch)
        got = ours.sample(batch, steps, noise)
        assert got.shape == wanted.shape == (3, CHUNK, MODES[mode])
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
    write_released(tmp_path / "back", ours)
    again = XVLAPolicy.from_pretrained(tmp_path / "back")
    assert all(torch.equal(value, policy.state_dict()[name]) for name, value in again.state_dict().items())
    assert again.state_dict().keys() == policy.state_dict().keys()
    torch.testing.assert_close(their_actions(again, theirs, 4, noise, monkeypatch), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", sorted(MODES.keys() - {"so101_bimanual"}))
def test_losses_equal_lerobots(mode, tmp_path, monkeypatch):
    policy = lerobot_policy(mode)
    policy.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    batch, theirs = inputs()
    actions = torch.rand(3, CHUNK, MODES[mode])
    width = policy.model.dim_action
    noise, t = torch.randn(3, CHUNK, width), torch.tensor([0.2, 0.2 + 1 / 3, 0.2 + 2 / 3])
    padded = torch.nn.functional.pad(actions, (0, width - actions.shape[-1]))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", lambda *shape, **kwargs: torch.tensor([0.2]))
        patch.setattr(torch, "randn_like", lambda like: noise.clone())
        wanted = sum(policy.model(**theirs, action=padded).values())
    got = ours.losses({**batch, "actions": actions}, noise, t)["loss"]
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("high", "wide"), [(14, 14), (7, 7), (24, 12), (28, 30)])
def test_windows_that_maps_do_not_fill_cost_nothing_and_change_nothing(high, wide):
    from transformers.models.florence2.configuration_florence2 import Florence2VisionConfig
    from transformers.models.florence2.modeling_florence2 import Florence2VisionWindowAttention

    torch.manual_seed(0)
    config = Florence2VisionConfig()
    config._attn_implementation = "sdpa"
    theirs = Florence2VisionWindowAttention(config, stage_idx=0)
    torch.nn.init.normal_(theirs.qkv.bias)
    x = torch.randn(2, high, wide, config.embed_dim[0])
    torch.testing.assert_close(WindowAttention(theirs)(x), theirs(x), atol=1e-5, rtol=0)


def test_only_weights_in_use_are_laid_out_for_speed(tmp_path):
    """Optimisers, and LeRobot's files of them, take every tensor as it lies in memory."""
    lerobot_policy("ee6d").save_pretrained(tmp_path)
    model = load_model(tmp_path)
    strided = [name for name, weight in model.named_parameters() if not weight.is_contiguous()]
    assert strided and all(name.startswith("vlm.vision_tower.convs.") for name in strided)
    model.train()
    assert all(weight.is_contiguous() for weight in model.parameters())


def test_a_missing_camera_is_zeros_to_released_weights(tmp_path, monkeypatch):
    policy = lerobot_policy("ee6d")
    policy.save_pretrained(tmp_path)
    batch, theirs = inputs()
    theirs["image_mask"][1, 1] = False
    noise = torch.randn(3, CHUNK, 20)
    got = load_model(tmp_path).sample({**batch, "views": theirs["image_mask"]}, 2, noise)
    torch.testing.assert_close(got, their_actions(policy, theirs, 2, noise, monkeypatch), atol=1e-4, rtol=0)


def test_views_that_no_camera_has_are_zeros_to_released_weights(tmp_path, monkeypatch):
    """LeRobot appends them up to `num_image_views`, as for a robot with fewer cameras than the base model."""
    from lerobot.policies.xvla.modeling_xvla import XVLAPolicy

    policy = lerobot_policy("ee6d", num_image_views=4)
    policy.save_pretrained(tmp_path / "theirs")
    batch, theirs = inputs()
    behind = (0, 0) * 3 + (0, 2)
    theirs["image_input"] = torch.nn.functional.pad(theirs["image_input"], behind)
    theirs["image_mask"] = torch.nn.functional.pad(theirs["image_mask"], (0, 2))
    ours = load_model(tmp_path / "theirs")
    assert ours.config.domains["libero"].cameras == ("image", "image2", "no_camera_2", "no_camera_3")
    noise = torch.randn(3, CHUNK, 20)
    padded = {"images": torch.nn.functional.pad(batch["images"], behind), "views": theirs["image_mask"]}
    wanted = their_actions(policy, theirs, 2, noise, monkeypatch)
    torch.testing.assert_close(ours.sample({**batch, **padded}, 2, noise), wanted, atol=1e-4, rtol=0)
    write_released(tmp_path / "back", ours)
    again = XVLAPolicy.from_pretrained(tmp_path / "back")
    torch.testing.assert_close(their_actions(again, theirs, 2, noise, monkeypatch), wanted, atol=1e-6, rtol=0)


def test_a_state_that_lerobot_pads_is_the_datasets(tmp_path, monkeypatch):
    policy = lerobot_policy("auto", state=7)
    policy.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert {domain.state_dim for domain in ours.config.domains.values()} == {7}
    batch, theirs = inputs()
    theirs["proprio"] = torch.nn.functional.pad(batch["state"][:, :7], (0, 13))
    noise = torch.randn(3, CHUNK, 20)
    got = ours.sample({**batch, "state": batch["state"][:, :7]}, 2, noise)
    torch.testing.assert_close(got, their_actions(policy, theirs, 2, noise, monkeypatch), atol=1e-4, rtol=0)


def to_microsoft(tensors: dict) -> dict:
    """Rename transformers' Florence-2 to Microsoft's: the inverse of what checkpoints before LeRobot 0.6.1 need."""
    block = r"(vision_tower\.blocks\.\d+\.\d+\.(spatial|channel)_block)\."
    rules = [
        (r"(vision_tower\.convs\.\d+)\.conv\.", r"\1.proj."),
        (block + r"(conv[12])\.", r"\1.\3.fn.dw."),
        (block + r"norm1\.", r"\1.\2_attn.norm."),
        (block + r"(window|channel)_attn\.(?!norm)", r"\1.\3_attn.fn."),
        (block + r"norm2\.", r"\1.ffn.norm."),
        (block + r"ffn\.(?!norm)", r"\1.ffn.fn.net."),
        (r"multi_modal_projector\.image_proj_norm", "image_proj_norm"),
        (r"multi_modal_projector\.image_position_embed", "image_pos_embed"),
        (r"multi_modal_projector\.visual_temporal_embed", "visual_temporal_embed"),
        (r"language_model\.", "language_model.model."),
    ]
    old = {}
    for name, tensor in tensors.items():
        if name.endswith("image_projection.weight"):
            name, tensor = "model.vlm.image_projection", tensor.T.contiguous()
        for pattern, replacement in rules:
            name = re.sub(pattern, lambda m, r=replacement: m.expand(r).replace("spatial_attn", "window_attn"), name)
        old[name] = tensor
    old["model.vlm.language_model.final_logits_bias"] = torch.zeros(1, 64)
    return old


def test_older_layouts_open_as_well(tmp_path):
    from lerobot.policies.xvla.modeling_xvla import _remap_vendored_florence_state_dict

    policy = lerobot_policy("ee6d")
    policy.save_pretrained(tmp_path / "new")
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    old = to_microsoft(tensors)
    assert _remap_vendored_florence_state_dict(old).keys() == tensors.keys()  # the test's own names are right
    values = json.loads((tmp_path / "new" / "config.json").read_text())
    native = {k: v for k, v in values.items() if k not in ("type", "input_features", "output_features", "chunk_size")}
    native |= {"model_type": "xvla", "num_actions": CHUNK, "resize_imgs_with_padding": [SIZE, SIZE]}
    native["florence_config"] = microsoft_config()
    batch, _ = inputs()
    noise = torch.randn(3, CHUNK, 20)
    wanted = load_model(tmp_path / "new").sample(batch, 2, noise)
    for name, prefix, config in (("lerobot", "model.", values), ("2toinf", "", native)):
        folder = tmp_path / name
        folder.mkdir()
        save_file(
            {prefix + key.removeprefix("model."): value for key, value in old.items()}, folder / "model.safetensors"
        )
        (folder / "config.json").write_text(json.dumps(config))
        assert torch.equal(load_model(folder).sample(batch, 2, noise), wanted)


@pytest.mark.parametrize("layout", ["transformers", "microsoft"])
def test_florences_own_weights_become_the_encoder(layout, tmp_path):
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    torch.manual_seed(0)
    theirs = Florence2ForConditionalGeneration(Florence2Config(**copy.deepcopy(FLORENCE)))
    theirs.save_pretrained(tmp_path)
    if layout == "microsoft":
        tensors = load_file(tmp_path / "model.safetensors")
        old = to_microsoft({f"model.vlm.{name.removeprefix('model.')}": tensor for name, tensor in tensors.items()})
        old = {name.removeprefix("model.vlm."): tensor for name, tensor in old.items()}
        save_file(old, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(microsoft_config()))
    assert is_florence(tmp_path)
    config, tensors = read_florence(tmp_path)
    torch.manual_seed(1)
    ours = Xvla(small(florence=config)).vlm
    fill(ours, tensors)
    for part, wanted in (
        (ours.vision_tower, theirs.model.vision_tower),
        (ours.projector, theirs.model.multi_modal_projector),
        (ours.language, theirs.model.language_model.encoder),
    ):
        assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in part.state_dict().items())


def microsoft_config() -> dict:
    vision, text = (
        copy.deepcopy(FLORENCE["vision_config"]),
        {**FLORENCE["text_config"], "model_type": "florence2_language"},
    )
    vision["dim_embed"] = vision.pop("embed_dim")
    vision |= {"model_type": "davit", "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"]}
    vision["image_pos_embed"] = {"type": "learned_abs_2d", "max_pos_embeddings": 50}
    vision["visual_temporal_embedding"] = {"type": "COSINE", "max_temporal_embeddings": 100}
    return {"vision_config": vision, "text_config": text}


def test_growing_a_released_robot_keeps_its_answers(tmp_path):
    """Rows are ordered action, state, time: new entries push the later ones back and start without influence."""
    lerobot_policy("auto").save_pretrained(tmp_path)
    model = load_model(tmp_path)
    batch, _ = inputs()
    batch["domains"] = ["libero"] * 3
    noise = torch.randn(3, CHUNK, 24)
    noise[..., 20:] = 0.0
    wanted = model.sample(batch, 3, noise[..., :20])
    wide = Domain(40, "auto", 24, 33, ("image", "image2"))
    model.add_domain("humanoid", wide, like="libero")
    grown = {**batch, "domains": ["humanoid"] * 3, "state": torch.cat([batch["state"], torch.randn(3, 13)], 1)}
    got = model.sample(grown, 3, noise)
    torch.testing.assert_close(got[..., :9], wanted, atol=1e-5, rtol=0)
    model.add_domain("small", Domain(41, "auto", 7, 8), like="libero")  # too narrow: the prompt alone
    small, libero = model.domains["small"], model.domains["libero"]
    assert torch.equal(small.prompt, libero.prompt)
    for name, a, s in (("humanoid", 24, 33), ("small", 7, 8)):  # copied layers go on reading the units they know
        model.set_statistics(name, (torch.ones(a), torch.ones(a)), (torch.ones(s), torch.ones(s)), like="libero")
        assert model.domains[name].reads_units == (name == "humanoid")
    with pytest.raises(ValueError, match="copy a head: got Domain.*expected as many entries at least"):
        small.copy_layers(libero)
    save_model(tmp_path / "ours", model)
    assert torch.equal(load_model(tmp_path / "ours").sample(grown, 3, noise), got)


def test_what_does_not_fit_is_refused(tmp_path):
    from wbvla.xvla.model import Xvla

    with pytest.raises(ValueError, match="mask_padding: got True, expected False"):
        write_released(tmp_path / "out", Xvla(small({"arms": ARMS})))
    with pytest.raises(FileNotFoundError, match="expected config.json and model.safetensors"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="image_pos_embed: got 'sine'"):
        translate_florence({"vision_config": {"image_pos_embed": {"type": "sine"}}, "text_config": {"vocab_size": 1}})
    policy = lerobot_policy("ee6d")
    policy.save_pretrained(tmp_path / "theirs")
    values = json.loads((tmp_path / "theirs" / "config.json").read_text())
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({**values, "depth": 3}))
    with pytest.raises(ValueError, match=r"transformer.blocks.2.norm1.weight is missing"):
        load_model(tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({**values, "type": "act"}))
    with pytest.raises(ValueError, match="got a checkpoint of type 'act'"):
        load_model(tmp_path / "theirs")


def test_translation_keeps_every_shared_tensor(tmp_path):
    tensors = dict(lerobot_policy("ee6d").state_dict())
    names = translate(tensors)
    # three names of the word embeddings and the tables are all that becomes fewer or goes elsewhere
    assert len(names) == len(tensors) - 1
