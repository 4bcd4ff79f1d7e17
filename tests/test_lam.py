"""Laws of the latent action models: pairs in seconds, codebook use, training, resuming, labels, probes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from wbvla.lam import train as lam_train
from wbvla.lam.label import CODES, LABELS, LabelLam, load_labels
from wbvla.lam.label import run as run_label
from wbvla.lam.model import WEIGHTS, load_lam
from wbvla.lam.pairs import frame_pairs, held_out
from wbvla.lam.probe import linear_probe, probe, telemetry_targets
from wbvla.lam.quantiser import Quantiser, usage_metrics
from wbvla.lam.train import TrainLam

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_clip(path: Path, fps: int, seconds: float, seed: int) -> None:
    """Write a video of a window that slides over a random picture."""
    rng = np.random.default_rng(seed)
    picture = np.kron(rng.integers(0, 255, (40, 40, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    speed = rng.uniform(-30, 30, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", fps, options={"preset": "ultrafast"})
        stream.width = stream.height = 96
        stream.pix_fmt = "yuv420p"
        for i in range(round(seconds * fps)):
            y, x = (100 + speed * i / fps).astype(int)
            frame = np.ascontiguousarray(picture[y : y + 96, x : x + 96])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for i in range(3):
        write_clip(root / f"{i}.mp4", fps=10, seconds=3.0, seed=i)
    return root


@pytest.fixture(scope="module")
def settings(videos, tmp_path_factory) -> TrainLam:
    shared = tmp_path_factory.mktemp("lam")
    return TrainLam(
        out=str(shared / "model"), videos=(str(videos),), steps=6, batch=8, cache=str(shared / "cache"), family="loco"
    )


@pytest.fixture(scope="module")
def metrics(settings) -> dict:
    return lam_train.run(settings)


def random_pairs():
    rng = np.random.default_rng(0)
    return (torch.from_numpy(rng.integers(0, 255, (5, 96, 96, 3), np.uint8)) for _ in range(2))


# --- pairs


def test_gap_is_kept_in_seconds_for_mixed_and_irregular_rates():
    rng = np.random.default_rng(0)
    times = [np.arange(40) / 10, np.arange(90) / 29.97, np.arange(80) / 25, np.sort(rng.uniform(0, 4, 60))]
    t_s = np.concatenate(times)
    clip = np.repeat(np.arange(4), [len(t) for t in times])
    partner = frame_pairs(clip, t_s, 0.5)
    rows = np.flatnonzero(partner >= 0)
    assert (clip[rows] == clip[partner[rows]]).all()
    for i, t in enumerate(times):
        mine = rows[clip[rows] == i]
        assert np.abs(t_s[partner[mine]] - t_s[mine] - 0.5).max() <= 0.5 * np.median(np.diff(t)) + 1e-6
        last = t_s[clip == i][-1]
        assert (partner[(clip == i) & (t_s + 0.5 > last + np.median(np.diff(t)))] == -1).all()
    assert (partner[:35] == np.arange(35) + 5).all() and (partner[35:40] == -1).all()


def test_gap_must_be_positive_seconds():
    with pytest.raises(ValueError, match="k_s: got 0"):
        frame_pairs(np.zeros(3, int), np.arange(3.0), 0)


def test_held_out_takes_whole_clips_of_large_sources_and_tails_of_small_ones():
    clip = np.repeat(np.arange(23), 10)
    source = np.array([0] * 20 + [1] * 3)
    mask = held_out(clip, source)
    share = np.array([mask[clip == i].mean() for i in range(23)])
    assert sorted(share[:20]) == [0] * 18 + [1] * 2
    assert np.allclose(share[20:], 0.2) and mask[-2:].all()


# --- quantiser


def test_usage_of_known_histograms():
    even = usage_metrics(np.arange(16).repeat(3).reshape(-1, 4), 16)
    assert even == {"utilisation": 1.0, "perplexity": pytest.approx(16.0), "dead_codes": 0}
    single = usage_metrics(np.full((9, 4), 5), 16)
    assert single == {"utilisation": 1 / 16, "perplexity": pytest.approx(1.0), "dead_codes": 15}
    mixed = usage_metrics(np.array([0, 0, 1, 1, -1, -1]), 8)  # -1 is no code
    assert mixed == {"utilisation": 0.25, "perplexity": pytest.approx(2.0), "dead_codes": 6}


def test_codebook_and_encoder_get_their_own_weights():
    torch.manual_seed(0)
    quantiser = Quantiser(8, 4, codebook_weight=1.0, commitment_weight=0.25)
    z = torch.randn(6, 2, 4, requires_grad=True)
    codes, indices, loss = quantiser(z)
    assert torch.allclose(codes, quantiser.decode(indices), atol=1e-6)
    loss.backward()
    distance = (z - quantiser.decode(indices)).detach()
    assert torch.allclose(z.grad, 0.25 * 2 * distance / distance.numel(), atol=1e-7)
    book = quantiser.codebook.grad
    expected = torch.zeros_like(book).index_add(0, indices.flatten(), -2 * distance.flatten(0, 1) / distance.numel())
    assert torch.allclose(book, expected, atol=1e-7)


def test_gradient_passes_straight_through():
    quantiser = Quantiser(8, 4, 0.0, 0.0)
    z = torch.randn(6, 2, 4, requires_grad=True)
    codes, _, _ = quantiser(z)
    weight = torch.randn_like(z)
    (codes * weight).sum().backward()
    assert torch.allclose(z.grad, weight)


def test_dead_codes_restart_on_encoder_outputs_and_live_ones_stay():
    torch.manual_seed(0)
    quantiser = Quantiser(8, 4, 1.0, 0.25).train()
    with torch.no_grad():
        quantiser.codebook.copy_(torch.cat([torch.zeros(1, 4), torch.full((7, 4), 100.0)]))
    z = 0.1 * torch.randn(50, 2, 4)
    quantiser(z)
    assert quantiser.restart_dead(z, 0.1, torch.Generator().manual_seed(0)) == 7
    assert torch.equal(quantiser.codebook[0], torch.zeros(4))
    assert all((code == z.flatten(0, 1)).all(1).any() for code in quantiser.codebook[1:])
    quantiser(z)
    assert (quantiser.usage > 0).sum() > 4


# --- training


def test_training_writes_model_contract_and_metrics(settings, metrics):
    model = load_lam(settings.out)
    contract = model.contract
    assert (contract["kind"], contract["family"], contract["k_s"], contract["size"]) == ("lam", "loco", 0.5, 96)
    assert (contract["n_codes"], contract["codebook_size"]) == (4, 16) and len(contract["encoder_id"]) == 16
    assert metrics == json.loads((Path(settings.out) / "metrics.json").read_text())
    for name in ("utilisation", "perplexity", "dead_codes", "rrg", "loss", "steps", "seconds"):
        assert np.isfinite(metrics[name]), name
    assert list(metrics["sources"]) == list(settings.videos)
    assert sum(metrics["histogram"]) == 4 * metrics["pairs"]
    assert not list(Path(settings.out).glob("*.tmp*")) and not (Path(settings.out) / "checkpoint.safetensors").exists()


def test_a_finished_model_is_kept_and_another_run_refused(settings, metrics):
    assert lam_train.run(settings) == metrics
    with pytest.raises(ValueError, match=r"--no-resume.*seed: got 0, expected 1"):
        lam_train.run(replace(settings, seed=1))


def test_a_damaged_model_is_not_mistaken_for_a_finished_one(settings, metrics, tmp_path):
    cfg = replace(settings, out=str(tmp_path / "model"))
    shutil.copytree(settings.out, cfg.out)
    (tmp_path / "model" / WEIGHTS).unlink()
    assert lam_train.run(cfg)["lam_id"] == metrics["lam_id"]  # trained again
    for text in ("{", "[]", "{}"):
        (tmp_path / "model" / "metrics.json").write_text(text)
        with pytest.raises(ValueError, match=r"metrics\.json: unreadable"):
            lam_train.run(cfg)


def test_loading_gives_identical_codes(settings, metrics, tmp_path):
    first, second = random_pairs()
    model = load_lam(settings.out)
    codes = model.encode(first, second)
    assert codes.shape == (5, 4) and codes.dtype == torch.int64 and codes.min() >= 0 and codes.max() < 16
    for name in (WEIGHTS, "contract.json"):
        (tmp_path / name).write_bytes((Path(settings.out) / name).read_bytes())
    assert torch.equal(load_lam(tmp_path).encode(first.numpy(), second.numpy()), codes)
    z = model.inverse(torch.stack([model.encoder(first), model.encoder(second)], 1))
    assert torch.equal(model.quantiser(z)[1], codes)  # inference and training choose the same codes


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def power_cut() -> None:
    raise OSError("power cut")


@pytest.mark.parametrize(
    ("stop", "checkpoint_s", "error"), [(ctrl_c, 60.0, KeyboardInterrupt), (power_cut, 0.0, OSError)]
)
def test_resumed_run_equals_straight_run(settings, metrics, tmp_path, monkeypatch, stop, checkpoint_s, error):
    cfg = replace(settings, out=str(tmp_path / "resumed"), checkpoint_s=checkpoint_s)
    step, steps = lam_train._Training._train_step, []

    def interrupted(self):
        steps.append(self.step)
        if len(steps) == 4:
            stop()
        return step(self)

    monkeypatch.setattr(lam_train._Training, "_train_step", interrupted)
    with pytest.raises(error):
        lam_train.run(cfg)
    assert (Path(cfg.out) / "checkpoint.safetensors").is_file() and not (Path(cfg.out) / WEIGHTS).exists()
    resumed = lam_train.run(cfg)
    assert steps == ([0, 1, 2, 3, 4, 5] if stop is ctrl_c else [0, 1, 2, 3, 3, 4, 5])
    assert resumed["lam_id"] == metrics["lam_id"]  # a hash of all weights
    assert resumed["curve"] == metrics["curve"] and resumed["histogram"] == metrics["histogram"]


def test_a_checkpoint_of_another_run_is_refused(settings, tmp_path):
    cfg = replace(settings, out=str(tmp_path))
    (tmp_path / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="not a checkpoint"):
        lam_train.run(cfg)


def test_training_lowers_the_error_of_copying(videos, tmp_path):
    cfg = TrainLam(out=str(tmp_path / "m"), videos=(str(videos),), steps=60, batch=16, cache=str(tmp_path / "cache"))
    metrics = lam_train.run(cfg)
    first, last = metrics["curve"][0][2], np.mean([point[2] for point in metrics["curve"][-10:]])
    assert last < 0.95 * first and metrics["utilisation"] >= 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "legs"}, "family: got 'legs'"),
        ({"recipe": "huge"}, "recipe: got 'huge'"),
        ({"size": 100}, "multiple of the patch size"),
        ({"k_s": 60.0}, "frame pairs 60.0 s apart"),
        ({"steps": -1}, "steps, batch"),
        ({"steps": 0}, "steps, batch: got 0"),
        ({"batch": 0}, "steps, batch: got 6 and 0"),
        ({"size": 0}, "image size: got 0"),
        ({"size": -96}, "image size: got -96"),
        ({"size": 96_000_000}, "image size: got 96000000"),
        ({"k_s": float("inf")}, "k_s: got inf"),
        ({"k_s": float("nan")}, "k_s: got nan"),
        ({"seed": -1}, "seed: got -1"),
        ({"checkpoint_s": -1.0}, "checkpoint_s: got -1"),
    ],
)
def test_wrong_settings_are_named(settings, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        lam_train.run(replace(settings, out=str(tmp_path), **change))


def test_foreign_or_damaged_models_are_refused(settings, metrics, tmp_path):
    with pytest.raises(ValueError, match="no contract"):
        load_lam(tmp_path)
    with pytest.raises(FileNotFoundError, match="no latent action model here"):
        load_lam(tmp_path / "nowhere")
    contract = (Path(settings.out) / "contract.json").read_text()
    (tmp_path / "contract.json").write_text(contract)
    with pytest.raises(ValueError, match="not a whole latent action model"):
        load_lam(tmp_path)
    (tmp_path / WEIGHTS).write_bytes((Path(settings.out) / WEIGHTS).read_bytes())
    (tmp_path / "contract.json").write_text(contract.replace(metrics["lam_id"], "0" * 16))
    with pytest.raises(ValueError, match="copy both files together"):
        load_lam(tmp_path)
    with pytest.raises(ValueError, match=r"images: got .*expected uint8"):
        load_lam(settings.out).encode(torch.zeros(2, 64, 64, 3, dtype=torch.uint8), torch.zeros(2, 64, 64, 3))


# --- labels


@pytest.fixture(scope="module")
def labels_cfg(settings, metrics, tmp_path_factory) -> LabelLam:
    out = tmp_path_factory.mktemp("labels") / "loco"
    return LabelLam(lam=settings.out, videos=settings.videos, out=str(out), cache=settings.cache)


def test_labels_are_the_models_codes_row_for_row(settings, labels_cfg):
    info = run_label(labels_cfg)
    labels = load_labels(labels_cfg.out, info["fingerprint"], info["lam_id"], "loco")
    assert labels.codes.dtype == np.int16 and labels.codes.shape == (90, 4)
    ends = np.arange(90) % 30 >= 25
    assert ((labels.codes == -1).all(1) == ends).all() and info["labelled"] == 75
    from wbvla.data.video import ClipCache

    frames = ClipCache.open(settings.videos, 96, settings.cache).frames
    assert np.array_equal(load_lam(settings.out).encode(frames[:20], frames[5:25]).numpy(), labels.codes[:20])
    assert run_label(labels_cfg) == info


def test_a_dataset_is_labelled_within_its_episodes(settings, metrics, tmp_path):
    from wbvla.data.recorder import EpisodeRecorder
    from wbvla.robots import get_robot
    from wbvla.types import Observation

    rng, lengths = np.random.default_rng(0), (14, 8, 25)
    root = tmp_path / "dataset"
    with EpisodeRecorder(root, get_robot("g1"), image_size=96, task_text="walk", provenance={"by": "test"}) as recorder:
        for length in lengths:
            for i in range(length):
                image = rng.integers(0, 255, (96, 96, 3), np.uint8)
                recorder.add(Observation(image, np.zeros(68, np.float32), "walk", i / 20), np.zeros(20), i / 20)
            recorder.save_episode({})
    info = run_label(LabelLam(lam=settings.out, dataset=str(root), out=str(tmp_path / "labels")))
    has_code = load_labels(tmp_path / "labels").codes[:, 0] >= 0
    expected = [i + 10 < length for length in lengths for i in range(length)]  # 0.5 s at 20 frames a second
    assert has_code.tolist() == expected and info["labelled"] == 4 + 0 + 15


def test_interrupted_labelling_continues(settings, labels_cfg, tmp_path, monkeypatch):
    from wbvla.lam import label

    monkeypatch.setattr(label, "SHARD_ROWS", 20)
    cfg, calls, work = replace(labels_cfg, out=str(tmp_path / "l")), [], label._label_rows

    def stop_at_third(*args, **kwargs):
        calls.append(args[3])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return work(*args, **kwargs)

    monkeypatch.setattr(label, "_label_rows", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        run_label(cfg)
    with pytest.raises(ValueError, match="not finished"):
        load_labels(cfg.out)
    run_label(cfg)
    assert calls == [0, 20, 40, 40, 60, 80]
    run_label(labels_cfg)
    assert np.array_equal(load_labels(cfg.out).codes, load_labels(labels_cfg.out).codes)


def test_labels_of_other_frames_or_another_model_are_refused(settings, labels_cfg, tmp_path):
    info = run_label(labels_cfg)
    with pytest.raises(ValueError, match="fingerprint: got"):
        load_labels(labels_cfg.out, fingerprint="other")
    with pytest.raises(ValueError, match="lam_id: got"):
        load_labels(labels_cfg.out, lam_id="other")
    write_clip(tmp_path / "other" / "0.mp4", 10, 2.0, 9)
    with pytest.raises(ValueError, match=r"fingerprint: got .*; rows: got"):
        run_label(replace(labels_cfg, videos=(str(tmp_path / "other"),)))
    other = replace(settings, out=str(tmp_path / "lam"), seed=5)
    lam_train.run(other)
    with pytest.raises(ValueError, match="lam_id: got"):
        run_label(replace(labels_cfg, lam=other.out))
    with pytest.raises(ValueError, match="either --dataset or --videos"):
        run_label(replace(labels_cfg, videos=()))
    assert json.loads((Path(labels_cfg.out) / LABELS).read_text()) == info and (Path(labels_cfg.out) / CODES).is_file()


def test_damaged_labels_are_named(labels_cfg, tmp_path):
    run_label(labels_cfg)
    with pytest.raises(FileNotFoundError, match="no labels here"):
        load_labels(tmp_path / "nowhere")
    for name, damage, message in (
        ("cut", lambda f: (f / CODES).write_bytes((f / CODES).read_bytes()[:200]), r"codes\.npy: damaged"),
        ("foreign", lambda f: np.save(f / CODES, np.array([{}]), allow_pickle=True), r"codes\.npy: damaged"),
        ("bare", lambda f: (f / LABELS).write_text('{"kind": "labels", "complete": true}'), "lacks fingerprint, rows"),
    ):
        shutil.copytree(labels_cfg.out, tmp_path / name)
        damage(tmp_path / name)
        with pytest.raises(ValueError, match=message):
            load_labels(tmp_path / name)


# --- probe


def test_probe_finds_what_codes_know_and_nothing_else():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 8, (600, 2))
    known = np.linspace(-1, 1, 8)[codes[:, 0]]
    targets = np.stack([known, rng.normal(size=600), np.zeros(600)], 1)
    score = linear_probe(codes, targets, 8, np.arange(600) // 20)
    assert score[0] > 0.95 and score[1] < 0.1 and np.isnan(score[2])


def test_gopro_truth_agrees_with_the_cameras_own_orientation():
    path = SHARED / "ego_video" / "gopro_sidewalk_walk" / "telemetry_decoded.npz"
    if not path.is_file():
        pytest.skip("real recordings are not here (../shared/data/ego_video)")
    with np.load(path, allow_pickle=False) as file:
        w, x, y, z = file["CORI"].T  # orientation of the camera at each of 316 frames
    frame_s, k = np.arange(len(w) - 15) / 29.97, 15
    change = 2 * (w[:-k] * y[k:] - y[:-k] * w[k:] + x[:-k] * z[k:] - z[:-k] * x[k:])  # small-angle, vertical axis
    turn = telemetry_targets(path, frame_s, frame_s + k / 29.97)["turn"]
    assert abs(np.corrcoef(change, turn)[0, 1]) > 0.98


# --- real recordings


def test_real_frame_pair_gets_codes(settings, metrics):
    path = SHARED / "frames" / "vjepa2_franka" / "franka_example_traj.npz"
    if not path.is_file():
        pytest.skip("real frames are not here (../shared/data/frames)")
    with np.load(path, allow_pickle=False) as file:
        images = torch.from_numpy(file["observations"][0])
    images = torch.nn.functional.interpolate(images.permute(0, 3, 1, 2).float(), 96, mode="area").round().byte()
    images = images.permute(0, 2, 3, 1)
    assert load_lam(settings.out).encode(images[:1], images[1:]).shape == (1, 4)


def test_real_recordings_train_and_are_reported_separately(videos, tmp_path):
    real = SHARED / "ego_video" / "gopro_sidewalk_walk"
    if not real.is_dir():
        pytest.skip("real recordings are not here (../shared/data/ego_video)")
    cfg = TrainLam(
        out=str(tmp_path / "m"), videos=(str(videos), str(real)), steps=10, batch=8, cache=str(tmp_path / "c")
    )
    metrics = lam_train.run(cfg)
    assert set(metrics["sources"]) == {str(videos), str(real)}
    assert metrics["pairs"] == sum(source["pairs"] for source in metrics["sources"].values())
    scores = probe(cfg.out, real, cfg.cache)
    assert set(scores) == {"nod", "turn", "roll"} and all(score < 1 for score in scores.values())
