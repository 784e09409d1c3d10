"""The golden vectors in fedbbpt/conformance/vectors: results of the computations that docs/protocol.md prescribes.

    python -m tests.golden_vectors

writes them anew, from this project's implementation. tests/unit/conformance/test_golden_vectors.py compares them with
it, and with computations that share no code with it. The vectors of secure aggregation are in tests/unit/secure.
"""

import json
import re
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.codecs import codec_of
from fedbbpt.codecs.rotation import Rotation
from fedbbpt.codecs.travelling import packed
from fedbbpt.methods.fed_bpt import FedBptSettings, local_search
from fedbbpt.methods.fed_cma import FedCmaSettings, NewtonReplay, candidates, near
from fedbbpt.methods.replay import digest
from fedbbpt.optim.policy_gradient import PolicyGradient
from fedbbpt.optim.spsa import SpsaGc
from fedbbpt.prompts.generator import Generator
from fedbbpt.prompts.visual import ImageSpace
from fedbbpt.tasks import readout
from fedbbpt.tasks.criterion import cross_entropies, expansion
from fedbbpt.types import Examples
from fedbbpt.wire.checksums import sealed
from fedbbpt.wire.tensors import unlabelled

FOLDER = Path(__file__).parents[1] / "fedbbpt/conformance/vectors"
SEED = 2**63 + 7
"""A seed that needs all 64 bits."""
LABELS = np.array([2, 0])


def _listed(array: npt.NDArray[Any] | float) -> Any:
    return np.asarray(array).tolist()


def draws() -> dict[str, Any]:
    """Returns the draws that both ends make."""
    return {
        "derive": {"seed": 7, "parts": ["generator", "code"], "value": str(seeds.derive(7, "generator", "code"))},
        "derive_from_a_large_seed": {
            "seed": str(SEED),
            "parts": ["north/ward-3", 4],
            "value": str(seeds.derive(SEED, "north/ward-3", 4)),
        },
        "signs": {"seed": 7, "count": 11, "value": _listed(seeds.signs(7, (11,)))},
        "uniforms": {"seed": str(SEED), "count": 3, "value": _listed(seeds.uniforms(SEED, 3))},
        "normals_of_an_odd_count": {"seed": 7, "shape": [1, 3], "value": _listed(seeds.normals(7, (1, 3)))},
        "normals": {"seed": str(SEED), "shape": [2, 3], "value": _listed(seeds.normals(SEED, (2, 3)))},
    }


def _scores() -> npt.NDArray[np.float32]:
    """Returns the scores [3, 2, 3] of a mean and two candidates on two examples."""
    return (8 * seeds.uniforms(3, 18).reshape(3, 2, 3) - 4).astype(np.float32)


def fed_cma() -> dict[str, Any]:
    """Returns a population, the losses of scores with offsets, and an expansion."""
    arrays = {"mean": np.array([0.5, -1, 0.25], np.float32), "scale": np.array([1, 0.5, 2], np.float32)}
    population = candidates(arrays, SEED, FedCmaSettings(3, False, False))
    around = {"mean": arrays["mean"], "center": np.array([1, 1, -1], np.float32), "scale": np.array([0.75], np.float32)}
    scores, offsets = _scores(), np.array([0.1, -0.7, 1.3], np.float32)
    shifted = scores + np.float32(0.25) * offsets
    losses = cross_entropies(shifted, LABELS)
    means = {"losses": 2 * losses.mean(axis=1)}
    found = expansion(scores, 0.25 * np.eye(3), LABELS)
    return {
        "population": {
            "seed": str(SEED),
            **{name: _listed(each) for name, each in arrays.items()},
            "candidates": _listed(population),
        },
        "population_of_an_expansion": {
            "seed": str(SEED),
            "population": 3,
            "offsets": 1,
            **{name: _listed(each) for name, each in around.items()},
            "candidates": _listed(near(around, SEED, 3, 1)),
        },
        "losses": {
            "scores": _listed(scores),
            "labels": _listed(LABELS),
            "offsets": _listed(offsets),
            "scores_with_offsets": _listed(shifted),
            "losses_of_examples": _listed(losses),
            "weight": 2,
            "travelling": _listed(packed(means, 2.0, {})["losses"].astype(np.float32)),
        },
        "expansion": {
            "scores_of_mean_and_candidates": _listed(scores),
            "labels": _listed(LABELS),
            "offsets": 3,
            "loss": float(found.losses[0]),
            "decrease": float(found.losses[1] - found.losses[0]),
            "gradient": _listed(found.gradient),
            "hessian": _listed(found.hessian[np.triu_indices(len(found.gradient))]),
        },
    }


