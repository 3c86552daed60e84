"""The HTTP scorer against a real server in a thread."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ramify.core.errors import InputError, ScorerError
from ramify.core.params import SamplingParams
from ramify.search import BestOfN, Rebase
from ramify.search.http_scorer import HttpScorer
from ramify.testing.scripted import run_controller
from ramify.testing.scripted_model import lines_model

Answer = Callable[[dict[str, object]], tuple[int, bytes]]


class Server:
    """Answers every POST with what `answer` makes of its JSON."""

    def __init__(self) -> None:
        self.answer: Answer = lambda asked: (200, b"")
        self.asked: list[dict[str, object]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append(json.loads(body))
                outer.headers.append(dict(self.headers.items()))
                status, content = outer.answer(outer.asked[-1])
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/score"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def count_b(asked: dict[str, object]) -> tuple[int, bytes]:
    texts = asked["completions"]
    assert isinstance(texts, list)
    return 200, json.dumps({"scores": [text.count("b") for text in texts]}).encode()


def test_texts_go_out_together_and_scores_come_back_in_order(server: Server) -> None:
    server.answer = count_b
    scorer = HttpScorer(url=server.url, headers={"Authorization": "Bearer 7"})
    assert scorer.score_batch("é?", ["b", "a", "b\nb"]) == [1.0, 0.0, 2.0]
    assert server.asked == [{"prompt": "é?", "completions": ["b", "a", "b\nb"]}]
    assert server.headers[0]["Authorization"] == "Bearer 7"
    assert server.headers[0]["Content-Type"] == "application/json"


def test_searches_use_it_once_per_step_that_ends_branches(server: Server) -> None:
    server.answer = count_b
    params = SamplingParams(max_tokens=4, stop="\n", include_stop_str_in_output=True)
    search = Rebase(params=params, depth=2, width=12, scorer=HttpScorer(url=server.url))
    run = run_controller(lines_model(depth=2), search, "P")
    assert run.outputs == ["b\nb\n"]
    assert len(server.asked) == 2
    samples = BestOfN(SamplingParams(n=9, max_tokens=9), HttpScorer(url=server.url))
    best = run_controller(lines_model(depth=2), samples, "P")
    assert best.outputs[0].count("b") == max(text.count("b") for text in best.outputs)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (503, b"{}", "expected status 200, got status 503"),
        (200, b"<html>", "expected JSON, got b'<html>'"),
        (200, b"\xff\xfe\x00", "expected JSON"),
        (200, b"[1, 2]", "expected 2 scores"),
        (200, b'{"scores": [1]}', "expected 2 scores, got 1 of them"),
        (200, b'{"scores": [1, "2"]}', "expected finite scores, got '2'"),
        (200, b'{"scores": [1, true]}', "expected finite scores, got True"),
        (200, b'{"scores": [1, NaN]}', "expected finite scores, got nan"),
    ],
)
def test_what_is_no_answer_is_an_error(
    server: Server, status: int, content: bytes, message: str
) -> None:
    server.answer = lambda asked: (status, content)
    with pytest.raises(ScorerError, match=message) as caught:
        HttpScorer(url=server.url).score_batch("P", ["a", "b"])
    assert server.url in str(caught.value)


def test_a_slow_endpoint_times_out(server: Server) -> None:
    def slow(asked: dict[str, object]) -> tuple[int, bytes]:
        time.sleep(0.6)
        return 200, b""

    server.answer = slow
    begin = time.monotonic()
    with pytest.raises(ScorerError, match="expected an answer, got TimeoutError"):
        HttpScorer(url=server.url, timeout_s=0.1).score_batch("P", ["a"])
    assert time.monotonic() - begin < 0.5


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ScorerError, match="expected an answer, got ConnectionRefusedError"):
        HttpScorer(url=f"http://127.0.0.1:{port}").score_batch("P", ["a"])


@pytest.mark.parametrize(
    "options", [{"url": "ftp://x"}, {"url": "x"}, {"url": "http://x", "timeout_s": 0.0}]
)
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"(url|timeout_s): expected"):
        HttpScorer(**options)  # type: ignore[arg-type]
