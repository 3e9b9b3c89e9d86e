"""What schemathesis does not know by itself of what the broker's documents say."""

import ipaddress
import json

import schemathesis
from hypothesis import strategies as st


@schemathesis.serializer("application/x-ndjson")
def records(_context, value):
    """One record a line."""
    lines = value if isinstance(value, list) else [value]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _network(family, bits, most):
    def network(address, prefix):
        return str(family((address, prefix), strict=False))

    return st.builds(network, st.integers(most[0], most[1]), st.integers(0, bits))


schemathesis.openapi.format(
    "cidr",
    # IPv6 beyond what IPv4 is mapped to: such a network is written as IPv4's.
    _network(ipaddress.IPv4Network, 32, (0, 2**32 - 1)) | _network(ipaddress.IPv6Network, 128, (2**120, 2**128 - 1)),
)


def _whole(value):
    """1.0 is an integer to JSON Schema, and to no reader of ours: no client writes one so."""
    if isinstance(value, dict):
        return {name: _whole(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@schemathesis.hook
def map_body(_context, body):
    return _whole(body)


@schemathesis.hook
def map_query(_context, query):
    return _whole(query)
