"""The log of our Prefect server: which errors come again."""

from orchestration.prefect.services import LogWatch, repeated_failures


def test_an_error_that_does_not_come_again_is_not_named(tmp_path):
    log = tmp_path / "server.log"
    watch = LogWatch(log)
    assert [*repeated_failures(watch)] == []  # there is no log yet
    record = "07:08:51.587 | ERROR   | docket.dependencies - ↩ [     8ms] {}(){{{}}}\nTraceback\n  a line\n"
    log.write_text(record.format("one", "one") + "sqlite3.OperationalError: locked\n")
    assert [*repeated_failures(watch)] == []
    with log.open("a") as file:
        file.write(record.format("two", "two") + "ValueError: 2\n" + record.format("two", "two"))
    [line] = repeated_failures(watch)
    assert line.startswith("the service two of the server fails repeatedly")
    log.write_text("")  # another server began
    assert [*repeated_failures(watch)] == []
