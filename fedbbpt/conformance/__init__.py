"""The conformance kits, which test PTM services and clients from outside, in any language.

Cases are data (`ptm/cases/*.toml`, `client/cases/*.toml`), each with a claim for people. The kits know the protocol
only: its messages, types and limits, and nothing of an implementation.
"""
