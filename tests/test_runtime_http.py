"""Laws of HTTP serving, over real sockets: both dialects are answered, batches equal single answers, bad input is one
clear error, and a robot whose server dies is left without an action, not with an old one."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import json_numpy
import numpy as np
import pytest
import requests
import torch
from PIL import Image

from http_world import Slow, start_http_server
from runtime_world import running
from wbvla.runtime.http.asker import Refused
from wbvla.runtime.http.batching import MAX_BATCH, Batcher, Busy
from wbvla.runtime.http.client import ChunkClient
from wbvla.runtime.http.server import HttpServer
from wbvla.runtime.http.wire import MAX_BODY_BYTES, Query, decode_query, encode_array, encode_query
from wbvla.runtime.serve import Serve, load_policy
from wbvla.xvla.checkpoint import save_model
from wbvla.xvla.config import Domain
from wbvla.xvla.model import Xvla
from wbvla.xvla.policy import XvlaPolicy
from xvla_world import CHUNK, ROBOTS, with_words

pytestmark = pytest.mark.alone

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def policy() -> XvlaPolicy:
    """A small random X-VLA of three robots: g1 (id 30), arms (31: front, wrist; 14 numbers), franka (32)."""
    torch.manual_seed(0)
    return XvlaPolicy(Xvla(with_words(ROBOTS)).eval())


def serving(policy, **settings):
    return running(HttpServer(policy, port=0, **settings))


def picture(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def xvla_payload(**changes) -> dict:
    """What X-VLA's own clients send for the robot "arms": JSON that holds JSON."""
    rng = np.random.default_rng(0)
    payload = {
        "proprio": json_numpy.dumps(rng.normal(size=14)),
        "language_instruction": "push the cart",
        "image0": json_numpy.dumps(picture(0)),
        "image1": json_numpy.dumps(picture(1)),
        "domain_id": 31,
        "steps": 3,
    }
    return {k: v for k, v in (payload | changes).items() if v is not None}


def post(server: HttpServer, payload: dict, **options) -> requests.Response:
    return requests.post(f"{server.address}/act", json=payload, timeout=20, **options)


def exchange(server: HttpServer, sent: bytes) -> bytes:
    """Send bytes and return all that comes back before the server hangs up."""
    url = urlsplit(server.address)
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


RECORDED = (
    b"POST /act HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: python-requests/2.32.4\r\n"
    b"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: close\r\nContent-Length: %d\r\n"
    b"Content-Type: application/json\r\n\r\n"
)


def recorded_body() -> bytes:
    """The body that X-VLA's client writes, put together by hand: a black 16 x 16 image, fourteen zeros as float64."""
    image = base64.b64encode(bytes(16 * 16 * 3))
    state = base64.b64encode(bytes(14 * 8))
    return (
        rb'{"proprio": "{\"__numpy__\": \"' + state + rb'\", \"dtype\": \"<f8\", \"shape\": [14]}", '
        rb'"language_instruction": "push", "image0": "{\"__numpy__\": \"' + image + rb"\", \"dtype\": \"|u1\", "
        rb'\"shape\": [16, 16, 3]}", "domain_id": 31, "steps": 2}'
    )


def test_bfloat16_answers_nearly_the_same(policy):
    rng = np.random.default_rng(0)
    asked = policy.prepare({0: picture(0), 1: picture(1)}, rng.normal(size=14), "push the cart", 31, steps=3, seed=1)
    (exact,), (rough,) = policy.answer([asked]), XvlaPolicy(policy.model, "bfloat16").answer([asked])
    assert 0 < np.abs(rough - exact).max() < 0.05 * np.abs(exact).max()
    with pytest.raises(ValueError, match="dtype, steps: got cpu, bfloat16, None; leave them out for .* no X-VLA"):
        load_policy(Serve(str(Path(__file__).parent), dtype="bfloat16"))


