"""Validation of everything that a client sends to the coordinator, before any of it is stored."""

import math
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fedbbpt.codecs.travelling import unpacked
from fedbbpt.errors import ClientIdTaken, InvalidHello, InvalidPlugin, InvalidTensor, InvalidUpdate
from fedbbpt.identity import names
from fedbbpt.interfaces import Codec, ServerHalf
from fedbbpt.limits import MAX_CLIENT_ID_CHARACTERS, MAX_UPDATE_COUNT
from fedbbpt.types import Array, Arrays, Hello, Measurement, Orders, RunSettings, Update


def updates_add(method: ServerHalf[Any], codec: Codec) -> bool:
    """Returns whether the server needs no more than the sum of the encoded updates, as aggregation of sums requires.

    Raises:
        InvalidPlugin: the method says that it is linear, but its updates hold orders of candidates, which do not add.
    """
    orders = sorted(name for name, form in method.expected(method.init(0)).items() if isinstance(form, Orders))
    if method.linear and orders:
        what = f"the method says that it is linear, but the orders in {', '.join(orders)} do not add"
        raise InvalidPlugin(what, where=type(method).__name__, fix="linear = False")
    return method.linear and codec.additive


def check_hello(hello: Hello, codec: str, *, clips_examples: bool = False, adds_noise: bool = False) -> None:
    """Raises InvalidHello unless the client may join a run that uses `codec`, and does what the run's privacy needs.

    Args:
        hello: What the client says of itself.
        codec: The codec of the run's updates.
        clips_examples: Whether clients clip what each of their examples adds.
        adds_noise: Whether clients add noise to their answers.
    """
    names.check_name(hello.client_id, "client_id", InvalidHello)
    if not 0 < len(hello.client_key) <= MAX_CLIENT_ID_CHARACTERS or not hello.client_key.isprintable():
        fix = f"1 to {MAX_CLIENT_ID_CHARACTERS} printable characters"
        raise InvalidHello("not a client's key", where="client_key", fix=fix)
    if not 1 <= hello.examples <= MAX_UPDATE_COUNT:
        fix = f"from 1 to {MAX_UPDATE_COUNT}"
        raise InvalidHello(f"{hello.examples} labelled examples", where="examples", fix=fix)
    if not hello.codecs.issuperset(codec.split("+")):
        raise InvalidHello(f"cannot encode {codec}", where="codecs", fix=f"a client with the run's codec, {codec}")
    if clips_examples and not hello.clips_examples:
        what = "cannot clip what each example adds, on which the privacy of this run rests"
        raise InvalidHello(what, where="clips_examples", fix='a client that can, or privacy.level = "client"')
    if adds_noise and not hello.adds_noise:
        what = "cannot add noise to its answers, on which the privacy of this run rests"
        raise InvalidHello(what, where="adds_noise", fix='a client that can, or privacy.aggregation = "plain"')


def check_name(hello: Hello, owner: str) -> None:
    """Raises ClientIdTaken if the client's name belongs to another key than its own; "" says that it is free."""
    if owner and not secrets.compare_digest(owner.encode(), hello.client_key.encode()):
        fix = f"another --name, the --state of that client, or `fedbbpt members remove {hello.client_id}`"
        raise ClientIdTaken("a client with another key has this name", where=hello.client_id, fix=fix)


def keeps_ranges(settings: RunSettings) -> bool:
    """Returns whether numbers that a run's clients send are in the ranges of the method.

    The error of a codec that rotates can change a sign. Clipped losses are relative ones, whose length is checked.
    """
    return "rotate" not in settings.codec.split("+") and not settings.clip_norm


