"""Scenarios in which topics of the Python SDK of CMQ push to an HTTP endpoint.

    python cmq_push.py ADDRESS ID SECRET SCENARIO
"""

import http.server
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from cmq.account import Account
from cmq.topic import Message as Published
from cmq.topic import TopicMeta
from cmq_v2 import TEXT, name, subscribed


class Endpoint(http.server.BaseHTTPRequestHandler):
    posts: list[tuple[dict[str, str], bytes]] = []
    refusals = 0
    came = threading.Condition()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.came:
            self.posts.append((dict(self.headers), body))
            refuse = type(self).refusals > 0
            type(self).refusals -= refuse
            self.came.notify()
        self.send_response(500 if refuse else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass

    @classmethod
    def wait(cls, count: int, at_most_s: float = 60) -> None:
        with cls.came:
            assert cls.came.wait_for(lambda: len(cls.posts) >= count, at_most_s), cls.posts


def pushing(account: Any) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    topic = account.get_topic(name())
    topic.create(TopicMeta())
    url = f"http://127.0.0.1:{server.server_port}/in"
    told = subscribed(account, topic, url, [], Protocal="http", notifyContentFormat="JSON",
                      notifyStrategy="EXPONENTIAL_DECAY_RETRY")
    Endpoint.refusals = 1
    message = Published(TEXT)
    message.msgTag = ["a", "b"]
    identity = topic.publish_message(message)
    Endpoint.wait(2)
    head, body = Endpoint.posts[1]
    assert Endpoint.posts[0][1] == body
    said = json.loads(body)
    assert said["msgBody"] == TEXT and said["topicName"] == topic.topicName, said
    assert said["msgId"] == getattr(identity, "msgId", identity)
    assert isinstance(said["publishTime"], int) and isinstance(said["TopicOwner"], int)
    assert head["x-cmq-message-tag"] == "a,b" and head["x-cmq-message-id"] == said["msgId"]
    assert head["Content-Type"] == "text/plain" and head["User-Agent"].startswith("Qcloud")
    meta = told.get_attributes()
    assert meta.maxMsgHeapNum == url and meta.Protocal == "http"
    meta.NotifyContentFormat = meta.notifyContentFormat = "SIMPLIFIED"
    told.set_attributes(meta)
    # Noticed within a second; until then a post has the old format.
    deadline = time.monotonic() + 60
    while Endpoint.posts[-1][1] != b"plain" and time.monotonic() < deadline:
        count = len(Endpoint.posts)
        topic.publish_message(Published("plain"))
        Endpoint.wait(count + 1)
    assert Endpoint.posts[-1][1] == b"plain"
    told.delete()
    topic.delete()


def push_that_backs_off(account: Any) -> None:
    """The other strategy: a post that failed comes again after about half a minute."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    topic = account.get_topic(name())
    topic.create(TopicMeta())
    url = f"http://127.0.0.1:{server.server_port}/in"
    told = subscribed(account, topic, url, [], Protocal="http", NotifyContentFormat="SIMPLIFIED",
                      NotifyStrategy="BACKOFF_RETRY")
    assert told.get_attributes().NotifyStrategy == "BACKOFF_RETRY"
    Endpoint.refusals = 1
    began = time.monotonic()
    topic.publish_message(Published(TEXT))
    Endpoint.wait(2, 200)
    assert time.monotonic() - began >= 18
    assert [body.decode() for _, body in Endpoint.posts] == [TEXT] * 2
    told.delete()
    topic.delete()


SCENARIOS: dict[str, Callable[[Any], None]] = {
    one.__name__: one for one in (pushing, push_that_backs_off)
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[4]](Account(*sys.argv[1:4]))
