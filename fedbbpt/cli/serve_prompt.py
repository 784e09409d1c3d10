"""The command `serve-prompt`: classifies texts with a tuned prompt, over HTTP."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import Listening, PtmAccess, with_bundles
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.cli.terminal.model import open_card
from fedbbpt.cli.terminal.model_options import ModelOptions
from fedbbpt.cli.terminal.reloading import Reloading
from fedbbpt.cli.terminal.serving import serve_web
from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.prediction import probabilities
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.host.extras import needs_extra
from fedbbpt.host.progress import progress
from fedbbpt.identity.roles import Role
from fedbbpt.tasks.judgement import require_scores


@with_bundles
def serve_prompt(
    prompt: Annotated[Path, typer.Argument(metavar="PROMPT", help="The tuned prompt: prompt.safetensors of a run.")],
    service: PtmAccess,
    model: ModelOptions,
    listening: Listening,
    model_name: options.CardModel = "",
) -> None:
    """Classify texts over HTTP with a tuned prompt, on a PTM service or on the model loaded into this process.

    It needs the packages of `pip install 'fedbbpt[web]'`.

    Example: fedbbpt serve-prompt run/prompt.safetensors --port 8000
    """
    log_to_stderr(logging.WARNING)
    with needs_extra("web", where="serve-prompt"):
        from fedbbpt.web.classify.app import HEALTH, Served, classifier
        from fedbbpt.web.classify.batching import Batcher
        from fedbbpt.web.serving import WebAddress, WebServer
    watched = Reloading(listening.files())
    z, card = read_prompt(prompt)
    address = WebAddress(listening.host, listening.port, listening.tls(), listening.insecure)
    members = listening.members()
    with ExitStack() as resources:
        with progress("loading the model"):
            ptm = resources.enter_context(open_card(card, service, model, model_name))
            scorer = PromptScorer(ptm, card.task(), card.space)
        require_scores(scorer.card.output, "serve-prompt")
        if scorer.card.image_shape is not None:
            fix = "fedbbpt predict --images FILE.npz"
            raise InvalidInput("the prompt classifies images, and this serves texts", where=str(prompt), fix=fix)
        batcher = resources.enter_context(Batcher(lambda examples: probabilities(scorer, z, examples)))
        served = Served(card.labels, scorer.card.model, "{text_pair}" in card.template)
        app, roles = classifier(served, batcher), frozenset(Role) - {Role.OBSERVER}
        server = WebServer(app, address, tokens=members, roles=roles, open_paths=(HEALTH,))
        serve_web("serving the prompt", server, listening, watched)
