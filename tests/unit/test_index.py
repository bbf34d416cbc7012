from __future__ import annotations

import json
import os

import pytest

from stackward.core.index import DumpEntry, Index, StackEntry, TreeEntry, parse_index

ODD = os.fsdecode(b"caf\xe9\n")
DATA = TreeEntry("data", "data", "shop", "/opt/docker/shop/data", "/srv/shop", None, snapshot=True, files=3, bytes=9)
UPLOADS = TreeEntry(
    "uploads", "volume", ".mounts/shop/uploads", "/v", "/v", "shop_uploads", snapshot=False, files=0, bytes=0
)
SHOP = StackEntry(
    stack="shop",
    project="shop",
    at="2026-11-21T01:00:00+00:00",
    run="r1",
    trees=(DATA, UPLOADS),
    dumps=(DumpEntry("db", "postgres", ".dumps/shop/db.sql"),),
    images={"db": {"id": "sha256:1"}},
    external_networks=("proxy",),
    standstill_seconds=0.2,
    warnings=("a file vanished",),
    versions={"rsync": "3.4"},
)
INDEX = Index("2026-11-21", "2026-11-21T01:00:00+00:00", "host", {"shop": SHOP}, appliance="0.1.0", full_scan=False)


def test_what_is_written_is_read_back():
    assert parse_index(INDEX.to_json()) == INDEX


def test_a_name_that_is_no_utf8_survives_as_ascii():
    at = "2026-11-21T01:00:00+00:00"
    odd = Index("d", at, "h", {ODD: StackEntry(ODD, "p", at, "r", ())})
    text = odd.to_json()
    assert text.isascii()
    assert os.fsencode(next(iter(parse_index(text).stacks))) == b"caf\xe9\n"


def test_a_stack_owns_its_trees_and_its_dumps():
    assert SHOP.prefixes == ("shop", ".mounts/shop/uploads", ".dumps/shop")
    assert StackEntry("shop", "shop", "", "", (DATA,)).prefixes == ("shop",)


def test_what_a_later_version_may_leave_out_has_defaults():
    document = json.loads(INDEX.to_json())
    del document["appliance"], document["full_scan"], document["stacks"]["shop"]["dumps"]
    assert parse_index(json.dumps(document)).stacks["shop"].dumps == ()
    assert parse_index(json.dumps(document)).full_scan is True


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "stacks": []}',
        '{"format": 1, "date": "", "created_at": "", "host": "", "stacks": {"a": {"trees": [{}]}}}',
        '{"format": 1, "date": "", "created_at": "", "host": "", "stacks": {"a": {"trees": [], "other": 1}}}',
    ],
)  # fmt: skip
def test_what_is_no_index_is_refused(text):
    with pytest.raises(ValueError):
        parse_index(text)
