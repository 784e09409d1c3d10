"""All commands, with the line that describes each: what `fedbbpt --help` and shell completion need to know of them.

The modules of the commands take up to a second to import, so that one is imported only when its command is used. A
test compares the lines with the commands' own help.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Leaf:
    """A command: the function `name` of the module fedbbpt.cli.`module`, and the first line of its help."""

    module: str
    name: str
    help: str


@dataclass(frozen=True, slots=True)
class Branch:
    """Commands with a common first word, and what they are for."""

    help: str
    commands: Mapping[str, Leaf]


Node: TypeAlias = Leaf | Branch

TREE: Mapping[str, Node] = {
    "init": Leaf("federation", "init", "Write a job file with every key and its meaning."),
    "plan": Leaf(
        "plan", "plan", "Forecast the queries, tokens, price, bytes and minutes of a run, before anything is spent."
    ),
    "run": Leaf(
        "federation",
        "run",
        "Run a whole federation on this machine, with a PTM service, a coordinator and clients as separate processes.",
    ),
    "simulate": Leaf(
        "federation",
        "simulate",
        "Run the same federation in one process without a network. It ends with the same prompt, bit for bit.",
    ),
    "demo": Leaf(
        "federation",
        "demo",
        "Run a federation of four clients with different mixes of classes, on questions to a hospital or on --data.",
    ),
    "report": Leaf(
        "report",
        "report",
        "Write one self-contained HTML page of a finished run: curve, controls, errors, cost, settings, privacy.",
    ),
    "data": Leaf(
        "data",
        "data",
        "Show how a job splits its examples: the classes of each client, and how much the clients differ.",
    ),
    "status": Leaf("status", "status", "Show the state of a run, its clients and its cost."),
    "dashboard": Leaf(
        "dashboard", "dashboard", "Show the runs of a coordinator, or past runs in a folder, on a web page."
    ),
    "stop": Leaf("status", "stop", "End a run after the open round. Its result is the best prompt so far."),
    "result": Leaf("runs", "result", "Fetch the best prompt of a run so far, with its card."),
    "predict": Leaf(
        "predict",
        "predict",
        "Classify texts or images with a tuned prompt, on a PTM service or on the model loaded into this process.",
    ),
    "export": Leaf(
        "export", "export", "Write a tuned prompt in the form of PEFT, vLLM, transformers, plain text or ONNX."
    ),
    "serve-prompt": Leaf(
        "serve_prompt",
        "serve_prompt",
        "Classify texts over HTTP with a tuned prompt, on a PTM service or on the model loaded into this process.",
    ),
    "evaluate": Leaf(
        "evaluate", "evaluate", "Measure a tuned prompt, or a model without a prompt, on labelled examples."
    ),
    "wordings": Leaf(
        "wordings",
        "wordings",
        "Compare templates and class texts for a job on its training examples, without tuning. "
        "Test examples are not used.",
    ),
    "coordinator": Branch(
        "The meeting point of a run's clients. It sees no data.",
        {
            "serve": Leaf(
                "coordinator",
                "coordinator_serve",
                "Run a job with the clients that join, and end when the run is finished; or, with --state, serve many "
                "runs.",
            ),
            "audit": Leaf("coordinator_audit", "audit", "Verify a coordinator's audit log, and count its records."),
        },
    ),
    "runs": Branch(
        "The runs of a coordinator, for its operator.",
        {
            "submit": Leaf(
                "runs", "submit", "Begin a run on a coordinator that serves many. Its clients may join at once."
            ),
            "start-from": Leaf(
                "runs", "start_from", "Begin a run at the prompt that another run has found. A readout is fitted anew."
            ),
            "list": Leaf("runs", "list_runs", "List the runs of a coordinator, those that have ended included."),
            "show": Leaf(
                "runs", "show_run", "Show the state of a run, its clients and its cost, as `fedbbpt status` does."
            ),
            "stop": Leaf("runs", "stop_run", "End a run after the open round. Its result is the best prompt so far."),
            "delete": Leaf("runs", "delete_run", "Delete a run that has ended, with all its files."),
            "continue": Leaf(
                "runs",
                "continue_run",
                "Let a run that has ended play more rounds from where it ended. Its clients join again.",
            ),
            "backup": Leaf(
                "runs",
                "runs_backup",
                "Write a backup of a run while it goes on, on the coordinator's machine, next to its store.",
            ),
        },
    ),
    "members": Branch(
        "The clients of a run, and the names that they own.",
        {
            "list": Leaf(
                "members",
                "list_members",
                "List all clients that own a name in a run, with what keeps them from their tasks.",
            ),
            "remove": Leaf(
                "members",
                "remove_member",
                "Take a client out of a run, and free its name for another one. Its updates stay counted.",
            ),
        },
    ),
    "admin": Branch(
        "The members of a federation: who they are and what they may do.",
        {
            "token": Leaf(
                "admin",
                "token",
                "Make a bearer token for a member, and add its digest to a tokens file.",
            ),
            "init-ca": Leaf(
                "admin",
                "init_ca",
                "Make an authority, unless there is one, and a certificate with its key for each server.",
            ),
            "invite": Leaf(
                "admin", "invite", "Make an invitation: one word, with which `fedbbpt enrol` gets a certificate once."
            ),
            "revoke": Leaf(
                "admin",
                "revoke",
                "Take a member's certificates, invitations and tokens away. Its open streams end within seconds.",
            ),
            "list": Leaf(
                "admin", "list_admitted", "List the members that have a certificate, an invitation or a token."
            ),
        },
    ),
    "enrol": Leaf("enrol", "enrol", "Make a key, and get a certificate for it with an invitation."),
    "client": Branch(
        "An organisation's part of a run: private data and a local search.",
        {
            "join": Leaf(
                "client",
                "client_join",
                "Take part in a run with private data. Inputs go to the PTM service at --ptm; labels stay here.",
            ),
        },
    ),
    "relay": Branch(
        "A site's clients as one client of the coordinator above, which sees only their sum.",
        {
            "serve": Leaf(
                "relay",
                "relay_serve",
                "Sum the updates of a site's clients, and take part in a run above as one client.",
            ),
        },
    ),
    "owner": Branch(
        "The part of the model's owner in fed-sp: the auxiliary model and its own tuning.",
        {
            "auxiliary": Leaf(
                "owner", "owner_auxiliary", "Distil the small model that clients train from the job's full model."
            ),
            "join": Leaf(
                "owner",
                "owner_join",
                "Tune the prompt through the full model, after each average of the clients' prompts.",
            ),
        },
    ),
    "ptm": Branch(
        "The service that answers queries to a pre-trained model.",
        {
            "serve": Leaf(
                "ptm_serve",
                "ptm_serve",
                "Answer queries to a model. Label scores leave the service; weights and gradients never do.",
            ),
            "audit": Leaf("ptm", "audit", "Verify an audit log, and sum up what each tenant has used."),
            "token": Leaf("ptm", "token", "Make a token for a tenant, and print it with its line for tenants.toml."),
            "describe": Leaf(
                "ptm_caller",
                "describe",
                "Show the card of a PTM service's model: what it takes, what it returns, its limits and prices.",
            ),
            "usage": Leaf(
                "ptm_caller", "usage", "Show what you have used at a PTM service, and what is left of your budget."
            ),
        },
    ),
    "conformance": Branch(
        "Test whether a service, or a client, keeps its contract.",
        {
            "client": Leaf(
                "conformance",
                "client",
                "Test a client, in any language, against docs/protocol.md, with a mock coordinator and a fake PTM "
                "service.",
            ),
            "ptm": Leaf(
                "conformance", "ptm", "Test a PTM service, in any language, against the contract of ptm.proto."
            ),
        },
    ),
    "bench": Branch(
        "Compare methods, and measure how fast rounds are and a model answers.",
        {
            "rounds": Leaf(
                "bench_rounds",
                "rounds",
                "Measure rounds of clients that compute nothing, next to a bare gRPC barrier, on this machine.",
            ),
            "scale": Leaf(
                "bench_scale",
                "scale",
                "Measure a coordinator with thousands of connected clients that compute nothing, on this machine.",
            ),
            "download": Leaf(
                "bench_download",
                "download",
                "Measure the download of an auxiliary model, next to a bare gRPC stream of as many bytes, here.",
            ),
            "ptm": Leaf(
                "bench_ptm",
                "ptm",
                "Measure a PTM service next to loops written by hand with the same model, on this machine.",
            ),
            "attack": Leaf(
                "bench_attack",
                "attack",
                "Let some clients of a small federation lie, and compare the rules of cohort.robust.",
            ),
            "data": Leaf(
                "bench_data", "data", "Measure what more data is worth to members alone, together, and pooled."
            ),
            "methods": Leaf(
                "bench", "methods", "Run methods and baselines under one budget of queries, and write tables and plots."
            ),
        },
    ),
}
