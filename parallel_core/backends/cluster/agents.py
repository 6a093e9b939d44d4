"""The agents of some workers, and the workers that are coming.

A worker is *coming* from the moment at which it is asked for, and has *come* when both are there:
its own connection, and its agent's word that it was started. Nothing here waits.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from parallel_core.backends.cluster.agent import agent_order
from parallel_core.backends.cluster.agent_handle import AgentHandle
from parallel_core.backends.cluster.control import Start
from parallel_core.backends.cluster.engine import Engine, Launch, emptiest
from parallel_core.backends.cluster.greeting import Greeting, differences, host_identity
from parallel_core.backends.cluster.held_channel import HeldChannel
from parallel_core.backends.cluster.listener import Listener
from parallel_core.backends.cluster.remote_worker import RemoteWorker
from parallel_core.backends.cluster.sent_files import SentFiles
from parallel_core.errors import EngineError, warn_caller


class _Ordered:
    """An agent that was ordered, and the workers that it is to start."""

    def __init__(self, place: str, launch: Launch) -> None:
        self.place = place
        self.launch = launch
        self.numbers: list[int] = []


class Agents:
    """Agents on `engine`, whose connections `poller` waits for; `bell` is rung for news of it."""

    def __init__(self, engine: Engine, poller: select.poll, bell: Callable[[], None]) -> None:
        self._poller = poller
        self._bell = bell
        self._listener = Listener(engine.listen_at())
        self._all: dict[str, AgentHandle[RemoteWorker]] = {}  # by their names
        self._by_descriptor: dict[int, AgentHandle[RemoteWorker]] = {}
        self._places: dict[str, str] = {}  # of agents, also of those that were ordered
        self._ordered: dict[str, _Ordered] = {}
        self._coming: dict[int, str] = {}  # numbers of workers, and the names of their agents
        self._greeted: dict[int, HeldChannel] = {}  # those whose agent has not named them yet
        self._n_workers = self._n_agents = 0
        self._identity = host_identity()
        self.come: list[RemoteWorker] = []  #: that have just come
        self.failures: list[BaseException] = []  #: why agents and workers have not, since one has
        self.is_refused = False  #: whether one of these would only be repeated
        poller.register(self._listener, select.POLLIN)

    def __iter__(self) -> Iterator[AgentHandle[RemoteWorker]]:
        return iter(list(self._all.values()))

    @property
    def n_coming(self) -> int:
        """How many workers are coming."""
        return len(self._coming)

    @property
    def address(self) -> str:
        """Where agents and workers connect to."""
        host, port = self._listener.address
        return f"{host}:{port}"

    # --- asking ---

    def ask(self, engine: Engine, number: int, workers: Iterable[RemoteWorker]) -> None:
        """Ask for so many workers beside `workers`, as far as the engine has room."""
        places = engine.places()
        taken: dict[str, int] = {}
        for name in (*[worker.agent.name for worker in workers], *self._coming.values()):
            where = self._places.get(name, "")
            taken[where] = taken.get(where, 0) + 1
        to_start: dict[str, list[int]] = {}
        for _ in range(number):
            place = emptiest(places, taken)
            if place is None:
                break
            taken[place] = taken.get(place, 0) + 1
            self._n_workers += 1
            present = self._agent_at(place)
            if present is not None:
                to_start.setdefault(present, []).append(self._n_workers)
            else:
                present = self._order_at(engine, place)
                self._ordered[present].numbers.append(self._n_workers)
            self._coming[self._n_workers] = present
        for name, numbers in to_start.items():
            self._all[name].send(Start(numbers))

    def _agent_at(self, place: str) -> str | None:
        for name, agent in self._all.items():
            if self._places[name] == place and not agent.has_left:
                return name
        return None

    def _order_at(self, engine: Engine, place: str) -> str:
        for name, ordered in self._ordered.items():
            if ordered.place == place:
                return name
        self._n_agents += 1
        name = str(self._n_agents)
        order = agent_order(*self._listener.address, self._listener.token, name)
        self._ordered[name] = _Ordered(place, engine.launch(place, order, self._bell))
        self._places[name] = place
        return name

    def look_at_orders(self, engine: Engine) -> None:
        """Find out which orders have failed."""
        for name, ordered in list(self._ordered.items()):
            error = ordered.launch.error()
            if error is not None:
                self._fail(name, engine.explain(error))

    def drop_orders(self, engine: Engine) -> None:
        """Expect no agent from places that are gone."""
        if self._ordered:
            places = engine.places()
            for name, ordered in list(self._ordered.items()):
                if ordered.place not in places:
                    self._drop(name)

    def _fail(self, name: str, error: BaseException) -> None:
        """Note that an agent could not be started."""
        self._drop(name)
        self.failures.append(error)

    def _drop(self, name: str) -> None:
        ordered = self._ordered.pop(name)
        ordered.launch.release()
        self._places.pop(name, None)
        for number in ordered.numbers:
            self._coming.pop(number, None)

    # --- what comes ---

    def take(self, descriptor: int, event: int, words: str) -> bool:
        """Take in an event, if it is about an agent or a greeting; `words` name the engine."""
        agent = self._by_descriptor.get(descriptor)
        if agent is not None:
            self._hear(agent, event)
        elif descriptor == self._listener.fileno():
            for found in self._listener.accept():
                self._poller.register(found, select.POLLIN)
        elif self._listener.is_greeting(descriptor):
            self._read_greeting(descriptor, words)
        else:
            return False
        return True

    def want_to_send(self) -> None:
        """Wait for room in the connections in which something waits."""
        for agent in self._all.values():
            if agent.channel.pending:
                self._poller.modify(agent, select.POLLIN | select.POLLOUT)

    def _hear(self, agent: AgentHandle[RemoteWorker], event: int) -> None:
        if event & select.POLLOUT:
            agent.flush()
            if not agent.channel.pending:
                self._poller.modify(agent, select.POLLIN)
        if event & ~select.POLLOUT:
            agent.receive()
            self._note_starts(agent)
            if agent.has_left:
                with contextlib.suppress(KeyError):
                    self._poller.unregister(agent)

    def _read_greeting(self, descriptor: int, words: str) -> None:
        try:
            greeted = self._listener.read(descriptor)
        except ConnectionError:
            self._poller.unregister(descriptor)
            self._listener.drop(descriptor)
            return
        if greeted is None:
            return
        self._poller.unregister(descriptor)
        greeting, facts = greeted
        try:
            if "worker" in facts:
                self._welcome_worker(greeting, facts)
            else:
                self._welcome_agent(greeting, facts, words)
        except OSError:  # it has gone before it was answered
            greeting.sock.close()

    def _welcome_worker(self, greeting: Greeting, facts: dict[str, Any]) -> None:
        number = facts["worker"]
        if number not in self._coming:
            greeting.answer("this worker is not wanted any more").close()
            return
        self._greeted[number] = HeldChannel(greeting.answer())
        agent = self._all.get(facts["agent"])
        if agent is not None:
            self._note_starts(agent)

    def _welcome_agent(self, greeting: Greeting, facts: dict[str, Any], words: str) -> None:
        name = facts["agent"]
        ordered = self._ordered.get(name)
        if ordered is None:
            greeting.answer("this agent is not wanted any more").close()
            return
        refusal, doubt = differences(facts["versions"])
        if refusal:
            words = f"{words} has other versions than this program: {refusal}"
            greeting.answer(words).close()
            self.is_refused = True
            self._fail(name, EngineError(words))
            return
        if doubt:
            warn_caller(f"{words} has other versions than this program: {doubt}", RuntimeWarning)
        agent: AgentHandle[RemoteWorker] = AgentHandle(
            greeting.answer(), facts, facts["host"] == self._identity
        )
        self._all[name] = agent
        self._by_descriptor[agent.fileno()] = agent
        self._poller.register(agent, select.POLLIN)
        del self._ordered[name]
        ordered.launch.release()
        agent.send(Start(ordered.numbers))

    def _note_starts(self, agent: AgentHandle[RemoteWorker]) -> None:
        """Find out which workers have come, and which never will."""
        for number, words in agent.not_started.items():
            if self._coming.pop(number, None) is not None:
                self.failures.append(EngineError(f"on {agent.node}: {words}"))
        agent.not_started.clear()
        for number in [one for one in agent.started if one in self._greeted]:
            pid, channel = agent.started.pop(number), self._greeted.pop(number)
            if self._coming.pop(number, None) is None:
                channel.close()
                continue
            worker = RemoteWorker(number, pid, agent, channel, self._all_files)
            agent.workers[number] = worker
            self.come.append(worker)
            self.failures.clear()

    def _all_files(self) -> list[SentFiles]:
        return [agent.files for agent in self._all.values() if not agent.has_left]

    # --- leaving ---

    def settle(self) -> None:
        """Take in which workers have come, and let go of agents that have left with theirs."""
        for agent in list(self._all.values()):
            if agent.started or agent.not_started:
                self._note_starts(agent)
            if not agent.has_left:
                continue
            for number in [one for one, name in self._coming.items() if name == agent.name]:
                del self._coming[number]
            if not agent.workers:
                del self._all[agent.name], self._places[agent.name]
                del self._by_descriptor[agent.fileno()]
                with contextlib.suppress(KeyError):
                    self._poller.unregister(agent)
                agent.close()

    def drop_files(self) -> None:
        """Have hosts let go of the arrays of a call."""
        for agent in self._all.values():
            agent.files.drop()

    def release_orders(self) -> None:
        """Want no more of what was ordered and has not come."""
        for ordered in self._ordered.values():
            ordered.launch.release()
        for name in self._ordered:
            self._places.pop(name, None)
        self._ordered.clear()
        self._coming = {n: name for n, name in self._coming.items() if name in self._all}
        self.failures.clear()
        self.is_refused = False

    def close(self, tells: bool = True) -> None:
        """Have all of them leave; or, in a forked child, only close what is here."""
        if tells:
            self.release_orders()
        for agent in self._all.values():
            if tells:
                agent.leave()
            agent.close()
        self._all.clear()
        for channel in self._greeted.values():
            channel.close()
        self._listener.close()
