"""Laws of phases, adapters and prompt packs: what is named moves and nothing else; a robot travels in one file."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from wbvla.xvla.batches import mix
from wbvla.xvla.checkpoint import load_model, save_model
from wbvla.xvla.config import Domain
from wbvla.xvla.model import Xvla
from wbvla.xvla.packs import export_pack, import_pack, trunk_id
from wbvla.xvla.phases import MODES, PARTS, learning_rate_factors, parameter_groups, part_of, set_trainable
from xvla_world import ARMS, PAD, ROBOTS, TRUNK, batch_of, small


@pytest.fixture
def model() -> Xvla:
    torch.manual_seed(0)
    return Xvla(small(attention="prefix")).eval()


def pulled_by_training(model: Xvla) -> set[str]:
    """Names of parameters with a gradient in one of two steps on all robots; no other changes, not by a bit."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.Adam(parameter_groups(model, 1e-3, pretrained_scale=1.0))
    batch, pulled = mix([batch_of(name, 2) for name in ROBOTS], PAD), set()
    for _ in range(2):  # adapters start as a product with zero, of which one factor moves first
        optimiser.zero_grad()
        model.losses(batch, generator=torch.Generator().manual_seed(0))["loss"].backward()
        pulled |= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        optimiser.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed <= pulled
    return pulled


def names_of(model: Xvla, *starts: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(starts)}


HEADS = [f"domains.{robot}.{layer}" for robot in ROBOTS for layer in ("encoder", "decoder")]
PROMPTS = [f"domains.{robot}.prompt" for robot in ROBOTS]


@pytest.mark.parametrize(
    ("mode", "domains", "freeze", "starts"),
    [
        ("joint", None, (), ("vlm.", "transformer.", "domains.")),
        ("joint", ["g1"], (), ("vlm.", "transformer.", "domains.g1.")),
        ("warmup", None, (), ("domains.",)),
        ("warmup", ["g1", 31], (), ("domains.g1.", "domains.arms.")),
        ("prompts", None, (), tuple(PROMPTS)),
        ("prompts", ["franka"], (), ("domains.franka.prompt",)),
        ("joint", None, ("vision",), ("vlm.projector", "vlm.language", "transformer.", "domains.")),
        ("joint", None, ("projector",), ("vlm.vision_tower", "vlm.language", "transformer.", "domains.")),
        ("joint", None, ("language",), ("vlm.vision_tower", "vlm.projector", "transformer.", "domains.")),
        ("joint", None, ("transformer",), ("vlm.", "domains.")),
        ("joint", None, ("prompts",), ("vlm.", "transformer.", *HEADS)),
        ("joint", None, ("heads",), ("vlm.", "transformer.", *PROMPTS)),
        ("joint", None, ("vision", "projector", "language", "transformer", "heads"), tuple(PROMPTS)),
    ],
)
def test_exactly_what_is_named_moves(model, mode, domains, freeze, starts):
    expected = names_of(model, *starts)
    assert set(set_trainable(model, mode, domains, freeze)) == expected
    assert pulled_by_training(model) == expected


@pytest.mark.parametrize("freeze", [(), ("trunk",), ("transformer", "heads")])
def test_a_trunk_moves_as_an_encoder_does(freeze):
    torch.manual_seed(0)
    model = Xvla(small(**TRUNK))
    expected = {name for name, _ in model.named_parameters() if part_of(name) not in freeze}
    assert set(set_trainable(model, "joint", freeze=freeze)) == expected
    assert pulled_by_training(model) == expected


def test_adapters_move_and_what_they_adapt_does_not(model):
    batch = batch_of("g1")
    noise = torch.randn(3, 6, 26)
    before = model.sample(batch, 2, noise)
    with pytest.raises(ValueError, match="without adapters; call add_adapters"):
        set_trainable(model, "lora")
    model.add_adapters(2)
    assert torch.equal(model.sample(batch, 2, noise), before)
    expected = set(set_trainable(model, "lora", ["g1"]))
    assert expected == {n for n, _ in model.named_parameters() if ".lora_" in n or n.startswith("domains.g1.")}
    assert pulled_by_training(model) == expected
    after = model.sample(batch, 2, noise)
    assert not torch.allclose(after, before)