def fed_bpt() -> dict[str, Any]:
    """Returns two generations of the diagonal search, with and without a limit."""
    arrays = {"mean": np.array([0.5, -1, 0.25], np.float32), "sigma": np.array([0.75], np.float32)}
    orders = [np.array([2, 0]), np.array([1, 3])]
    found = {}
    for name, limit in (("search", None), ("search_with_a_limit", 1.5)):
        given = arrays | ({} if limit is None else {"limit": np.array([limit], np.float32)})
        populations: list[Any] = []

        def order(generation: int, population: npt.NDArray[np.float64], seen: list[Any] = populations) -> Any:
            seen.append(_listed(population))
            return orders[generation].astype(np.uint8)

        seed = seeds.derive(SEED, "north")
        mean, sigmas = local_search(FedBptSettings(4, 2, 0.0, False, "diagonal", False, False), given, seed, order)
        found[name] = {
            "task_seed": str(SEED),
            "client_id": "north",
            "seed": str(seed),
            **{key: _listed(each) for key, each in given.items()},
            "local_population": 4,
            "candidates": populations,
            "orders": [_listed(each) for each in orders],
            "final_mean": _listed(mean),
            "sigmas": _listed(sigmas),
        }
    return found


def fed_bbpt() -> dict[str, Any]:
    """Returns a generator's output, a step of SPSA, and a step of the categorical generator."""
    generator = Generator(dim=2, code=3, hidden=2, seed=SEED)
    theta = np.round(2 * seeds.uniforms(5, generator.size) - 1, 3)
    search = SpsaGc(estimates=2, a=0.5, alpha=0.4, o=1.0, c=0.2, gamma=0.1, beta=0.9)
    start, losses = search.init(np.array([0.5, -0.25])), np.array([1.5, 1.25, 1.0, 1.75])
    seed = seeds.derive(SEED, "north", 0)
    population = search.ask(start, seed)
    after = search.tell(start, population, losses)
    rows = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    words, word_losses = np.array([[0, 2], [1, 2], [0, 0]], np.float64), np.array([1.0, 2.0, 4.0])
    policy = PolicyGradient(samples=3, learning_rate=0.1, weight_decay=0.01, clip_norm=5.0)
    gradient = policy.gradient(rows, words, word_losses)
    return {
        "generator": {
            "generator_seed": str(SEED),
            "code": 3,
            "hidden": 2,
            "n": 2,
            "theta": _listed(theta),
            "z": _listed(generator(theta[None])[0]),
        },
        "spsa": {
            "task_seed": str(SEED),
            "client_id": "north",
            "step": 1,
            "seed": str(seed),
            "a": 0.5,
            "alpha": 0.4,
            "o": 1.0,
            "c": 0.2,
            "gamma": 0.1,
            "beta": 0.9,
            "theta": _listed(start.point),
            "points": _listed(population),
            "losses": _listed(losses),
            "coefficients": _listed(search.coefficients(losses)),
            "momentum": _listed(after.momentum),
            "next_theta": _listed(after.point),
        },
        "categorical": {
            "theta": _listed(rows),
            "prompts": [[int(j) for j in row] for row in words],
            "losses": _listed(word_losses),
            "learning_rate": 0.1,
            "weight_decay": 0.01,
            "clip_norm": 5.0,
            "gradient": _listed(gradient),
            "next_theta": _listed(policy.tell(policy.init(rows), words, word_losses).point),
        },
    }


def picture() -> dict[str, Any]:
    """Returns the picture of a small decoder on one image, and what is clipped of a strong one."""
    space = ImageSpace((1, 8, 8), 2, 2, (2, 4), 0.5, 11)
    z = np.round(2 * seeds.uniforms(5, space.dim) - 1, 3).astype(np.float32)
    image = (np.arange(64) * 37 % 256).astype(np.uint8).reshape(1, 1, 8, 8)
    deltas = space.prompts(z[None].astype(np.float64), Examples(images=image)).values[0, 0, 0]
    strong = ImageSpace((1, 8, 8), 2, 2, (2, 4), 20.0, 11)
    clipped = strong.prompts(z[None].astype(np.float64), Examples(images=image)).values[0, 0, 0]
    return {
        "decoder": {
            "image": [1, 8, 8],
            "pooled": 2,
            "grid": 2,
            "widths": [2, 4],
            "seed": 11,
            "strength": 0.5,
            "z": _listed(z),
            "pixels": _listed(image[0, 0]),
            "picture": _listed(deltas),
        },
        "clipped": {"strength": 20.0, "first_row": _listed(clipped[0])},
    }