def test_x_vlas_protocol_byte_for_byte(policy):
    """Request as json_numpy and requests write it, answer as X-VLA's server does: compact JSON, a chunk of lists."""
    body = recorded_body()
    payload = {
        "proprio": json_numpy.dumps(np.zeros(14)),
        "language_instruction": "push",
        "image0": json_numpy.dumps(np.zeros((16, 16, 3), np.uint8)),
        "domain_id": 31,
        "steps": 2,
    }
    assert requests.Request("POST", "http://x/act", json=payload).prepare().body == body
    with serving(policy) as server:
        head, _, answer = exchange(server, RECORDED % len(body) + body).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"content-type: application/json\r\n" in head
        assert re.fullmatch(rb'\{"action":\[\[[-0-9.,e]+\](,\[[-0-9.,e]+\])*\]\}', answer)
        assert np.shape(json.loads(answer)["action"]) == (CHUNK, 14)
        path = body.replace(image := b'"{\\"__numpy__', b'"\\"/etc/hostname\\"", "image1": ' + image, 2)
        head, _, answer = exchange(server, RECORDED % len(path) + path).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n") and b"file paths are refused" in answer
        assert list(json.loads(answer)) == ["error"]


def test_a_request_without_steps_gets_the_servers():
    policy = Slow()
    with serving(policy, steps=4) as server, ChunkClient(server.address, fps=20) as client:
        for steps in (None, 3):
            assert post(server, xvla_payload(steps=steps)).status_code == 200
        client.step({"front": picture()}, np.zeros(7), "push the cart")
        deadline = time.monotonic() + 10
        while len(policy.denoised) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert policy.denoised == [4, 3, 4]


def test_both_dialects_and_every_way_to_write_an_array_mean_the_same(policy):
    """X-VLA's and the tutorial's names; json_numpy, lists, PNG as bytes and in base64: one answer for one seed."""
    file = io.BytesIO()
    Image.fromarray(picture(0)).save(file, "PNG")
    png = np.frombuffer(file.getvalue(), np.uint8)
    state = np.random.default_rng(0).normal(size=14)
    named = {
        "observation.state": state.tolist(),
        "task": "push the cart",
        "domain_id": 31,
        "observation.images.front": base64.b64encode(png).decode(),
        "observation.images.wrist": picture(1).tolist(),
        "steps": 3,
        "seed": 7,
    }
    by_hand = Query({"front": picture(0), "wrist": picture(1)}, state.astype(np.float32), "push the cart", 31, 3, 7)
    with serving(policy) as server:
        wanted = np.array(post(server, xvla_payload(seed=7)).json()["action"])
        for payload in (
            named,
            xvla_payload(image0=json_numpy.dumps(png), seed=7),
            xvla_payload(image0=png.tolist(), seed=7),
            xvla_payload(image0=json.dumps(picture(0).tolist()), proprio=json_numpy.dumps(state.tolist()), seed=7),
            json.loads(encode_query(by_hand)),
        ):
            np.testing.assert_allclose(post(server, payload).json()["action"], wanted, atol=1e-5)
        assert not np.allclose(post(server, {**named, "seed": 8}).json()["action"], wanted)
    assert encode_array(picture()) == json_numpy.dumps(picture())
    assert (decode_query(json.dumps(xvla_payload()).encode()).images[1] == picture(1)).all()


def test_requests_that_wait_together_get_the_answers_they_would_get_alone(policy):
    """Three robots at once, of 20, 14 and 7 numbers and one to three cameras, in one pass: within 1e-5."""
    widths, rng = {30: 68, 31: 14, 32: 8}, np.random.default_rng(0)
    queries = []
    for i in range(9):
        domain = 30 + i % 3
        images = {place: picture(10 * i + place, 40 + i) for place in range(domain - 29)}
        state = rng.normal(size=widths[domain]).astype(np.float32)
        queries.append(encode_query(Query(images, state, "push" * i, domain, 4, seed=i)))
    with serving(policy) as server:

        def ask(body: bytes) -> np.ndarray:
            return np.array(requests.post(f"{server.address}/act", data=body, timeout=20).json()["action"])

        alone = [ask(body) for body in queries]
        assert server.metrics()["batches"] == 9
        with ThreadPoolExecutor(9) as pool:
            together = list(pool.map(ask, queries))
        assert 9 < server.metrics()["batches"] < 18 and server.metrics()["answered"] == 18
    for one, other in zip(alone, together):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)


