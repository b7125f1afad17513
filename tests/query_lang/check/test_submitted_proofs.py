"""Restrictions on submitted proofs."""

import pytest

from spanproof.query_lang.load.submitted_proofs import read_submitted_proof

GIVEN = "given traces over last 1h\n expect count(traces) > 0"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (f'use "secrets.proof"\nproof "p" {{ {GIVEN} }}', 'use "secrets.proof"'),
        ('proof "p" { when run "id"\n expect some a }', 'when run "id"'),
        (f'let a = env("HOME")\nproof "p" {{ {GIVEN} }}', 'env("HOME")'),
        (f'proof "p" {{ {GIVEN}\n before {{ when run "id" }} }}', 'when run "id"'),
        ('proof "p" { when POST "x" { file "a": "/etc/passwd" }\n expect some a }', 'file "a": "/etc/passwd"'),
        ('proof "p" { when grpc "x:1" "a.B/C" { descriptors "/x" }\n expect some a }', 'descriptors "/x"'),
        ('proof "p" { when grpc "x:1" "a.B/C" { tls "/x" }\n expect some a }', 'tls "/x"'),
        ('proof "p" { when publish kafka "t"\n expect some a }', 'when publish kafka "t"'),
        (
            'define d() { expect response matches schema "/etc/passwd" }\nproof "p" { when trace "x"\n apply d() }',
            'response matches schema "/etc/passwd"',
        ),
    ],
)
def test_owner_only_constructs_are_rejected(text: str, part: str) -> None:
    module = read_submitted_proof(text, "x", allow_requests=True)
    assert ("not-allowed", part) in [(each.id, text[each.at.start : each.at.end]) for each in module.diagnostics]


@pytest.mark.parametrize("request_", ['GET "http://x/"', 'grpc "x:1" "a.B/C"', 'publish nats "a"'])
def test_requests_need_permission(request_: str) -> None:
    text = f'proof "p" {{ when {request_}\n expect response.status == 200 }}'
    assert [each.id for each in read_submitted_proof(text, "x", allow_requests=False).diagnostics] == ["not-allowed"]
    assert read_submitted_proof(text, "x", allow_requests=True).diagnostics == ()


def test_stored_traces_need_no_permission() -> None:
    for text in (f'proof "p" {{ {GIVEN} }}', 'define d() { expect some a }\nproof "p" { when trace "x"\n apply d() }'):
        module = read_submitted_proof(text, "x", allow_requests=False)
        assert module.diagnostics == ()
        assert len(module.proofs) == 1
