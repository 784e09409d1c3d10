"""The kit for PTM services: calls a PtmService as a client does.

A case either makes calls and states the status that each must return, or names a relation: usually two ways to ask for
the same scores, which must agree for every model.
"""