def test_a_batch_has_an_end():
    policy = Slow()
    batcher = Batcher(policy)
    futures = [batcher.submit((float(n), "")) for n in range(MAX_BATCH + 4)]
    futures[3].cancel()
    for _ in range(3):
        batcher.work(0.0)
    assert policy.batches == [MAX_BATCH - 1, 4] and batcher.counts["dropped"] == 1
    assert [future.result()[0, 0] for i, future in enumerate(futures) if i != 3] == [
        *range(3),
        *range(4, MAX_BATCH + 4),
    ]
    last = batcher.submit((0.0, ""))
    batcher.close()
    with pytest.raises(Busy, match="stopping"):
        last.result()


def test_a_batch_gathers_while_the_policy_thinks_and_hung_up_clients_are_dropped():
    policy = Slow(0.3)
    with serving(policy) as server:
        with ThreadPoolExecutor(21) as pool:
            busy = pool.submit(post, server, xvla_payload())
            time.sleep(0.1)
            payloads = [xvla_payload(proprio=json.dumps([n])) for n in range(20)]
            answers = list(pool.map(lambda p: post(server, p).json()["action"][0][0], payloads))
            assert busy.result().ok and answers == list(range(20))
        assert policy.batches[0] == 1 and sum(policy.batches) == 21 and max(policy.batches) > 3
        with ThreadPoolExecutor(2) as pool:
            busy = pool.submit(post, server, xvla_payload())
            time.sleep(0.1)
            with pytest.raises(requests.exceptions.ReadTimeout):
                requests.post(f"{server.address}/act", json=xvla_payload(), timeout=0.05)
            assert busy.result().ok
        deadline = time.monotonic() + 5
        while not server.metrics()["dropped"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.metrics()["dropped"] == 1 and sum(policy.batches) == 22


def test_an_answer_does_not_wait_for_the_network_stack():
    """Headers and body leave at once: one round trip on a kept connection is far below TCP's 40 ms delays."""
    with serving(Slow()) as server, requests.Session() as session:
        took = []
        for _ in range(20):
            start = time.perf_counter()
            assert session.post(f"{server.address}/act", json=xvla_payload(), timeout=5).ok
            took.append(time.perf_counter() - start)
    assert min(took) < 0.035


WRONG = {
    "unknown robot": (xvla_payload(domain_id=5), r"domain: got 5, expected one of g1 \(30\), arms \(31\)"),
    "no robot": (xvla_payload(domain_id=None), r"domain_id: missing, expected the robot's: one of 30 \(g1\)"),
    "robot as text": (xvla_payload(domain_id="31"), "domain_id: got '31', expected a whole number"),
    "state": (xvla_payload(proprio=json.dumps([0.0] * 7)), "state: got 7 entries, expected 14 for arms"),
    "state not finite": (xvla_payload(proprio="[NaN]"), "proprio: got numbers that are not finite"),
    "state of texts": (xvla_payload(proprio='["a"]'), "proprio: got <U1"),
    "ragged state": (xvla_payload(proprio="[[1], [1, 2]]"), "proprio: got a ragged list"),
    "no state": (xvla_payload(proprio=None), "proprio: missing"),
    "third camera": (xvla_payload(image2=json_numpy.dumps(picture())), "image2: the robot has 2 cameras: front, wrist"),
    "fourth camera": (xvla_payload(image3=json_numpy.dumps(picture())), "unknown key 'image3'"),
    "camera name": (
        {"observation.images.head": picture().tolist(), "observation.state": [0.0] * 14, "task": "x", "domain_id": 31},
        "got unknown camera head, expected one or more of front, wrist",
    ),
    "no camera": (xvla_payload(image0=None, image1=None), "images: got none"),
    "path": (xvla_payload(image0='"/etc/hostname"'), "image0: got a text, expected an array; file paths are refused"),
    "bare path": (xvla_payload(image0="/etc/hostname"), "image0: .*file paths are refused"),
    "path in base64 letters": (xvla_payload(image0="/etc/abc"), "image0: .*file paths are refused"),
    "floats": (xvla_payload(image0=json_numpy.dumps(np.zeros((32, 32, 3)))), "image0: got float64"),
    "grey": (xvla_payload(image0=json_numpy.dumps(np.zeros((32, 32), np.uint8))), r"image0: got uint8 \(32, 32\)"),
    "huge": (xvla_payload(image0=json_numpy.dumps(np.zeros((16, 4096, 3), np.uint8))), "at most 2048 pixels"),
    "objects": (xvla_payload(image0='{"__numpy__": "", "dtype": "|O", "shape": [0]}'), "got dtype '|O'"),
    "bytes missing": (xvla_payload(image0='{"__numpy__": "AAAA", "dtype": "|u1", "shape": [9]}'), "got 3 bytes"),
    "steps": (xvla_payload(steps=1000), "steps: got 1000, expected a whole number from 1 to 50"),
    "task": (xvla_payload(language_instruction=["push"]), "language_instruction: got list"),
    "long task": (xvla_payload(language_instruction="push " * 999), "language_instruction: .*at most 1024 bytes"),
    "mixed dialects": (xvla_payload(task="push"), "unknown key 'proprio'"),
    "not an object": ([1, 2], "body: got list, expected a JSON object"),
}


def test_wrong_requests_get_one_clear_error_and_the_server_lives(policy):
    bombs = {}
    for side, message in ((3000, "expected at most 2048 pixels"), (20000, "no usable PNG or JPEG")):
        file = io.BytesIO()
        Image.new("1", (side, side)).save(file, "PNG")
        packed = base64.b64encode(file.getvalue()).decode()
        bombs[f"picture of {side}"] = xvla_payload(image0=packed), message
    cases = {**WRONG, **bombs}
    with serving(policy) as server:
        for name, (payload, message) in cases.items():
            answer = post(server, payload)
            assert answer.status_code == 400 and list(answer.json()) == ["error"], (name, answer.text)
            assert re.search(message, answer.json()["error"]), (name, answer.json())
            assert "\n" not in answer.json()["error"]
        for body in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": 1' + b"0" * 10_000 + b"}", b"null"):
            answer = requests.post(f"{server.address}/act", data=body, timeout=20)
            assert answer.status_code == 400 and "error" in answer.json()
        assert requests.get(f"{server.address}/act", timeout=20).status_code == 405
        assert requests.get(f"{server.address}/docs", timeout=20).json() == {"error": "Not Found"}
        assert post(server, xvla_payload()).ok


