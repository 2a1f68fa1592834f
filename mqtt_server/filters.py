"""Which topic filters the gateway subscribes to: those of its devices, but for what wider ones among them take already.

A broker delivers a message once for each filter of a session that matches (MQTT 3.1.1 section 3.3.5), the embedded one in no
order between them: an older value would be written over a newer one.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable

from links.mqtt import MqttLink
from scada.topic_index import widest

ASK_S = 3.0
"""So long a new filter is subscribed to although a wider one takes its messages: the broker sends what is retained."""


class Filters:
    """`add` and `remove` what devices listen to, then `apply`."""

    def __init__(self) -> None:
        self._link: MqttLink
        self._uses: Counter[str] = Counter()
        self._known: set[str] = set()
        self._wide: set[str] = set()

    def attach(self, link: MqttLink) -> None:
        """Subscribe over this link from now on."""
        self._link = link

    def add(self, topic_filter: str) -> None:
        """One more device listens to it."""
        self._uses[topic_filter] += 1

    def remove(self, topic_filter: str) -> None:
        """One device less."""
        self._uses[topic_filter] -= 1

    def apply(self) -> None:
        """Tell the broker what changed. In this order a topic that changes hands is never without a subscription."""
        self._uses += Counter()  # drops what is used no more
        known, self._known = self._known, set(self._uses)
        old, self._wide = self._wide, widest(self._known)
        new = self._known - self._wide - known
        # Where nothing was subscribed to yet the wide ones bring everything that is retained, and what they cover may still be
        # held by an earlier run's session.
        asked = new if old else set()
        self._link.subscribe((self._wide - old) | asked)
        self._link.unsubscribe((old - self._wide) | (known - self._known) | (new - asked))
        if asked:
            asyncio.get_running_loop().call_later(ASK_S, self._give_back, asked)

    def _give_back(self, asked: Iterable[str]) -> None:
        self._link.unsubscribe(set(asked) - self._wide)
