"""Low-rank adapters on every linear layer that robots share (peft's layers). In: a model. Out: the same, adapted."""

from __future__ import annotations

from torch import nn

SHARED = ("vlm.", "transformer.")


def insert_adapters(model: nn.Module, rank: int) -> None:
    """Add adapters of `rank` (scaled by alpha = 2 rank, as upstream) to encoder and transformer; they start as zero."""
    from peft import LoraConfig, inject_adapter_in_model

    targets = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.startswith(SHARED)]
    moving = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), model)
    for name, parameter in model.named_parameters():
        # peft freezes all but its own layers; which parameters move is decided in wbvla.xvla.phases
        parameter.requires_grad_(moving.get(name.replace(".base_layer", ""), True))


def fold_adapters(model: nn.Module) -> None:
    """Add what the adapters have learned to the layers they sit on, and remove them."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