def test_oversize_and_slow_bodies_are_cut_off(policy, monkeypatch):
    announced = b"POST /act HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"

    def chunked():
        piece = bytes(1 << 20)
        for _ in range((MAX_BODY_BYTES >> 20) + 1):
            yield piece

    with serving(policy) as server:
        assert exchange(server, announced % (MAX_BODY_BYTES + 1)).startswith(b"HTTP/1.1 413 ")
        try:
            status = requests.post(f"{server.address}/act", data=chunked(), timeout=20).status_code
        except requests.exceptions.ConnectionError:  # the connection is closed while we still write
            status = 413
        assert status == 413
        monkeypatch.setattr("wbvla.runtime.http.server.BODY_S", 0.3)
        url = urlsplit(server.address)
        with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
            connection.sendall(announced % 1000 + b"{")
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        assert post(server, xvla_payload()).ok


def test_a_failing_policy_answers_with_its_reason_and_the_line_has_an_end(monkeypatch):
    monkeypatch.setattr("wbvla.runtime.http.batching.MAX_WAITING", 4)
    policy = Slow(1.5)
    with serving(policy) as server:
        for task, message in (("fail", "RuntimeError: no idea"), ("nan", "numbers that are not finite")):
            answer = post(server, xvla_payload(language_instruction=task))
            assert answer.status_code == 500 and message in answer.json()["error"]
        with ThreadPoolExecutor(12) as pool:
            codes = [r.status_code for r in pool.map(lambda _: post(server, xvla_payload()), range(12))]
        assert set(codes) == {200, 503}
        assert requests.get(f"{server.address}/health", timeout=5).json() == {"status": "ok", "waiting": 0}
        lines = dict(line.split() for line in requests.get(f"{server.address}/metrics", timeout=5).text.splitlines())
        assert int(lines["wbvla_answered"]) == codes.count(200) and int(lines["wbvla_failed"]) == 2
        assert float(lines["wbvla_latency_ms_p99"]) > float(lines["wbvla_overhead_ms_p99"]) > 0