def test_adapters_are_saved_and_merged(model, tmp_path):
    batch, noise = batch_of("g1"), torch.randn(3, 6, 26)
    model.add_adapters(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.05)
    wanted = model.sample(batch, 2, noise)
    save_model(tmp_path / "adapted", model)
    again = load_model(tmp_path / "adapted")
    assert torch.equal(again.sample(batch, 2, noise), wanted)
    again.merge_adapters()
    assert again.config == small(attention="prefix") and not any("lora" in name for name in again.state_dict())
    torch.testing.assert_close(again.sample(batch, 2, noise), wanted, atol=1e-5, rtol=1e-5)


def test_every_parameter_is_of_one_part(model):
    model.add_adapters(2)
    seeing = Xvla(small(**TRUNK))
    parts = {part_of(name) for either in (model, seeing) for name, _ in either.named_parameters()}
    assert parts == set(PARTS)
    with pytest.raises(ValueError, match="freeze: this model has no vision, expected some of trunk, transformer"):
        set_trainable(seeing, "joint", freeze=("vision",))
    assert not any(name.startswith("vlm.") for name in set_trainable(seeing, "joint", freeze=("trunk",)))
    assert set(set_trainable(model, "joint")) == {name for name, _ in model.named_parameters()}
    assert set(MODES["lora"]) < set(PARTS)
    with pytest.raises(ValueError, match="mode: got 'phase1', expected one of joint, warmup, prompts, lora"):
        set_trainable(model, "phase1")
    with pytest.raises(ValueError, match="freeze: got eyes"):
        set_trainable(model, "joint", freeze=("eyes",))
    with pytest.raises(ValueError, match="nothing is left to move"):
        set_trainable(model, "prompts", freeze=("prompts",))
    with pytest.raises(ValueError, match="domain: got 'x2'"):
        set_trainable(model, "prompts", ["x2"])


def test_learning_rates_are_grouped_and_rise_when_they_should(model):
    set_trainable(model, "joint")
    groups = parameter_groups(model, 1e-4, prompt_scale=2.0, heads_scale=0.5)
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == pytest.approx(
        {"vision": 1e-5, "projector": 1e-5, "language": 1e-5, "transformer": 1e-4, "prompts": 2e-4, "heads": 5e-5}
    )
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    optimiser = torch.optim.AdamW(groups)
    factors = learning_rate_factors([group["name"] for group in groups], 100, 10, hold_steps=20)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factors)
    history = []
    for _ in range(101):
        history.append({group["name"]: group["lr"] / rates[group["name"]] for group in optimiser.param_groups})
        optimiser.step()
        schedule.step()
    assert history[0]["prompts"] == pytest.approx(0.1, rel=1e-3) and history[9]["heads"] > 0.95
    assert history[19]["transformer"] == history[19]["vision"] == 0.0 < history[20]["vision"]
    assert history[30]["transformer"] == pytest.approx(history[30]["prompts"])
    assert history[100]["prompts"] == pytest.approx(0.025)
    with pytest.raises(ValueError, match="expected at most 10 steps"):
        learning_rate_factors(["prompts"], 10, 8, 8)


def test_a_pack_carries_a_robot_to_another_model(model, tmp_path):
    batch, noise = batch_of("arms"), torch.randn(3, 6, 14)
    model.domains["arms"].space.set_statistics([0.5] * 14, [2.0] * 14)
    wanted = model.sample(batch, 2, noise)
    export_pack(tmp_path / "arms.safetensors", model, 31)
    save_model(tmp_path / "model", model)
    for other in ("model", "model/model.safetensors"):
        before = (tmp_path / "model/model.safetensors").read_bytes()
        with pytest.raises(ValueError, match="not a prompt pack"):
            export_pack(tmp_path / other, model, 31)
        assert (tmp_path / "model/model.safetensors").read_bytes() == before
    export_pack(tmp_path / "arms.safetensors", model, 31)  # over an older one
    # swapped in the same trunk: the robot changes and comes back
    with torch.no_grad():
        model.domains["arms"].prompt.normal_()
    assert not torch.allclose(model.sample(batch, 2, noise), wanted)
    assert import_pack(tmp_path / "arms.safetensors", model) == "arms"
    assert torch.equal(model.sample(batch, 2, noise), wanted)
    # added to a model that never knew it
    other = load_model(tmp_path / "model")
    del other.domains["arms"]
    known = {name: domain for name, domain in other.config.domains.items() if name != "arms"}
    other.config = small(known, attention="prefix")
    import_pack(tmp_path / "arms.safetensors", other)
    assert torch.equal(other.sample(batch, 2, noise), wanted)


