"""The kit for clients: runs a client against a mock coordinator and a fake PTM, and judges what it does.

A case is data: a run, the rounds that the coordinator plays, and the faults that happen in them. `trial` plays it.
`black_box` answers with scores that follow from a hash, so that every right number of an update is known, and
`methods` computes it with arithmetic of the kit's own.
"""