def test_an_answer_that_is_not_finite_fails_alone():
    batcher = Batcher(Slow())
    good, bad = batcher.submit((3.0, "push")), batcher.submit((3.0, "nan"))
    batcher.work(1.0)
    assert good.result()[0, 0] == 3.0 and batcher.counts["answered"] == batcher.counts["failed"] == 1
    with pytest.raises(RuntimeError, match="numbers that are not finite"):
        bad.result()


def test_beyond_loopback_a_token_is_needed(tmp_path):
    for settings, message in (
        ({"host": "0.0.0.0"}, "without a token"),
        ({"host": "0.0.0.0", "token": "short"}, "token: got 5 characters, expected at least 16"),
        ({"host": "no.such.host.invalid", "token": TOKEN}, "cannot listen on no.such.host.invalid"),
    ):
        with pytest.raises(ValueError, match=message):
            HttpServer(Slow(), port=0, **settings)
    with serving(Slow(), host="0.0.0.0", token=TOKEN) as server:
        place = server.address.removeprefix("http://")
        for shown, status in ((None, 401), ("x" * 16, 401), (f"é{TOKEN}", 401), (TOKEN, 200)):
            headers = {"Authorization": f"Bearer {shown}".encode()} if shown else {}
            assert post(server, xvla_payload(), headers=headers).status_code == status
        for address, status in ((f"robot:{TOKEN}@", 200), ("robot:wrong@", 401)):  # the tutorial's client, unchanged
            answer = requests.post(f"http://{address}{place}/act", json=xvla_payload(), timeout=5)
            assert answer.status_code == status
        assert requests.get(f"http://{place}/health", timeout=5).ok
        assert requests.get(f"http://{place}/metrics", timeout=5).status_code == 401
        for password, works in ((TOKEN, True), ("wrong", False)):
            with ChunkClient(f"http://robot:{password}@{place}", fps=20) as client:
                if works:
                    assert play(client, 0.3)[-1] is not None
                else:
                    with pytest.raises(Refused, match="401"):
                        play(client, 2.0)


def play(client: ChunkClient, seconds: float, state: float = 0.0) -> list:
    """Run a 50 Hz loop and return its actions."""
    actions, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        action = client.step({"front": picture()}, np.full(14, state), "push")
        actions.append(None if action is None else float(action[0]))
        time.sleep(0.02)
    return actions


def test_the_client_plays_by_age_and_asks_while_it_plays():
    """Entry i is played i / fps after its observation: what went by while the policy thought is never played."""
    policy = Slow(0.25, steps=100)
    with serving(policy) as server, ChunkClient(server.address, fps=50, replan_steps=10) as client:
        actions = play(client, 1.5)
        first = next(a for a in actions if a is not None)
        assert actions[0] is None and first >= 0.25 * 50 - 1  # 12 entries were too old when the answer came
        settled = actions[actions.index(first) :]
        assert None not in settled and max(settled) < 100
        assert client.counts["answered"] >= 4 and client.counts["failed"] == 0
        ages = [a for a in settled if a < first + 12 + 5]
        assert len(ages) > 0.8 * len(settled)  # each chunk is replaced a policy's time after ten entries went by
        client.reset()
        assert client.step({"front": picture()}, np.zeros(14), "push") is None


def test_a_dead_server_leaves_no_action_and_its_return_brings_them_back():
    """A real server process, killed in mid-motion: actions end with their chunk; a new server is found again."""
    process, address = start_http_server("Slow(0.05, steps=15)")
    try:
        with ChunkClient(address, fps=30, replan_steps=5, timeout_s=0.5) as client:
            assert play(client, 1.0)[-1] is not None
            process.kill()
            process.wait()
            actions = play(client, 1.2)
            silent = actions.index(None)
            assert actions[0] is not None and all(action is None for action in actions[silent:])
            assert client.counts["failed"] >= 2 and client.last_error
            process, _ = start_http_server("Slow(0.05, steps=15)", int(address.rpartition(":")[2]))
            assert play(client, 1.5)[-1] is not None
    finally:
        process.kill()
        process.wait()


