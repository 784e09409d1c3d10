"""The conformance kit: tests a PtmService from outside, in any language.

Cases are data (cases/*.toml). A case either makes calls and states the status that each must return, or names a
relation: usually two ways to ask for the same scores, which must agree for every model. The kit knows the
protocol only: its messages, types and limits, and nothing of an implementation.
"""
