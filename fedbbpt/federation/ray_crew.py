"""A crew on a Ray cluster: each worker is an actor, which holds a share of the clients."""

import os
import secrets
from collections.abc import Callable

from fedbbpt.federation.crew import CrewPlan
from fedbbpt.federation.spread_crew import OpenPtm, SpreadCrew, WorkerPart, ended
from fedbbpt.host.extras import needs_extra
from fedbbpt.interfaces import Ptm
from fedbbpt.ptm.ray.cluster import OWN_CLUSTER_ENVIRONMENT


def over_ray(open_ptm: OpenPtm, processes: int, address: str = "") -> Callable[[CrewPlan, Ptm], SpreadCrew]:
    """Returns what makes a crew of so many Ray actors, each of which opens the model itself.

    Args:
        open_ptm: Opens the model.
        processes: The number of actors, each of which takes one CPU of the cluster.
        address: A running cluster; all of its machines need fedbbpt and the model. Empty starts one on this machine.

    Raises:
        InvalidInput: Ray is not installed.
    """
    if not address:
        # Ray runs code for every client that reaches the cluster's ports and has its token, so the token is random.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ |= OWN_CLUSTER_ENVIRONMENT | token
    with needs_extra("ray", where="--engine ray"):
        from fedbbpt.ptm.ray import actors  # only now, because Ray reads its environment when it is imported

    def crew(plan: CrewPlan, ptm: Ptm) -> SpreadCrew:
        cluster = actors.Cluster(address, processes)
        try:
            workers = [
                cluster.start(WorkerPart, plan, open_ptm, index, processes, gone=ended) for index in range(processes)
            ]
            for started in [worker.call("private") for worker in workers]:
                started()
            return SpreadCrew(plan, workers, cluster.close)
        except BaseException:
            cluster.close()
            raise

    return crew