def test_what_the_client_cannot_use_is_refused(policy):
    for settings, message in (
        ({"url": "tcp://127.0.0.1:5757"}, "url: got 'tcp:"),
        ({"url": "http://127.0.0.1:1", "fps": 0.1}, "fps: got 0.1"),
        ({"url": "http://127.0.0.1:1", "replan_steps": 0}, "replan_steps: got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ChunkClient(**settings)
    wrong = {"head": picture()}
    with (
        serving(policy) as server,
        ChunkClient(server.address, 31) as client,
        pytest.raises(Refused, match="400.*head"),
    ):
        for _ in range(100):
            client.step(wrong, np.zeros(14), "push")
            time.sleep(0.02)


class FakeRobot:
    """Two hundred turns of a robot with one camera, seven joints and no body."""

    def __init__(self) -> None:
        self.turns, self.executed, self.held = 200, [], 0

    def is_running(self) -> bool:
        self.turns -= 1
        return self.turns > 0 and len(self.executed) < 30

    def get_observation(self) -> dict:
        return {"images": {"front": picture(self.turns)}, "state": np.zeros(7)}

    def execute(self, action) -> None:
        self.executed.append(np.asarray(action))

    def hold(self) -> None:
        self.held += 1


def test_the_documents_server_and_clients_run_as_they_are(repo_root, tmp_path):
    """The command and the client loops of docs/xvla.md, from its text; only the port is another."""
    from test_xvla_lerobot import features
    from wbvla.lerobot.configuration_xvla_wb import XvlaWbConfig
    from wbvla.lerobot.modeling_xvla_wb import XvlaWbPolicy

    arm = Domain(34, "auto", 7, 7, ("front",))
    save_model(tmp_path / "small", Xvla(with_words({"arm": arm}, chunk_steps=20, max_tokens=96)))
    start = dict(init_from=str(tmp_path / "small"), domain="arm")
    policy = XvlaWbPolicy(XvlaWbConfig(device="cpu", **features(7, 7, ("front",)), **start))
    policy.save_pretrained(tmp_path / "outputs/xvla_mine/checkpoints/last/pretrained_model")

    text = (repo_root / "docs/xvla.md").read_text()
    (command,) = re.findall(r"^```bash serve\n(wbvla .*?)\n```", text, re.M | re.S)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    words = command.replace("8765", port).split()[1:]
    server = subprocess.Popen(
        [sys.executable, "-m", "wbvla.cli", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout.readline().endswith(f"on http://127.0.0.1:{port} (Ctrl-C ends)\n")
        blocks = re.findall(r"^```python serve\n(.*?)^```", text, re.M | re.S)
        assert len(blocks) == 2
        for block in blocks:
            robot = FakeRobot()
            exec(block.replace("8765", port), {"robot": robot})
            assert len(robot.executed) >= 30 and all(action.shape == (7,) for action in robot.executed)
    finally:
        server.terminate()
        out, err = server.communicate(timeout=30)
    assert server.returncode == 0 and "answered" in out and not err


def test_the_command_line_says_what_does_not_go_together(wbvla, tmp_path):
    (tmp_path / "xvla").mkdir()
    (tmp_path / "xvla" / "config.json").write_text('{"type": "xvla_wb"}')
    (tmp_path / "token").write_text("short\n")
    zero = ("serve", "--policy", "zero", "--port", 0)
    for arguments, message in (
        ((*zero, "--token", "token"), "token: only goes with --http"),
        ((*zero, "--steps", 5), "steps: only go with --http"),
        ((*zero, "--http", "--steps", 0), "steps: got 0, expected 1 to 50"),
        ((*zero, "--http", "--keys", "keys"), "keys: only go with ZeroMQ"),
        ((*zero, "--http", "--host", "0.0.0.0"), "without a token"),
        ((*zero, "--http", "--token", "token"), "token: got 5 characters"),
        (("serve", "--policy", "xvla"), "is an X-VLA checkpoint, which is served with --http"),
    ):
        done = wbvla(*arguments)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
