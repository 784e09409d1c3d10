"""The golden vectors are those of the implementation, and of plain computations that share no code with it."""

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.conformance.client import draws, numbers
from fedbbpt.conformance.client.methods.fed_bpt import Search, limited
from tests import golden_vectors as golden

ROOT = Path(__file__).parents[3]
FILES = {path.stem: json.loads(path.read_text()) for path in golden.FOLDER.glob("*.json")}


def require_equal(found: Any, wanted: Any, where: str = "") -> None:
    """Floats may differ in their last bits between machines; everything else is equal."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for key in wanted:
            require_equal(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for index, each in enumerate(wanted):
            require_equal(found[index], each, f"{where}[{index}]")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9), where
    else:
        assert found == wanted, where


@pytest.mark.parametrize("name", golden.FILES)
def test_vectors_are_those_of_the_implementation(name: str) -> None:
    require_equal(FILES[name.removesuffix(".json")], json.loads(golden.text(golden.FILES[name]())), name)


@pytest.mark.parametrize("name", FILES["draws"])
def test_draws(name: str) -> None:
    given = FILES["draws"][name]
    seed = int(given["seed"])
    if name.startswith("derive"):
        assert str(draws.derive(seed, *given["parts"])) == given["value"]
    elif name == "signs":
        assert draws.signs(seed, given["count"]).tolist() == given["value"]
    elif name == "uniforms":
        assert draws.uniforms(seed, given["count"]) == given["value"]
    else:
        require_equal(draws.normals(seed, given["shape"]).tolist(), given["value"])


def test_populations_and_losses_of_fed_cma() -> None:
    given = FILES["fed-cma"]["population"]
    drawn = draws.normals(int(given["seed"]), (3, 3))
    assert (np.array(given["mean"]) + np.array(given["scale"]) * drawn).astype(np.float32).tolist() == given[
        "candidates"
    ]

    given = FILES["fed-cma"]["population_of_an_expansion"]
    drawn = draws.normals(int(given["seed"]), (2, 3))
    others = (np.array(given["mean"]) + given["scale"][0] * drawn).astype(np.float32)
    others[:, -1:] = given["mean"][-1:]
    assert [given["center"], *others.tolist()] == given["candidates"]

    given = FILES["fed-cma"]["losses"]
    offsets = np.array(given["offsets"], np.float32)
    for index, scores in enumerate(np.array(given["scores"], np.float32)):
        shifted = numbers.shifted(scores, offsets)
        assert shifted.tolist() == given["scores_with_offsets"][index]
        losses = numbers.losses(shifted, given["labels"])
        require_equal(losses.tolist(), given["losses_of_examples"][index])
        assert float(np.float32(losses.mean())) == given["travelling"][index]  # the weight is a power of two


def test_the_expansion_holds_the_derivatives_of_the_loss() -> None:
    """By differences of the loss itself."""
    given = FILES["fed-cma"]["expansion"]
    scores, labels = np.array(given["scores_of_mean_and_candidates"]), given["labels"]

    def loss(a: np.ndarray) -> float:
        moved = scores[0] + sum(a[i] * (scores[i + 1] - scores[0]) for i in range(2)) + 0.25 * a[2:]
        return float(numbers.losses(moved, labels).mean())

    step, unit = 1e-4, np.eye(5)
    assert given["loss"] == pytest.approx(loss(np.zeros(5)))
    assert given["decrease"] == pytest.approx(loss(unit[0]) - loss(np.zeros(5)))
    rows = iter(given["hessian"])
    for i in range(5):
        slope = (loss(step * unit[i]) - loss(-step * unit[i])) / (2 * step)
        assert given["gradient"][i] == pytest.approx(slope, abs=1e-6)
        for j in range(i, 5):
            corners = [
                sign * other * loss(step * (sign * unit[i] + other * unit[j])) for sign in (1, -1) for other in (1, -1)
            ]
            assert next(rows) == pytest.approx(sum(corners) / (4 * step * step), abs=1e-5)


def test_the_search_of_fed_bpt() -> None:
    for given in FILES["fed-bpt"].values():
        assert given["seed"] == str(draws.derive(int(given["task_seed"]), given["client_id"]))
        search = Search(np.array(given["mean"]), given["sigma"][0], given["local_population"], diagonal=True)
        limit = given["limit"][0] if "limit" in given else None
        sigmas = []
        for candidates, order in zip(given["candidates"], given["orders"], strict=True):
            sigmas.append(search.sigma)
            population = limited(search.drawn(int(given["seed"])), limit).astype(np.float32)
            assert population.tolist() == candidates
            search.step(population[order].astype(np.float64))
        require_equal(sigmas, given["sigmas"])
        require_equal(limited(search.mean, limit).tolist(), given["final_mean"])


def test_the_generator_and_spsa_of_fed_bbpt() -> None:
    given = FILES["fed-bbpt"]["generator"]
    e = draws.normals(draws.derive(int(given["generator_seed"]), "generator", "code"), (3,))
    theta = given["theta"]
    hidden = [math.tanh(sum(theta[3 * i + j] * e[j] for j in range(3)) + theta[6 + i]) for i in range(2)]
    z = [sum(theta[8 + 2 * i + j] * hidden[j] for j in range(2)) + theta[12 + i] for i in range(2)]
    require_equal(z, given["z"])

    given = FILES["fed-bbpt"]["spsa"]
    seed = draws.derive(int(given["task_seed"]), given["client_id"], 0)
    assert given["seed"] == str(seed)
    v = [2 * u - 1 for u in draws.uniforms(draws.derive(seed, "spsa"), 4)]
    delta = np.array([math.copysign((1 + abs(each)) / 2, each) for each in v]).reshape(2, 2)
    c, a = given["c"], given["a"] / 2 ** given["alpha"]
    point, losses = np.array(given["theta"]), given["losses"]
    require_equal(np.concatenate([point + c * delta, point - c * delta]).tolist(), given["points"])
    g = sum((losses[j] - losses[j + 2]) / (2 * c * delta[j]) for j in range(2)) / 2
    require_equal([losses[0] - losses[2], losses[1] - losses[3]], given["coefficients"])
    require_equal((point - a * (g + given["beta"] * g)).tolist(), given["next_theta"])


def test_a_categorical_step_of_fed_bbpt() -> None:
    given = FILES["fed-bbpt"]["categorical"]
    theta, losses = np.array(given["theta"]), given["losses"]
    g, mean = np.zeros((2, 3)), sum(losses) / 3
    for words, loss in zip(given["prompts"], losses, strict=True):
        for i, j in enumerate(words):
            g[i, j] += (loss - mean) / theta[i, j] / 2
    require_equal(g.tolist(), given["gradient"])
    g = g * min(1, given["clip_norm"] / math.sqrt((g**2).sum()))
    # In the first step m / (1 - 0.9) is g, and v / (1 - 0.999) is g^2.
    stepped = theta - given["learning_rate"] * (g / (np.abs(g) + 1e-8) + given["weight_decay"] * theta)
    for row, nearest in zip(stepped, given["next_theta"], strict=True):
        low, high = row.min() - 1, row.max()
        for _ in range(200):
            tau = (low + high) / 2
            low, high = (tau, high) if np.maximum(row - tau, 0).sum() > 1 else (low, tau)
        require_equal(np.maximum(row - tau, 0).tolist(), nearest)


def test_the_sums_of_fed_readout() -> None:
    given = FILES["fed-readout"]["sums"]
    for r, readout in enumerate(np.array(given["readouts"])):
        loss, gradient = 0.0, np.zeros((3, 5))
        for s, label in zip(np.array(given["columns"]), given["labels"], strict=True):
            logits = s[:3] + readout[:, :4] @ s + readout[:, 4]
            p = np.exp(logits) / np.exp(logits).sum()
            loss -= math.log(p[label])
            gradient += np.outer(p - np.eye(3)[label], [*s, 1.0])
        require_equal(loss, given["loss"][r])
        require_equal(gradient.tolist(), given["gradient"][r])
    columns = np.array(given["columns"])
    require_equal([columns.sum(axis=0).tolist(), (columns**2).sum(axis=0).tolist()], given["moments"])


def test_the_picture_of_a_decoder() -> None:
    """In float64, where the client's pictures are float32."""
    given = FILES["picture"]["decoder"]
    (first, second), grid, pooled = given["widths"], given["grid"], given["pooled"]
    m = max(first, second)
    sizes = {"trigger": 4, "each": first * (m // first) * 4, "bias": m, "mixing": m * second}
    sizes |= {"scale": second, "shift": second, "last": second * 4}
    r = (4 * m / first) ** -0.5
    ranges = {"trigger": (0, 0.1), "each": (-r, r), "bias": (-r, r), "mixing": (-(second**-0.5), second**-0.5)}
    ranges |= {"scale": (1, 1), "shift": (0, 0), "last": (-0.5, 0.5)}
    u = iter(draws.uniforms(draws.derive(given["seed"], "decoder"), sum(sizes.values())))
    z = iter(given["z"])
    part = {
        name: [low + (high - low) * next(u) + next(z) for _ in range(sizes[name])]
        for name, (low, high) in ranges.items()
    }
    assert next(z, None) is None
    pixels = np.array(given["pixels"]) / 255
    features = [pixels[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean() for i in range(pooled) for j in range(pooled)]
    x = np.array([*features, *part["trigger"]]).reshape(first, grid, grid)
    each = np.array(part["each"]).reshape(first, m // first, 2, 2)
    grown = np.zeros((m, 2 * grid, 2 * grid))
    for i in range(first):
        for k in range(m // first):
            channel = i * (m // first) + k
            grown[channel] = np.kron(x[i], each[i, k]) + part["bias"][channel]
    mixed = np.einsum("mhw,mb->bhw", grown, np.array(part["mixing"]).reshape(m, second))
    mixed -= mixed.mean(axis=(1, 2), keepdims=True)
    mixed /= np.sqrt((mixed**2).mean(axis=(1, 2), keepdims=True) + 1e-5)
    mixed = mixed * np.array(part["scale"])[:, None, None] + np.array(part["shift"])[:, None, None]
    active = mixed * (1 + np.vectorize(math.erf)(mixed / math.sqrt(2))) / 2
    last = np.array(part["last"]).reshape(second, 2, 2)
    raw: Any = sum((np.kron(active[b], last[b]) for b in range(second)), np.zeros((1, 1)))
    np.testing.assert_allclose(np.clip(given["strength"] * raw, -1, 1), given["picture"], atol=1e-5)
    clipped = FILES["picture"]["clipped"]
    np.testing.assert_allclose(np.clip(clipped["strength"] * raw, -1, 1)[0], clipped["first_row"], atol=2e-4)
    assert {-1.0, 1.0} & set(clipped["first_row"])


def test_codecs() -> None:
    found = FILES["codecs"]
    values = found["float16"]["values"]
    assert struct.pack("<8e", *values).hex() == found["float16"]["bytes"]
    assert b"".join(struct.pack("<f", each)[2:] for each in values).hex() == found["bfloat16"]["bytes"]
    assert found["topk+float16"]["bytes"] == "0a" + struct.pack("<2e", -2, 1).hex()
    data = bytes.fromhex(found["int8"]["bytes"])
    (scale,) = struct.unpack("<f", data[:4])
    assert [scale * q for q in struct.unpack("<9b", data[4:])] == found["int8"]["values"]
    data = bytes.fromhex(found["int4"]["bytes"])
    halves = [half for byte in data[4:] for half in (byte & 15, byte >> 4)][:9]
    assert [0.5 * (half - 16 if half > 7 else half) for half in halves] == found["int4"]["values"]
    given = found["rotate"]
    h = np.ones((1, 1))
    while len(h) < 16:
        h = np.block([[h, h], [h, -h]])
    signs = draws.signs(draws.derive(0, "rotate", given["name"]), 16)
    require_equal((h @ (signs * np.array([*given["values"], *[0.0] * 7])) / 4).tolist(), given["rotated"])


def _crc32c(data: bytes) -> int:
    """Returns the CRC-32C bit by bit."""
    found = 0xFFFFFFFF
    for byte in data:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (0x82F63B78 if found & 1 else 0)
    return found ^ 0xFFFFFFFF


def test_checksums() -> None:
    wire = FILES["wire"]
    assert _crc32c(bytes.fromhex(wire["crc32c"]["bytes"])) == wire["crc32c"]["value"] == 0xE3069283
    message = bytes.fromhex(wire["message"]["bytes"])
    sealed = message + b"\xc5\x3e" + _crc32c(message).to_bytes(4, "little")
    assert sealed.hex() == wire["message"]["with_checksum"]
    given = wire["arrays_without_descriptions"]
    data = struct.pack("<4f", *given["losses"])
    assert data.hex() == given["data"] and _crc32c(given["lines"].encode() + data) == given["crc32c"]


def test_a_replay_of_news() -> None:
    given = FILES["wire"]["replay"]

    def digest(state: dict[str, list[Any]], seed: str) -> str:
        found = hashlib.sha256(f"{seed}\n".encode())
        for name in sorted(state):
            kind = "q" if name == "drawn" else "f"
            found.update(f"{name} <{'i8' if kind == 'q' else 'f4'} ({len(state[name])},)\n".encode())
            found.update(struct.pack(f"<{len(state[name])}{kind}", *state[name]))
        return found.hexdigest()[:16]

    state, seed, news = given["state"], int(given["seed_of_the_last_task"]), given["news"]
    assert digest(state, given["seed_of_the_last_task"]) == given["digest_of_the_state"]
    following = dict(state, before=state["center"], center=state["mean"], drawn=[seed - 2**64])
    drawn = draws.normals(seed, (2, 3))
    others = (np.array(following["center"]) + state["scale"][0] * drawn).astype(np.float32).astype(np.float64)
    others[:, -1] = following["center"][-1]
    center, mean = np.array(following["center"]), np.array(following["center"])
    for share, z in zip(news["mixture"][:3], [following["before"], *others], strict=True):
        mean = mean + share * (np.array(z) - center)
    mean[-1] += news["mixture"][3]
    following["mean"] = mean.astype(np.float32).tolist()
    require_equal(following, given["next_state"])
    assert digest(given["next_state"], given["seed_of_this_task"]) == given["digest_of_the_next_state"]


# The page


def quoted() -> Iterator[Any]:
    page = (ROOT / "docs/protocol.md").read_text()
    for name, key, text in re.findall(
        r"^```json vectors/([\w-]+)\.json ([\w-]+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
    ):
        yield pytest.param(name, key, text, id=f"{name}-{key}")


@pytest.mark.parametrize(("name", "key", "text"), list(quoted()))
def test_the_page_quotes_the_vectors(name: str, key: str, text: str) -> None:
    assert json.loads(text) == FILES[name][key]


def test_every_file_is_named_on_the_page() -> None:
    page = (ROOT / "docs/protocol.md").read_text()
    assert {name for name in FILES if f"{name}.json" not in page} == set()
