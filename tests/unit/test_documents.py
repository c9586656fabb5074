"""The documents name what exists."""

import re

from orchestration.environment import FAMILIES, described
from tests.support.workspaces import ROOT


def test_every_make_target_of_the_documents_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for document in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"`make ([a-z-]+)", (ROOT / document).read_text()))
        named |= set(re.findall(r"^make ([a-z-]+)", (ROOT / document).read_text(), re.M))
        assert named
        assert named <= targets


def test_the_document_has_the_table_of_the_code():
    lines = (ROOT / "docs/environment.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert rows == [described(family) for family in FAMILIES]
