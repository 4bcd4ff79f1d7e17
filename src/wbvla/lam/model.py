"""The latent action model. In: two frames k seconds apart. Out: a few codes, and features of the second frame.

Inverse dynamics: a spatio-temporal transformer reads the features of o_t and o_{t+k} with learned queries; the
queries' outputs at the second frame are quantised. Forward dynamics: a spatial transformer predicts the features of
o_{t+k} from those of o_t and the codes. Structure after Genie and UniVLA (reference: UniVLA's LAM).

Shapes: B pairs, T = 2 frames, N codes, P patches, F feature width, W transformer width.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wbvla.contract import load_contract
from wbvla.lam.config import FeatureConfig, ModelConfig
from wbvla.lam.features import PatchEncoder
from wbvla.lam.quantiser import Quantiser

WEIGHTS, CONTRACT = "model.safetensors", "contract.json"


class Attention(nn.Module):
    """Multi-head self-attention over the last-but-one axis of (..., tokens, W)."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-2, -3)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(y.transpose(-2, -3).flatten(-2))


def feed_forward(width: int) -> nn.Sequential:
    """Pre-normed MLP, four times as wide inside."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def grid_positions(grid: int, width: int) -> Tensor:
    """Sines and cosines of row and column, (grid * grid, width): a shift over the grid is a linear map of them."""
    frequency = torch.pi / grid * torch.arange(1, width // 4 + 1)
    angle = torch.arange(grid)[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], dim=-1)
    both = torch.cat([axis[:, None].expand(-1, grid, -1), axis[None].expand(grid, -1, -1)], dim=-1)
    return 0.5 * both.flatten(0, 1)


class SpatialBlock(nn.Module):
    """Attention among the tokens of a frame, then an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.space, self.mlp = Attention(width, heads), feed_forward(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.space(x)
        return x + self.mlp(x)


class SpatioTemporalBlock(nn.Module):
    """Attention among a frame's tokens, causal attention of each token to its past, then an MLP: (B, T, tokens, W)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.space, self.time = Attention(width, heads), Attention(width, heads, causal=True)
        self.mlp = feed_forward(width)

    def forward(self, x_BTSW: Tensor) -> Tensor:
        x = x_BTSW + self.space(x_BTSW)
        x = x + self.time(x.transpose(1, 2)).transpose(1, 2)
        return x + self.mlp(x)


class Readout(nn.Module):
    """Queries (B, N, W) gather from tokens (B, S, W) of both frames by cross-attention, then an MLP.

    The last encoder block needs the queries' outputs alone: leaving out the patches' saves half of the encoder.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value, self.out = (nn.Linear(width, n * width) for n in (1, 2, 1))
        self.mlp = feed_forward(width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        q = self.query(self.norm_query(queries)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(self.norm(tokens)).unflatten(-1, (2, self.heads, -1)).movedim(2, 0).transpose(2, 3)
        x = queries + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
        return x + self.mlp(x)


class InverseDynamics(nn.Module):
    """Frame pair features (B, 2, P, F) to continuous latents (B, N, D)."""

    def __init__(self, features: FeatureConfig, cfg: ModelConfig) -> None:
        super().__init__()
        self.n_codes = cfg.n_codes
        self.read, self.read_change = nn.Linear(features.dim, cfg.width), nn.Linear(features.dim, cfg.width)
        self.position = nn.Parameter(grid_positions(features.grid, cfg.width))
        self.frame = nn.Parameter(0.02 * torch.randn(2, 1, cfg.width))
        self.queries = nn.Parameter(torch.empty(cfg.n_codes, cfg.width).uniform_(-1, 1))
        self.blocks = nn.Sequential(*(SpatioTemporalBlock(cfg.width, cfg.heads) for _ in range(cfg.encoder_blocks - 1)))
        self.readout = Readout(cfg.width, cfg.heads)
        self.to_code = nn.Sequential(nn.LayerNorm(cfg.width), nn.Linear(cfg.width, cfg.code_dim))

    def forward(self, features_BTPF: Tensor) -> Tensor:
        # The change of each patch is given beside its content: temporal attention would have to learn it first.
        change = F.pad(features_BTPF[:, 1:] - features_BTPF[:, :1], (0, 0, 0, 0, 1, 0))
        patches = self.read(features_BTPF) + self.read_change(change) + self.position
        queries = self.queries.expand(*patches.shape[:2], -1, -1)
        x = self.blocks(torch.cat([queries, patches], dim=2) + self.frame)
        return self.to_code(self.readout(x[:, -1, : self.n_codes], x.flatten(1, 2)))


class ForwardDynamics(nn.Module):
    """Features of o_t (B, P, F) and codes (B, N, D) to features of o_{t+k} (B, P, F).

    The output is a change of the input, zero before training, so that training starts from the copied frame, the
    baseline that the reconstruction gain is measured against.
    """

    def __init__(self, features: FeatureConfig, cfg: ModelConfig) -> None:
        super().__init__()
        self.read, self.read_code = nn.Linear(features.dim, cfg.width), nn.Linear(cfg.code_dim, cfg.width)
        self.spread_codes = nn.Linear(cfg.n_codes * cfg.code_dim, cfg.width)
        self.position = nn.Parameter(grid_positions(features.grid, cfg.width))
        self.code_position = nn.Parameter(0.02 * torch.randn(cfg.n_codes, cfg.width))
        self.blocks = nn.Sequential(*(SpatialBlock(cfg.width, cfg.heads) for _ in range(cfg.decoder_blocks)))
        self.norm, self.write = nn.LayerNorm(cfg.width), nn.Linear(cfg.width, features.dim)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(self, features_BPF: Tensor, codes_BND: Tensor) -> Tensor:
        # Every patch is told the codes, so that where it looks can depend on them from the first block on.
        patches = self.read(features_BPF) + self.position + self.spread_codes(codes_BND.flatten(1))[:, None]
        x = torch.cat([self.read_code(codes_BND) + self.code_position, patches], dim=1)
        x = self.blocks(x)[:, codes_BND.shape[1] :]
        return features_BPF + self.write(self.norm(x))


class LatentActionModel(nn.Module):
    """Frozen features, inverse dynamics, quantiser and forward dynamics of one family (`mani` or `loco`)."""

    def __init__(self, encoder: PatchEncoder, cfg: ModelConfig) -> None:
        super().__init__()
        self.encoder, self.cfg = encoder, cfg
        self.inverse = InverseDynamics(encoder.cfg, cfg)
        self.quantiser = Quantiser(cfg.codebook_size, cfg.code_dim, cfg.codebook_weight, cfg.commitment_weight)
        self.dynamics = ForwardDynamics(encoder.cfg, cfg)
        self.contract: dict = {}

    def forward(self, first_BPF: Tensor, second_BPF: Tensor) -> dict[str, Tensor]:
        """Reconstruct the second frame's features; returns loss, mse, z (B, N, D) and indices (B, N)."""
        z = self.inverse(torch.stack([first_BPF, second_BPF], dim=1))
        codes, indices, vq_loss = self.quantiser(z)
        mse = F.mse_loss(self.dynamics(first_BPF, codes), second_BPF)
        return {"loss": mse + vq_loss, "mse": mse, "z": z, "indices": indices}

    @torch.no_grad()
    def encode_features(self, first_BPF: Tensor, second_BPF: Tensor) -> Tensor:
        """Return the code indices (B, N) int64 of pairs of feature maps."""
        return self.quantiser.nearest(self.inverse(torch.stack([first_BPF, second_BPF], dim=1)))

    @torch.no_grad()
    def encode(self, images_t: Tensor, images_tk: Tensor) -> Tensor:
        """Return the code indices (B, N) int64 of frame pairs.

        Args:
            images_t, images_tk: (B, H, W, 3) uint8, `k_s` of the contract apart; numpy arrays are taken too.
        Raises:
            ValueError: another size or type than the model was trained on.
        """
        return self.encode_features(self.encoder(images_t), self.encoder(images_tk))


def weights_id(state: dict[str, Tensor]) -> str:
    """Hash names, shapes and values of some weights: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def build_contract(model: LatentActionModel, family: str, k_s: float) -> dict:
    """Describe what a user of these weights must know; `lam_id` names exactly these weights."""
    return {
        "kind": "lam",
        "family": family,
        "k_s": k_s,
        "size": model.encoder.cfg.image_size,
        "n_codes": model.cfg.n_codes,
        "codebook_size": model.cfg.codebook_size,
        "features": asdict(model.encoder.cfg),
        "model": asdict(model.cfg),
        "encoder_id": weights_id(model.encoder.state_dict()),
        "lam_id": weights_id(model.state_dict()),
    }


def load_lam(path: str | Path) -> LatentActionModel:
    """Open a trained model folder for inference.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no model, foreign or damaged weights; one line with the fix.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no latent action model here; expected a folder of `wbvla lam train`")
    contract = load_contract(path / CONTRACT, "lam")
    try:
        model = LatentActionModel(PatchEncoder(FeatureConfig(**contract["features"])), ModelConfig(**contract["model"]))
        model.load_state_dict(load_file(path / WEIGHTS))
        wanted = contract["lam_id"]
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ArithmeticError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path}: not a whole latent action model ({reason}); train it again or copy both files"
        ) from None
    got = weights_id(model.state_dict())
    if got != wanted:
        raise ValueError(f"{path}: got weights {got}, the contract was written for {wanted}; copy both files together")
    model.contract = contract
    return model.eval().requires_grad_(False)
