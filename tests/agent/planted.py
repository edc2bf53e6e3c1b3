"""Values of secrets that tests plant, and the proof that an exception holds none of them."""

from __future__ import annotations

import traceback

#: In every planted value, so that one search finds a leak of any.
MARK = "planted-5b1d"
OLD = f"{MARK}-old"
NEW = f"{MARK}-new"
OTHER = f"{MARK}-other"


def assert_tells_nothing(problem: BaseException) -> None:
    """Fail when the exception, its cause or its context shows a planted value."""
    seen: BaseException | None = problem
    while seen is not None:
        assert MARK not in f"{seen} {seen!r} {seen.args} {vars(seen)}"
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    assert MARK not in "".join(traceback.format_exception(problem))