def test_the_command_writes_a_robot_and_puts_it_into_another_model(model, tmp_path, capsys):
    from wbvla.cli import main

    save_model(tmp_path / "model", model)
    before = model.domains["arms"].prompt.detach().clone()
    with torch.no_grad():
        model.domains["arms"].prompt.normal_()
    save_model(tmp_path / "trained", model)
    pack, both = str(tmp_path / "arms.safetensors"), str(tmp_path / "both")
    assert main(["xvla", "pack", "--model", str(tmp_path / "trained"), "--robot", "31", "--file", pack]) == 0
    assert main(["xvla", "pack", "--model", str(tmp_path / "model"), "--file", pack, "--out", both]) == 0
    assert capsys.readouterr().out == f"arms: wrote {pack}\narms: wrote {both}\n"
    assert torch.equal(load_model(both).domains["arms"].prompt, model.domains["arms"].prompt)
    assert torch.equal(load_model(tmp_path / "model").domains["arms"].prompt, before)
    for flags, message in (
        (["--file", pack], "expected one of them"),
        (["--file", pack, "--robot", "x2"], "domain: got 'x2', expected one of g1"),
        (["--file", both, "--out", both], "no prompt pack at"),
    ):
        assert main(["xvla", "pack", "--model", str(tmp_path / "model"), *flags]) == 2
        assert message in capsys.readouterr().err


def test_packs_that_do_not_fit_are_refused(model, tmp_path):
    pack = tmp_path / "arms.safetensors"
    export_pack(pack, model, "arms")
    trunk = trunk_id(model)
    trained = copy.deepcopy(model)
    assert trunk_id(trained) == trunk
    with torch.no_grad():
        trained.transformer.norm.bias += 1e-3
    for other in (trained, Xvla(model.config)):
        with pytest.raises(ValueError, match=f"made for trunk {trunk}, got a model with trunk"):
            import_pack(pack, other)
    renamed = small({"g1": ROBOTS["g1"], "arms": Domain(31, "joint", 14, 14, ("front",))}, attention="prefix")
    model.config = renamed
    with pytest.raises(ValueError, match="its robot 'arms' has other numbers"):
        import_pack(pack, model)
    tensors = load_file(pack)
    save_file(tensors, tmp_path / "bare.safetensors")
    for path, message in (
        (tmp_path / "bare.safetensors", "not a prompt pack"),
        (tmp_path / "text", "not a prompt pack"),
    ):
        (tmp_path / "text").write_text("hello")
        with pytest.raises(ValueError, match=message):
            import_pack(path, model)
    with pytest.raises(FileNotFoundError, match="no prompt pack at"):
        import_pack(tmp_path / "nothing", model)


def test_a_new_robot_starts_from_another_one(model):
    model.add_domain("arms2", Domain(50, "joint", 14, 20, ARMS.cameras), like="arms")
    batch, noise = batch_of("arms"), torch.randn(3, 6, 14)
    longer = {**batch, "domains": [50] * 3, "state": torch.cat([batch["state"], torch.randn(3, 6)], 1)}
    torch.testing.assert_close(model.sample(longer, 2, noise), model.sample(batch, 2, noise), atol=1e-5, rtol=1e-5)
    model.add_domain("g2", Domain(51, "auto", 9, 4), like="g1")  # another action space: the prompt alone
    assert torch.equal(model.domains["g2"].prompt, model.domains["g1"].prompt)
    assert model.domains["g2"].prompt.data_ptr() != model.domains["g1"].prompt.data_ptr()
    ordered = Domain(52, "auto", 14, 20, ARMS.cameras, state_names=tuple(f"entry {i}" for i in range(20)))
    fewer = replace(ordered, id=53, state_dim=12, state_names=ordered.state_names[11::-1])
    model.add_domain("ordered", ordered)
    model.add_domain("fewer", fewer, like="ordered")
    state = torch.cat([longer["state"][:, :12], torch.zeros(3, 8)], 1)
    wanted = model.sample({**longer, "domains": [52] * 3, "state": state}, 2, noise)
    got = model.sample({**longer, "domains": [53] * 3, "state": state[:, :12].flip(1)}, 2, noise)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    for name, robot, message in (("g2", 60, "exists already"), ("g3", 51, "id 51 is taken by 'g2'")):
        with pytest.raises(ValueError, match=message):
            model.add_domain(name, Domain(robot, "auto", 9, 4))
