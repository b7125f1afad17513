"""Generator of claims of every form, as text."""

from __future__ import annotations

from spanproof.tests.reference.generate import Chance, pick, rarely

SERVICES = ("a", "b", "c", "*", "a", "b", "c", "*", "unknown")
PEERS = (
    "b", "c", "bank", "pg", "nats", "unknown", "*", "a", '"b.local"', "*", "localhost", '"10.0.0.7"', "openai",
    '"llm.example"', "*", "b",
)  # fmt: skip
OPERATIONS = ('"op"', '"GET *"', '"* /x"')
ORDERS = ("==", "!=", "<", "<=", ">", ">=")
DURATIONS = ("0ms", "5ms", "10ms", "20ms", "40ms", "60ms")
TEXTS = ('"a"', '"b"', '"op"', '"GET /x"', '"x"', '"bank"')
STATUSES = ("500", "200", "404", '"503"')
NUMBERS = ("2", "1.5", '"2"', "-1")
RATES = ("10/s", "20/s", "35/s", "0/s")
NUMBER_SETS = ("[1, 2]", '["x", "2"]', "0..2")
PROTOCOLS = ('"http"', '"rpc"', '"db"', '"messaging"', '"other"')
TAGS = ('"x"', '"y"', '"z"')
TAG_SETS = ('["x"]', "[1, 3]", '["y", "z"]')
PLAIN = ('"x"', "true", "false", '"true"')
VERSIONS = ('"1"', "2")


