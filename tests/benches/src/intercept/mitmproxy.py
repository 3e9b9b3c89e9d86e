"""What Attaché does, in mitmproxy: a session's token at the door, placeholders replaced, reads only where a session
may only read. Told of all of it by the file in $BENCH_ATTACHE. Not done here: masking, records."""

import json
import os

from mitmproxy import http

with open(os.environ["BENCH_ATTACHE"]) as told:
    TOLD = json.load(told)
SESSIONS = {f"Bearer {session['token']}": session for session in TOLD["sessions"]}
READS = ("GET", "HEAD", "OPTIONS")
# What else may authenticate goes before the one credential is set.
OTHERS = ("proxy-authorization", "cookie", "x-api-key")


class Attache:
    def __init__(self):
        self.inside = {}

    def http_connect(self, flow):
        session = SESSIONS.get(flow.request.headers.get("proxy-authorization", ""))
        if session is None:
            flow.response = http.Response.make(407, b"", {"Proxy-Authenticate": "Basic"})
        elif flow.request.host not in TOLD["hosts"] or flow.request.port != 443:
            flow.response = http.Response.make(403)
        else:
            self.inside[flow.client_conn.id] = session

    def client_disconnected(self, client):
        self.inside.pop(client.id, None)

    def server_connect(self, data):
        # The host is what TLS verifies; the address is pinned.
        data.server.address = ("127.0.0.1", TOLD["hosts"][data.server.address[0]])

    def requestheaders(self, flow):
        session = self.inside.get(flow.client_conn.id)
        held = flow.request.headers.get("authorization", "")
        if session is None or held != f"Bearer {session['placeholder']}":
            self.refuse(flow, 401)
        elif session["read_only"] and flow.request.method not in READS:
            self.refuse(flow, 403)
        else:
            for name in OTHERS:
                flow.request.headers.pop(name, None)
            flow.request.headers["authorization"] = f"Bearer {TOLD['secret']}"

    def refuse(self, flow, status):
        # An answer and a body that streams exclude each other.
        flow.request.stream = False
        flow.response = http.Response.make(status)


addons = [Attache()]
