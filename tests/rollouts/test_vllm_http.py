"""A server that is not vLLM, where a recipe says that one is: an error that shows what answered."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from posttrain.errors import ConfigError
from posttrain.rollouts import vllm_http
from posttrain.rollouts.vllm_http import ServerAPI


@pytest.mark.parametrize(
    ("answers", "seen"),
    [
        ({"/version": {"name": "a mail server"}}, '/version with {"name": "a mail server"}'),
        ({"/version": ["1.0"]}, '/version with ["1.0"]'),
        ({"/version": {"version": "1"}, "/server_info": {"vllm_config": "text"}}, '/server_info?config_format=json'),
        ({"/version": "x" * 300}, "xxx..., which vLLM does not"),
    ],
)  # fmt: skip
def test_another_server_is_told_apart(answers, seen, monkeypatch):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(answers[self.path.partition("?")[0]]).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    monkeypatch.setattr(vllm_http, "check_version", lambda version, **how: None)
    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(ConfigError) as failed:
                ServerAPI(f"http://127.0.0.1:{server.server_port}", time_limit_s=10).configuration()
        finally:
            server.shutdown()
    said = str(failed.value)
    assert seen in said
    assert len(said) < 1000
    assert said.startswith("rollout.server_base_url: the server at http://127.0.0.1:")
    assert "start it with: " in said