class ClaimMaker:
    """Generator of random claims."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance

    def make(self) -> str:
        claim = self._pick(
            (
                self._quantified,
                self._quantified,
                self._path,
                self._path,
                self._bag,
                self._bag,
                self._number,
                self._number,
                self._retry,
                self._retry,
                self._no_retry,
                self._fallback,
                self._before,
                self._timed,
                self._circuit,
                self._timeout,
                self._retry,
                self._no_retry,
                self._calls,
                self._confident,
                self._if,
            )
        )()
        if " with confidence " in claim or claim.startswith("circuit"):
            return claim
        if rarely(self.chance, 8):
            return f"{claim} by {self._pick(('service', 'name', 'span.plain', 'error', 'status'))}"
        if rarely(self.chance, 3):
            share = self._pick(("0%", "50%", "60%", "100%", "34%"))
            claim += f" in {self._pick(ORDERS)} {share} of traces"
        return claim

    def _if(self) -> str:
        parts = (
            self._quantified, self._path, self._bag, self._number, self._retry, self._no_retry, self._fallback,
            self._before, self._timeout, self._calls,
        )  # fmt: skip
        return f"if {self._pick(parts)()} then {self._pick(parts)()}"

    def _pick(self, options):  # type: ignore[no-untyped-def]
        return pick(self.chance, options)

    def _below(self, n: int) -> int:
        return self.chance.below(n)

    # ## Selections

    def _target(self) -> str:
        if rarely(self.chance, 3):
            text = "span" + self._pick(("", " a", " b", " c", " *"))
            if rarely(self.chance, 3):
                text += " " + self._pick(OPERATIONS)
        else:
            text = self._service()
        return text + (f"[{self._span_condition()}]" if rarely(self.chance, 3) else "")

    def _service(self) -> str:
        return self._pick(SERVICES) + (" " + self._pick(OPERATIONS) if rarely(self.chance, 4) else "")

    def _call(self, arrow: str | None = None, tries: bool | None = None) -> str:
        caller = self._service() + (f"[{self._span_condition()}]" if rarely(self.chance, 7) else "")
        arrow = arrow or self._pick(("->", "->", "->", "~>"))
        callee = self._pick(PEERS) + (" " + self._pick(OPERATIONS) if rarely(self.chance, 5) else "")
        callee += f"[{self._call_condition()}]" if rarely(self.chance, 4) else ""
        tries = rarely(self.chance, 3) if tries is None else tries
        return f"{'try ' if tries else ''}{caller} {arrow} {callee}"

    # ## Conditions

    def _span_condition(self) -> str:
        return self._junction(self._span_comparison)

    def _call_condition(self) -> str:
        return self._junction(self._call_comparison)

    def _junction(self, comparison):  # type: ignore[no-untyped-def]
        first = comparison()
        match self._below(7):
            case 4:
                return f"{first} and {comparison()}"
            case 5:
                return f"{first} or {comparison()}"
            case 6:
                return f"not ({first})"
        return first

    def _span_comparison(self) -> str:
        order = self._pick(ORDERS)
        return self._pick(
            (
                lambda: f"duration {order} {self._pick(DURATIONS)}",
                lambda: f"kind {self._pick(('==', '!='))} {self._pick(('server', 'client', 'internal', 'producer'))}",
                lambda: f"kind {self._pick(('in', 'not in'))} [server, consumer]",
                lambda: f"status {self._pick(('==', '!='))} {self._pick(('error', 'ok', 'unset'))}",
                lambda: self._pick(("error", "not error", "error == true", "root", "root == false")),
                lambda: f"service {self._pick(('==', '!=', '=~', '!~'))} {self._pick(TEXTS)}",
                lambda: f"name {self._pick(('==', '!=', '=~', '!~', 'contains'))} {self._pick(TEXTS)}",
                lambda: f"self_time {order} {self._pick(DURATIONS)}",
                lambda: f"duration {order} self_time * 2 + 5ms",
                lambda: f"end {order} start",
                lambda: f"exists({self._pick(('parent_id', 'name'))})",
                self._attribute,
                self._attribute,
                lambda: f"resource.service.version {self._pick(('==', '!='))} {self._pick(VERSIONS)}",
                lambda: f"(error or root) {self._pick(('==', '!='))} {self._pick(('true', 'false'))}",
                lambda: f"event[{self._event()}]",
                lambda: f"{self._pick(('parent', 'child', 'ancestor', 'descendant', 'sibling'))}[{self._near()}]",
                lambda: f'len(name) {order} 4 and lower(name) contains "get"',
            )
        )()

    def _near(self) -> str:
        """Return a condition about a span near another one."""
        return self._pick(
            (
                lambda: self._pick(("error", "not error", "root", "kind == server", "kind == client")),
                lambda: f"service {self._pick(('==', '!='))} {self._pick(TEXTS)}",
                lambda: f"not parent[{self._attribute()}]",
                self._attribute,
            )
        )()

    def _call_comparison(self) -> str:
        order = self._pick(ORDERS)
        return self._pick(
            (
                lambda: f"duration {order} {self._pick(DURATIONS)}",
                lambda: f"network {order} {self._pick(DURATIONS)}",
                lambda: f"attempts {order} {self._pick(('1', '2', '3'))}",
                lambda: f"attempt {order} {self._pick(('1', '2'))}",
                lambda: f"status {self._pick(('==', '!='))} {self._pick(('error', 'ok', 'unset'))}",
                lambda: self._pick(("error", "not error", "async", "not async")),
                lambda: f"callee {self._pick(('==', '!=', '=~'))} {self._pick(TEXTS)}",
                lambda: f"caller {self._pick(('==', '!=', '=~'))} {self._pick(TEXTS)}",
                lambda: f"operation {self._pick(('==', '!=', '=~'))} {self._pick(TEXTS)}",
                lambda: f"exists({self._pick(('network', 'attempt', 'callee'))})",
                lambda: f"end {order} start",
                lambda: f"protocol {self._pick(('==', '!='))} {self._pick(PROTOCOLS)}",
                self._attribute,
                self._attribute,
                self._attribute,
            )
        )()

    def _attribute(self) -> str:
        order = self._pick(ORDERS)
        return self._pick(
            (
                lambda: f"http.response.status_code {order} {self._pick(STATUSES)}",
                lambda: f"http.response.status_code {self._pick(('in', 'not in'))} [200..299, 404]",
                lambda: f"http.response.status_code {self._pick(('in', 'not in'))} 500..599",
                lambda: f"http.status_code {order} 200",
                lambda: f"app.n {order} {self._pick(NUMBERS)}",
                lambda: f"app.n {self._pick(('in', 'not in'))} {self._pick(NUMBER_SETS)}",
                lambda: f"app.n + 1 {order} 2",
                lambda: f"app.tags {self._pick(('==', '!=', '=~', '!~', 'contains'))} {self._pick(TAGS)}",
                lambda: f"app.tags {order} {self._pick(('1', '2'))}",
                lambda: f"app.tags {self._pick(('in', 'not in'))} {self._pick(TAG_SETS)}",
                lambda: f"span.plain {self._pick(('==', '!='))} {self._pick(PLAIN)}",
                lambda: f'span.plain {self._pick(("=~", "!~"))} "^x"',
                lambda: f"exists({self._pick(('app.n', 'app.tags', 'http.response.status_code', 'span.plain'))})",
                lambda: f'db.query.text {self._pick(("=~", "contains", "=="))} "SELECT"',
                lambda: f'error.type {self._pick(("==", "!="))} "timeout"',
                lambda: f"{self._pick(('app.n', 'error.type', 'span.plain'))} {self._pick(('==', '!='))} null",
            )
        )()

    def _event(self) -> str:
        return self._pick(
            ('name == "exception"', 'exception.type == "Timeout"', 'name == "note" and exception.type == "Timeout"')
        )

    # ## Claims

    def _selection(self) -> tuple[str, str]:
        """Return a selection, and a condition on the selected items."""
        is_call = bool(self._below(2))
        selection = self._call() if is_call else self._target()
        if rarely(self.chance, 6):
            selection = f"{self._pick(('first', 'last'))}({selection})"
        return selection, self._call_condition() if is_call else self._span_condition()

    def _quantified(self) -> str:
        selection, condition = self._selection()
        match self._below(5):
            case 0:
                return f"every {selection} has {condition}"
            case 1:
                return f"some {selection} has {condition}"
            case 2:
                return f"no {selection} has {condition}"
            case 3:
                return f"some {selection}"
        return f"no {selection}"

    def _bag(self) -> str:
        order = self._pick(ORDERS)
        call = self._call()
        if rarely(self.chance, 6):
            call = f"{self._pick(('first', 'last'))}({call})"
        right = self._pick(DURATIONS)
        right = self._pick((right, right, f"max(duration({self._target()}))", f"2 * p50(duration({self._target()}))"))
        return self._pick(
            (
                lambda: f"duration({self._target()}) {order} {right}",
                lambda: f"duration({call}) {order} {right}",
                lambda: f"self_time({self._target()}) {order} {right}",
                lambda: f"network({call}) {order} {right}",
                lambda: f"lag({self._call('~>')}) {order} {right}",
                lambda: f"attempts({call}) {order} {self._pick(('1', '2', '3'))}",
                lambda: f"duration({self._target()}) - 5ms {order} {right}",
                lambda: f"duration({self._target()}) {self._pick(('in', 'not in'))} 5ms..40ms",
                lambda: f"values({self._target()}, http.response.status_code) {order} 404",
                lambda: f"values({call}, error) == {self._pick(('true', 'false'))}",
                lambda: f"{right} {order} duration({self._target()})",
            )
        )()

    def _aggregate(self) -> str:
        function = self._pick(("max", "min", "avg", "sum", "p50", "p95", "p90"))
        inner = self._pick((self._target, self._call))()
        if rarely(self.chance, 6):
            return f"p({self._pick(('33.3', '100', '0.1', '66.7'))}, duration({inner}))"
        return f"{function}(duration({inner}))"

    def _number(self) -> str:
        order = self._pick(ORDERS)
        small = self._pick(("1", "0", "2", "3", "5"))
        selection, _ = self._selection()
        other, _ = self._selection()
        return self._pick(
            (
                lambda: f"count({selection}) {order} {small}",
                lambda: f"count({selection}) {order} {small}",
                lambda: f"{small} {order} count({selection})",
                lambda: f"count({selection}) {order} count({other})",
                lambda: f"count({selection}) + count({other}) {order} {small}",
                lambda: f"count({selection}) - 1 {order} {small}",
                lambda: f"count({selection}) {self._pick(('in', 'not in'))} {self._pick(('1..2', '[0, 2]'))}",
                lambda: f"error_rate({selection}) {order} {self._pick(('0%', '50%', '100%', '33%'))}",
                lambda: f"{self._aggregate()} {order} {self._pick(DURATIONS)}",
                lambda: f"{self._aggregate()} {order} {self._pick(DURATIONS)}",
                lambda: f"{self._aggregate()} {order} {self._aggregate()}",
                lambda: f"{self._aggregate()} {order} {self._aggregate()} * 2",
                lambda: f"max(attempts({self._call()})) {order} {small}",
                lambda: f"distinct(values({selection}, trace_id)) {order} {small}",
                lambda: f"sum(values({selection}, app.n)) {order} {small}",
                lambda: f"values({selection}, app.n) {self._pick(('==', '!='))} values({other}, app.n)",
                lambda: f"values({selection}, trace_id) == values({other}, trace_id)",
                lambda: f"count(traces) {order} {small}",
                lambda: f"rate({self._pick((selection, selection, 'traces'))}) {order} {self._pick(RATES)}",
                lambda: f"error_rate(traces) {order} {self._pick(('0%', '50%', '100%'))}",
                lambda: f"duration(traces) {order} {self._pick(('60ms', '80ms', '120ms'))}",
            )
        )()

    def _step(self) -> str:
        if rarely(self.chance, 8):
            return f"({self._pick(PEERS)} | {self._pick(PEERS)})"
        text = self._pick(PEERS)
        text += " " + self._pick(OPERATIONS) if rarely(self.chance, 5) else ""
        return text + (f"[{self._span_condition()}]" if rarely(self.chance, 7) else "")

    def _arrow(self) -> str:
        return self._pick(("->", "->", "->>", "->", "~>"))

    def _path(self) -> str:
        text = self._service()
        for _ in range(1 + self._below(3)):
            text += f" {self._arrow()} {self._step()}"
        if rarely(self.chance, 5):
            text += f" {self._arrow()} {{ {self._step()}, {self._step()} {self._arrow()} {self._step()} }}"
        return f"{self._pick(('', '', 'no ', 'only '))}path {text}"

    def _before(self) -> str:
        limit = f" within {self._pick(DURATIONS)}" if rarely(self.chance, 3) else ""
        return f"{self._selection()[0]} before {self._selection()[0]}{limit}"

    def _timed(self) -> str:
        limit = self._pick(DURATIONS)
        if self._below(2):
            return f"critical({self._pick(('a', 'b', 'c', 'bank', 'pg'))}) {self._pick(ORDERS)} {limit}"
        return (
            f"budget {self._pick(('60ms', '80ms', '100ms'))} {{ a: {limit}, {self._pick(('b', 'bank', '*'))}: 20ms }}"
        )

    def _retry(self) -> str:
        order = self._pick(ORDERS)
        clauses = [
            f"attempts {order} {self._pick(('2', '1', '3'))}",
            f"backoff {order} {self._pick(DURATIONS)}",
            "backoff grows",
            "recovered",
            "exhausted",
            f"cause {self._call_condition()}",
            f"evidence {self._pick(('counted', 'arrivals', 'inferred'))}",
        ]
        chosen = [clause for clause in clauses if rarely(self.chance, 4)]
        return f"retry {self._call('->', tries=False)} {{ {', '.join(chosen or ['attempts >= 2'])} }}"

    def _circuit(self) -> str:
        clauses = [f"holds >= {self._pick(DURATIONS)}", f"probes {self._pick(('<=', '<', '=='))} {self._below(3)}"]
        chosen = [clause for clause in clauses if self._below(2)]
        opens = f"opens after {1 + self._below(3)} failures"
        return f"circuit {self._call('->', tries=False)} {{ {', '.join([opens, *chosen])} }}"

    def _confident(self) -> str:
        selection, _ = self._selection()
        order, level = self._pick(("<", "<=", ">", ">=")), self._pick(("60%", "80%", "95%"))
        limit = f"error_rate({selection}) {order} {self._pick(('10%', '50%', '90%'))}"
        if self._below(2):
            limit = f"{self._pick(('p50', 'p90'))}(duration({selection})) {order} {self._pick(DURATIONS)}"
        return f"{limit} with confidence {level}"

    def _timeout(self) -> str:
        return f"timeout {self._call('->', tries=False)} within {self._pick(('20ms', '25ms', '40ms', '100ms', '10ms'))}"

    def _calls(self) -> str:
        """Return a claim about the number, the attempts, the time or the errors of whole calls."""
        call, order = self._call(tries=False), self._pick(ORDERS)
        return self._pick(
            (
                lambda: f"count({call}) {order} {self._pick(('1', '2', '0', '3'))}",
                lambda: f"attempts({call}) {order} {self._pick(('1', '2', '3'))}",
                lambda: f"error_rate({call}) {order} {self._pick(('0%', '50%', '100%'))}",
                lambda: f"duration({call}) {order} {self._pick(('10ms', '25ms', '40ms', '60ms'))}",
            )
        )()

    def _no_retry(self) -> str:
        return f"no retry {self._call(tries=False)}"

    def _fallback(self) -> str:
        to = self._pick(PEERS) if self._below(2) else self._pick(("span", "span a", 'span "op"', 'span b "GET *"'))
        to += f"[{self._span_condition()}]" if rarely(self.chance, 7) else ""
        return f"fallback {self._call('->', tries=False)} => {to}"


VERSIONS = ('"1"', "2")
