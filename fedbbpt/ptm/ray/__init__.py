"""The PTM service on a Ray cluster: one front, which knows the tenants, and replicas, which hold the model.

`backend` (in the front) and `replica` are the two ends between which pairs and scores travel; neither imports Ray.
`front` serves the rpcs that come through Ray Serve's gRPC proxies. `deployment` deploys both on Ray Serve, `scaling`
decides how many replicas there are, and `cluster` starts and stops the whole.
"""
