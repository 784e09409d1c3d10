"""The PTM service on a Ray cluster: one front that knows the tenants, and replicas that hold the model.

`model` and `backend` are the two ends between which pairs and scores travel, and know nothing of Ray; `front` stands
behind Ray Serve's gRPC proxies; `cluster` builds all of it, and ends it.
"""
