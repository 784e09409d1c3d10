"""One file = one paper: its config, what its clients must know, and its two halves, which meet only through Task and
Update."""

from collections.abc import Mapping

from fedbbpt.methods import fed_bbpt, fed_bpt, fed_cma
from fedbbpt.methods.method import Method

METHODS: Mapping[str, Method] = {
    "fed-cma": fed_cma.METHOD,
    "fed-bpt": fed_bpt.METHOD,
    "fed-bbpt": fed_bbpt.METHOD,
}