def codecs() -> dict[str, Any]:
    """Returns the bytes of codecs that do not round by chance, and of numbers that int8 and int4 hold exactly."""
    values = np.array([0.5, -2, 0.25, 1, 0, 0.125, -0.75, 0])
    rng = np.random.default_rng(0)
    found = {}
    for name in ("float16", "bfloat16", "topk+float16"):
        encoded = codec_of(name, kept=0.25, point="mean").encode({"mean": values}, rng)["mean"]
        found[name] = {"kept": 0.25, "values": _listed(values), "bytes": encoded.tobytes().hex()}
    for name, levels in (("int8", 127), ("int4", 7)):
        scale = np.float32(0.5)
        whole = np.array([3, -levels, 0, 1, levels, -1, 2, 0, -3])
        packed_ = whole.astype(np.int8).tobytes()
        if name == "int4":
            nibbles = [int(each) & 15 for each in whole] + [0]
            packed_ = bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
        data = np.frombuffer(scale.tobytes() + packed_, np.int8)
        decoded = codec_of(name, kept=1.0, point="").decode({"mean": data}, {"mean": (9,)})["mean"]
        found[name] = {"bytes": data.tobytes().hex(), "count": 9, "values": _listed(decoded)}
    nine = np.array([0.5, -2, 0.25, 1, 0, 0.125, -0.75, 0, 3])
    found["rotate"] = {"name": "mean", "values": _listed(nine), "rotated": _listed(Rotation().forward(nine, "mean"))}
    return found


def fed_readout() -> dict[str, Any]:
    """Returns the sums of two readouts over two examples."""
    columns = (8 * seeds.uniforms(9, 8).reshape(2, 4) - 4).astype(np.float32)
    readouts = np.round(2 * seeds.uniforms(10, 30).reshape(2, 3, 5) - 1, 3)
    sums = readout.sums(columns, LABELS, readouts)
    return {
        "sums": {
            "columns": _listed(columns),
            "labels": _listed(LABELS),
            "readouts": _listed(readouts),
            "loss": _listed(sums.loss),
            "gradient": _listed(sums.gradient),
            "moments": _listed(sums.moments),
        }
    }


def wire() -> dict[str, Any]:
    """Returns checksums, the digest of a state, and the replay of news."""
    losses = {"losses": np.array([1.5, 1.25, 1.0, 0.75], np.float32)}
    settings = FedCmaSettings(3, False, True)
    held: dict[str, npt.NDArray[Any]] = {
        "mean": np.array([0.5, -1, 0.25], np.float32),
        "center": np.array([1, 1, -1], np.float32),
        "before": np.array([0, 0.5, 0], np.float32),
        "scale": np.array([0.75], np.float32),
        "drawn": np.array([5], np.int64),
    }
    news = {"mixture": np.array([0.5, -0.25, 0.125, 2.0]), "accepted": np.array([1], np.uint8)}
    after = NewtonReplay(settings, 1).replayed(held, news, SEED)
    return {
        "crc32c": {"bytes": b"123456789".hex(), "value": google_crc32c.value(b"123456789")},
        "message": {"bytes": "0801", "with_checksum": sealed(bytes.fromhex("0801")).hex()},
        "arrays_without_descriptions": {
            "losses": _listed(losses["losses"]),
            "lines": "losses <f4 (4,)\n",
            "data": unlabelled(losses).data.hex(),
            "crc32c": unlabelled(losses).crc32c,
        },
        "replay": {
            "seed_of_the_last_task": str(SEED),
            "seed_of_this_task": "12",
            "population": 3,
            "offsets": 1,
            "state": {name: _listed(each) for name, each in held.items()},
            "digest_of_the_state": digest(held, SEED).hex(),
            "news": {name: _listed(each) for name, each in news.items()},
            "next_state": {name: _listed(each) for name, each in after.items()},
            "digest_of_the_next_state": digest(after, 12).hex(),
        },
    }


FILES = {
    "draws.json": draws,
    "fed-cma.json": fed_cma,
    "fed-bpt.json": fed_bpt,
    "fed-bbpt.json": fed_bbpt,
    "fed-readout.json": fed_readout,
    "picture.json": picture,
    "codecs.json": codecs,
    "wire.json": wire,
}
"""The files, and the functions that compute their content."""


def text(content: Any) -> str:
    """Returns JSON with each list of numbers on one line."""
    return (
        re.sub(r"\[[^\[\]{}\"]*\]", lambda found: re.sub(r"\s+", " ", found[0]), json.dumps(content, indent=1)) + "\n"
    )


if __name__ == "__main__":
    for name, computed in FILES.items():
        (FOLDER / name).write_text(text(computed()))
