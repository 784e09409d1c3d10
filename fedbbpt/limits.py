"""Every size limit that protects a service or bounds a message or a file.

A model card repeats the limits that callers must know (`types.ModelCard`), and a provider may set smaller ones there.
"""

# Messages

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""The largest gRPC message, in either direction. A deep prompt of GPT2-XL with 40 tokens has 24,576,000 bytes."""
MAX_STRANGER_BYTES = 64 * 1024
"""The largest message of a caller that shows no token, such as a health probe."""
ENVELOPE_BYTES = 4096
"""More than a message of prompts or scores holds besides their numbers and texts."""
CHUNK_BYTES = 256 * 1024
"""The chunks in which this implementation sends arrays and files."""
AUXILIARY_CHUNK_BYTES = 512 * 1024
"""Bytes of an auxiliary model in one message."""
AUXILIARY_CHUNKS_READ = 8
"""Messages of an auxiliary model that are read and serialised at a time."""
MAX_TENSORS = 1024
"""Arrays in one bundle."""
MAX_RANK = 8
"""Dimensions of an array."""
MAX_UPDATE_BYTES = 64 * 1024 * 1024
"""The arrays of one update, encoded."""
MAX_STATUS_CHARACTERS = 300
"""Characters of a text in a status. Metadata is limited to 8 KiB, and texts may quote the caller's input."""
MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""The largest answer of an OpenAI-compatible server that is read."""
MAX_CONCURRENT_CALLS = 24_000
"""Open calls of a server. Each of a run's 10,000 clients holds one stream open, and submits. gRPC itself rejects calls
beyond twice this."""

# Runs

MAX_CLIENT_ID_CHARACTERS = 128
"""Characters of a client's id, and of its key."""
MAX_UPDATE_COUNT = 2**32
"""Examples and queries in one update. The sums of a whole run then fit the 64 bits of the database and of the wire."""
MAX_RUN_CLIENTS = 10_000
"""Clients of a run."""
MAX_ROUNDS = 100_000
"""Rounds of a run."""
MAX_EVENTS = 250
"""Events of a run that a coordinator remembers, and that it tells each watcher."""
MAX_LATE = 100
"""Clients that lapsed because they missed a deadline, of which a status tells."""
MAX_EVICTED_SESSIONS = 10_000
"""Evicted sessions that a coordinator remembers. Older ones are refused as unknown."""

MAX_RUNS = 100
"""Runs of one coordinator, those that have ended included."""
MAX_RUN_NAME_CHARACTERS = 64
"""Characters of a run's name, which names its folder."""
MAX_JOB_BYTES = 2**20
"""The text of a submitted job."""
MAX_START_BYTES = 2**21
"""The file of the prompt that a submitted run begins at."""
MAX_RUN_TOKENS = 1024
"""Tokens of a run of its own."""

# Data files

MAX_DATA_ROWS = 1_000_000
"""Rows of one data source."""
MAX_DATA_CHARACTERS = 100_000
"""Characters of one text in a data source."""
MAX_LINE_CHARACTERS = 8 * 1024 * 1024
"""Characters of one line of a data file, which bounds the memory that one line takes."""

# Tasks and examples of a PTM

MAX_CLASSES = 1000
"""Classes of a task."""
MAX_TASK_CHARACTERS = 100_000
"""Characters of a task: its template and its classes together. Also of a projection's initial text."""
MAX_EXAMPLES = 10_000
"""Examples of a handle."""
MAX_TEXT_CHARACTERS = 1_000_000
"""Characters of one text. Longer text would be truncated anyway, but tokenising it costs time."""
MAX_TOKENISED_CHARACTERS = 2**20
"""Characters that are tokenised at a time: a tokenizer takes some hundred bytes for each token, and a message may hold
many tokens of one character."""
MAX_CONTINUATION_TOKENS = 1024
"""Tokens that all label words of a task may have together after their first ones: a causal model scores each of these
against its whole vocabulary."""
MAX_FILLED_CHARACTERS = 2**26
"""Characters of a template, times the number of examples that are inserted into it."""

# Prompts of a PTM

MAX_PROMPTS = 256
"""Prompts of one call."""
MAX_PAIRS = 2**17
"""(prompt, example) pairs of one call: planning takes time and memory for each before the first one is computed."""
MAX_PROMPT_BYTES = 2**29
"""The vectors of all prompts of one call, since a few bytes of z become many vectors."""
MAX_TOKEN_CHARACTERS = 100
"""Characters of a token: a text prompt of more than this times the model's tokens is too long."""
MAX_LATENT = 1e4
"""The largest absolute element of z, far beyond useful prompts."""
MAX_VECTOR_NORM = 1e4
"""The largest Euclidean norm of a vector of a prompt, far beyond useful prompts."""
MAX_SCALE = 1e4
"""The largest absolute scale of a projection."""
MAX_DELTA = 1.0
"""The largest absolute change of a pixel, which lies between 0 and 1."""
MAX_PROJECTION_ELEMENTS = 2**27
"""Elements of a projection's matrix A: half a GiB of normal numbers. RoBERTa-large with 50 tokens and n = 500 has a
fifth of it."""
MAX_EMBEDDINGS_BYTES = 2**28
"""Embeddings of inputs and class texts that a dual encoder keeps for prompts in the class texts: 130,000 of MiniLM."""

# Prompt spaces, from a file or from the coordinator

MAX_PROMPT_SIDE = 2**16
"""Tokens, layers, heads, channels, words or pixels along one side of a prompt."""
MAX_IMAGE_ELEMENTS = 2**26
"""Elements of an image, or of a feature map from which a picture is drawn on it."""
MAX_CANDIDATES = 2**20
"""Words from which a prompt in words is made."""
MAX_VIEWS = 1024
"""Prompts under which a readout sees the scores."""

# Tenants of a PTM

MAX_TASKS = 1024
"""Tasks whose usage is kept separately. The usage of the least recently used ones is added up under the key ""."""
MAX_KEY_CHARACTERS = 64
"""Characters of an idempotency key."""
MAX_LABEL_TOKENS = 2**20
"""Label tokens of a tenant without a budget for them, because each is kept in memory and in the audit log."""
MAX_LABELLED_INPUTS = 1_000_000
"""Inputs whose labels are remembered for a tenant that gets losses only."""
MAX_BUDGET = 2**63 - 1
"""Queries, tokens or label tokens of a budget: the largest number that its message holds."""
MAX_PRICE_MICROS = 10**9
"""Millionths of a currency's unit for one query, or for 1000 tokens: a thousand units."""
