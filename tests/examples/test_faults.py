"""The shop's fault header: parsing and rejection."""

import pytest

from spanproof.examples.shop.faults import Fault, UnknownFaultError, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("bank=503", [Fault("bank", "503")]),
        ("bank=flaky:2", [Fault("bank", "flaky", times=2)]),
        ("bank=slow:800ms,", [Fault("bank", "slow", delay_ns=800_000_000)]),
        (
            "inventory=slow:2s, notifications=off",
            [Fault("inventory", "slow", delay_ns=2_000_000_000), Fault("notifications", "off")],
        ),
    ],
)
def test_known_faults_are_parsed(text: str, expected: list[Fault]) -> None:
    assert list(parse(text).values()) == expected


@pytest.mark.parametrize(
    "text",
    [
        "bank",
        "bank=",
        "bank=504",
        "bank=flaky",
        "bank=flaky:N",
        "bank=flaky:-1",
        "bank=slow:1h",
        "inventory=slow:61s",
        "inventory=slow:DURATION",
        "Bank=503",
        "bank=503:1",
        "notifications=off:1",
    ],
)
def test_unknown_fault_lists_known_ones(text: str) -> None:
    with pytest.raises(UnknownFaultError, match=r"^unknown fault `.*`; known: bank=503, .*notifications=off$"):
        parse(text)


def test_target_has_one_fault() -> None:
    with pytest.raises(UnknownFaultError, match="two faults for `bank`"):
        parse("bank=503, inventory=legacy, bank=down")