def decode_update(
    update: Update,
    codec: Codec,
    expected: Mapping[str, tuple[int, ...] | Orders],
    broadcast: Arrays,
    finalists: int = 0,
) -> Update:
    """Returns the update with its arrays decoded, once everything in it is valid.

    Args:
        update: as the client sent it, with encoded arrays.
        codec: the codec of the run.
        expected: the decoded arrays by name, as `ServerHalf.expected` gives them.
        broadcast: the arrays of the task that the update answers.
        finalists: the number of finalists that the client was to measure.

    Raises:
        InvalidTensor: an array has the wrong shape or type, or holds NaN or infinite elements.
        InvalidUpdate: the weight, the measurement or the names of the arrays are wrong.
    """
    if not (math.isfinite(update.weight) and update.weight > 0):
        raise InvalidUpdate(f"{update.weight}", where="weight", fix="a finite number above 0")
    _check_measurement(update.measurement, "measurement")
    _check_finalists(update, finalists)
    if update.arrays.keys() != expected.keys():
        raise InvalidUpdate(f"{sorted(update.arrays)}", where="arrays", fix=f"{sorted(expected)}")
    shapes = {name: form if isinstance(form, tuple) else (form.rows, form.places) for name, form in expected.items()}
    decoded = unpacked(codec.decode(update.arrays, shapes), update.weight, broadcast)
    for name, form in expected.items():
        if isinstance(form, Orders):
            _check_orders(decoded[name], form, name)
        else:
            _check_numbers(decoded[name], form, name)
    return replace(update, arrays=decoded)


def _check_numbers(array: Array, shape: tuple[int, ...], where: str) -> None:
    if array.shape != shape:
        raise InvalidTensor(f"shape {array.shape}", where=where, fix=f"{shape}")
    if array.dtype.kind != "f":
        raise InvalidTensor(f"dtype {array.dtype}", where=where, fix="floating-point numbers")
    if not np.isfinite(array).all():
        raise InvalidTensor("NaN or infinite elements", where=where, fix="finite numbers")


def _check_orders(array: Array, form: Orders, where: str) -> None:
    if array.shape != (form.rows, form.places):
        raise InvalidTensor(f"shape {array.shape}", where=where, fix=f"{(form.rows, form.places)}")
    if array.dtype != np.uint8:
        raise InvalidTensor(f"dtype {array.dtype}", where=where, fix="uint8")
    if (array >= form.candidates).any() or (np.diff(np.sort(array, axis=1), axis=1) == 0).any():
        fix = f"different candidates in each row, from 0 to {form.candidates - 1}"
        raise InvalidTensor("not the order of candidates", where=where, fix=fix)


def _check_finalists(update: Update, wanted: int) -> None:
    if len(update.finalists) != wanted:
        fix = f"{wanted}: one for each finalist of the task"
        raise InvalidUpdate(f"{len(update.finalists)} measurements", where="finalists", fix=fix)
    examples = update.measurement.dev_examples
    for place, measured in enumerate(update.finalists):
        _check_measurement(measured, f"finalists[{place}]")
        if measured.dev_examples != examples:
            where, fix = f"finalists[{place}].dev_examples", f"{examples}, the same as in measurement"
            raise InvalidUpdate(f"{measured.dev_examples}", where=where, fix=fix)


def _check_measurement(measured: Measurement, where: str) -> None:
    if not (math.isfinite(measured.dev_loss_sum) and measured.dev_loss_sum >= 0):
        raise InvalidUpdate(f"{measured.dev_loss_sum}", where=f"{where}.dev_loss_sum", fix="a finite number from 0")
    for name, count in (("dev_examples", measured.dev_examples), ("queries", measured.queries)):
        if not 0 <= count <= MAX_UPDATE_COUNT:
            raise InvalidUpdate(f"{count}", where=f"{where}.{name}", fix=f"from 0 to {MAX_UPDATE_COUNT}")
    if measured.dev_correct is not None and not 0 <= measured.dev_correct <= measured.dev_examples:
        found = f"{measured.dev_correct} of {measured.dev_examples}"
        raise InvalidUpdate(found, where=f"{where}.dev_correct", fix="from 0 to dev_examples")
