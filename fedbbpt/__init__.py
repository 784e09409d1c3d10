"""Federated black-box prompt tuning.

Organisations that hold private labelled data tune one prompt for a pre-trained model (PTM) that they can only query.
Three roles, three kinds of process: `server` (the coordinator), `client`, `ptm` (the service that answers queries).
Read `interfaces` first.
"""

__version__ = "0.1.0"
