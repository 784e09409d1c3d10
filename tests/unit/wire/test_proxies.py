"""The proxy for a host, as gRPC's C core finds it. tests/scenarios/test_proxies.py compares the rules with gRPC."""

import pytest

from fedbbpt.wire.proxies import proxy_variable

PROXY = "http://proxy.example.org:3128"


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({}, ""),
        ({"http_proxy": PROXY}, "http_proxy"),
        ({"http_proxy": "http://anna:secret@proxy:3128"}, "http_proxy"),
        ({"http_proxy": PROXY, "https_proxy": PROXY}, "https_proxy"),
        ({"http_proxy": PROXY, "https_proxy": PROXY, "grpc_proxy": PROXY}, "grpc_proxy"),
        ({"http_proxy": PROXY, "https_proxy": ""}, ""),
        ({"HTTP_PROXY": PROXY, "all_proxy": PROXY}, ""),
        ({"http_proxy": "proxy.example.org:3128"}, ""),
        ({"https_proxy": "https://proxy.example.org:3128"}, ""),
        ({"http_proxy": PROXY, "no_proxy": "a.org, HUB.example.org"}, ""),
        ({"http_proxy": PROXY, "no_proxy": "example.org"}, ""),
        ({"http_proxy": PROXY, "no_proxy": ".example.org"}, ""),
        ({"http_proxy": PROXY, "no_proxy": "xample.org"}, "http_proxy"),
        ({"http_proxy": PROXY, "no_proxy": "*.example.org"}, "http_proxy"),
        ({"http_proxy": PROXY, "no_proxy": "*"}, "http_proxy"),
        ({"http_proxy": PROXY, "no_proxy": "hub.example.org:7000"}, "http_proxy"),
        ({"http_proxy": PROXY, "NO_PROXY": "hub.example.org"}, "http_proxy"),
        ({"http_proxy": PROXY, "no_grpc_proxy": "a.org", "no_proxy": "hub.example.org"}, "http_proxy"),
    ],
)
def test_the_environment_names_the_proxy_of_a_host(environment: dict[str, str], variable: str) -> None:
    assert proxy_variable("hub.example.org", environment) == variable


@pytest.mark.parametrize(("host", "covered"), [("10.1.2.3", True), ("11.1.2.3", False), ("10.example.org", False)])
def test_an_exception_may_be_a_network(host: str, covered: bool) -> None:
    assert proxy_variable(host, {"http_proxy": PROXY, "no_proxy": "10.0.0.0/8"}) == ("" if covered else "http_proxy")
